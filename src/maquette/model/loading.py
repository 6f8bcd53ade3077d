"""From what a person names to a model and its tokenizer: a run, an artifact, a Hugging Face folder, or nothing at all
(the newest finished run). And from a description to the model it describes:

`{"architecture": {"kind": "transformer", "hidden_size": ...}, "seed": 0, "parametrization": {...}, "checkpoint": None,
"adapter": None}` is what a LightningModule keeps as a hyperparameter, so that its checkpoint can be opened without
anything else.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import digest, file_digest, listed, read_json
from maquette.artifacts.run_file import FILE, FINISHED, read_run, read_runs
from maquette.artifacts.settings import nearest
from maquette.model.architecture import read_architecture
from maquette.model.hf.family import is_scalar
from maquette.model.parametrization import STANDARD, Parametrization

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maquette.model.heads import LanguageModel, ScalarModel
    from maquette.text import Tokenizer

EXPORTED = "model"
"""The folder of a run that holds the model as a Hugging Face folder."""


def find_checkpoint(checkpoint: str | Path | None, outputs: str | Path, *, key: str = "checkpoint") -> Path:
    """The folder that `checkpoint` means: a path, the name of a run or of an imported model under `outputs`, or for
    None (or "latest") the newest finished run. `key`: the setting that names it.

    Raises `ConfigError` for a name that means nothing, `StageError` where there is no finished run.
    """
    if checkpoint is None or str(checkpoint) == "latest":
        return latest_run(outputs)
    path = Path(checkpoint)
    roots = [Path(outputs) / "runs", Path(outputs) / "artifacts" / "models"]
    for candidate in (path, *(root / path for root in roots)):
        if candidate.is_dir():
            return candidate
    known = [entry.name for root in roots for entry in listed(root) if entry.is_dir()]
    close = nearest(str(checkpoint), known)
    hint = f"Did you mean {close}?" if close else "Give a run's folder, its name, or a Hugging Face folder."
    raise ConfigError(f"{key}={checkpoint}: there is no such folder or run.", hint)


def find_reward_model(checkpoint: str | Path | None, outputs: str | Path, *, key: str = "reward.checkpoint") -> Path:
    """As `find_checkpoint`, but None (or "latest") is the newest finished run of a reward model."""
    newest = checkpoint is None or str(checkpoint) == "latest"
    return latest_run(outputs, scalar=True) if newest else find_checkpoint(checkpoint, outputs, key=key)


def find_models(models: Sequence[str], checkpoint: str | None, outputs: str | Path) -> list[Path]:
    """The folders of `models`, or of `checkpoint` alone where none are named.

    Raises as `find_checkpoint`, and `ConfigError` where two of `models` are one."""
    if not models:
        return [find_checkpoint(checkpoint, outputs)]
    folders = [find_checkpoint(name, outputs, key="models") for name in models]
    places = [model_folder(folder).resolve() for folder in folders]
    for place, name in zip(places, models, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"models names {name} twice.", "Leave one out.")
    return folders


def model_name(folder: str | Path) -> str:
    """What people call the model in a folder, wherever it is shown: as its run or its imported model is called,
    otherwise as the folder. `parameters` beside it are N, as in a run's name: what a token uses without the embedding.
    """
    path = Path(folder).absolute()
    return path.parent.name if path.name == EXPORTED else path.name


def model_names(folders: Sequence[str | Path]) -> list[str]:
    """The same of several models; with so much of the path before it that no two have one name."""
    names = [model_name(folder) for folder in folders]
    before = [Path(folder).absolute() for folder in folders]
    before = [path.parent.parent if path.name == EXPORTED else path.parent for path in before]
    while len(set(names)) < len(names) and any(path.name for path in before):
        shared = {name for name in names if names.count(name) > 1}
        names = [f"{path.name}/{name}" if name in shared else name for path, name in zip(before, names, strict=True)]
        before = [path.parent for path in before]
    return names


def latest_run(outputs: str | Path, objectives: Sequence[str] | None = None, *, scalar: bool = False) -> Path:
    """The folder of the finished run of a model that writes text (`scalar`: of a reward model) which ended last; with
    `objectives` the newest that was trained for the first of them that has a run.

    Raises `StageError` where there is none."""
    runs = Path(outputs) / "runs"
    records = read_runs(outputs)
    finished = {
        folder: (str(record.get("finished")), (folder / FILE).stat().st_mtime_ns)
        for folder, record in records.items()
        if record.get("status") == FINISHED
    }
    if objectives is None:
        exported = {folder: read_json(folder / EXPORTED / "config.json") or {} for folder in finished}
        groups = [[folder for folder in finished if is_scalar(exported[folder]) == scalar]]
    else:
        groups = [[folder for folder in finished if records[folder]["spec"]["objective"] == one] for one in objectives]
    for group in groups:
        if group:
            return max(group, key=finished.__getitem__)
    if records:
        raise StageError(f"{runs} has no finished run.", "Resume one by running its command again.")
    raise StageError(f"There is no run in {runs} yet.", "Run maquette train, or name a folder with checkpoint=.")


def model_folder(path: str | Path) -> Path:
    """The Hugging Face folder at `path`: of a run its exported model, otherwise `path` itself.

    Raises `StageError` where a run has no model yet or the folder is neither.
    """
    path = Path(path)
    if not path.is_dir():
        raise StageError(f"{path} is not a folder.", "Give a run's folder or a Hugging Face folder.")
    if (path / EXPORTED / "config.json").is_file():
        return path / EXPORTED
    if (path / "config.json").is_file():
        return path
    if (record := read_run(path)) is not None:
        status = record.get("status", "unknown")
        raise StageError(f"The run {path} has no model yet (status: {status}).", "Run its command again to resume.")
    raise StageError(f"{path} is neither a run nor a Hugging Face folder.", "It has no config.json and no run.json.")


def weights_digest(path: str | Path) -> str:
    """Digest of the weights of a run or an exported folder."""
    return digest([file_digest(one) for one in listed(model_folder(path), "*.safetensors")])


def load_tokenizer(path: str | Path, digest: str | None = None) -> "Tokenizer":
    """The tokenizer of a run or a Hugging Face folder.

    `digest`: of the tokenizer whose tokens are to be read. Raises `StageError` where it is another one, or not the
    model's own.
    """
    from maquette.model.hf.config_file import read_config
    from maquette.text import Tokenizer

    folder = model_folder(path)
    tokenizer = Tokenizer.load(folder)
    trained_with = read_config(folder).get("tokenizer_digest", tokenizer.digest)
    if tokenizer.digest != trained_with:
        raise StageError(
            f"{folder / 'tokenizer.json'} is not the tokenizer that the model was trained with "
            f"({tokenizer.digest[:8]}, expected {trained_with[:8]}).",
            "Put the model's own tokenizer.json back.",
        )
    if digest not in (None, tokenizer.digest):
        raise StageError(
            f"{folder} has another tokenizer ({tokenizer.digest[:8]}) than what it is to read ({digest[:8]}).",
            "Use tokens, or a model, made with the same tokenizer.",
        )
    return tokenizer


def load_checkpoint(
    path: str | Path, *, tokenizer_digest: str | None = None, device: str = "cpu"
) -> tuple["LanguageModel", "Tokenizer"]:
    """The model (float32, in evaluation mode) and the tokenizer of a run, an artifact or a Hugging Face folder.

    Raises `StageError` where the tokenizer does not fit the model or is not that of `tokenizer_digest`, or a file is
    missing or damaged.
    """
    from maquette.model import hf

    folder = model_folder(path)
    tokenizer = load_tokenizer(folder, tokenizer_digest)
    model = hf.load(folder)
    _check_rows(tokenizer, model.config.vocab_size, folder)
    return model.to(device), tokenizer


def _check_rows(tokenizer: "Tokenizer", rows: int, folder: Path) -> None:
    if tokenizer.vocab_size > rows:
        raise StageError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model knows {rows:,}.",
            "The two files do not belong together.",
        )


def load_reward_model(path: str | Path, *, tokenizer_digest: str | None = None) -> tuple["ScalarModel", "Tokenizer"]:
    """The reward model of a run or folder, otherwise as `load_checkpoint`."""
    from maquette.model import hf

    folder = model_folder(path)
    tokenizer = load_tokenizer(folder, tokenizer_digest)
    model = hf.load_scalar(folder)
    _check_rows(tokenizer, model.config.vocab_size, folder)
    return model, tokenizer


def build_model(
    description: Mapping[str, Any], *, weights: bool = True, scalar: bool = False
) -> "LanguageModel | ScalarModel":
    """The model that is described; `weights`: with its initial weights (drawn from the seed, or those of `checkpoint`),
    else with whatever it is made with: another's weights follow. `scalar`: one number per position instead of logits.

    Raises `StageError` where the checkpoint is missing, damaged, or has another tokenizer than `tokenizer_digest`.
    """
    model = _built(description, weights=weights, scalar=scalar)
    if adapter := description.get("adapter"):
        from maquette.model.adapters import attach

        attach(model, adapter, seed=description.get("seed", 0))
    return model


def _built(description: Mapping[str, Any], *, weights: bool, scalar: bool) -> "LanguageModel | ScalarModel":
    from maquette.model import hf
    from maquette.model.heads import LanguageModel, ScalarModel
    from maquette.model.initialization import initialize

    architecture, seed = read_architecture(description["architecture"]), description.get("seed", 0)
    checkpoint, digest = description.get("checkpoint"), description.get("tokenizer_digest")
    if not weights or checkpoint is None:
        if scalar:
            return ScalarModel(architecture, seed=seed)
        model = LanguageModel(architecture, seed=seed)
        if weights and (parametrization := description.get("parametrization")) is not None:
            initialize(model, architecture, seed, parametrization=Parametrization(**parametrization))
        return model
    if scalar and hf.is_scalar(hf.read_config(model_folder(checkpoint))):
        reward_model = load_reward_model(checkpoint, tokenizer_digest=digest)[0].train()
        reward_model.padding_id, reward_model.reads_rendering = None, False  # trained on, it is one of ours
        return reward_model
    model, _ = load_checkpoint(checkpoint, tokenizer_digest=digest)
    if architecture.max_position_embeddings > model.config.max_position_embeddings:
        model.core.change_context(max_position_embeddings=architecture.max_position_embeddings)
    return (ScalarModel.from_language_model(model, seed=seed) if scalar else model).train()


# Without a whole model ------------------------------------------------------------------------------------------------


def is_drawn_by_name(description: Mapping[str, Any]) -> bool:
    """Whether `initial_regions` gives every weight of the model: not where a user's own classes start theirs."""
    architecture = read_architecture(description["architecture"])
    return not architecture.own_code and not description.get("adapter")


def initial_regions(
    description: Mapping[str, Any],
    model: "nn.Module",
    regions: Callable[[str], tuple[slice, ...]],
    *,
    scalar: bool = False,
    verify: bool = True,
) -> Iterator[tuple[str, "Tensor"]]:
    """What `build_model` would give `model`, which is as the description has it but empty: of each parameter the
    region that this process keeps, one after another, so that no whole model is in memory.

    `verify`: whether to check the checkpoint's files first; one of the processes does. Raises as `build_model`.
    """
    from maquette.model import hf
    from maquette.model.initialization import initial_values

    architecture, seed = read_architecture(description["architecture"]), description.get("seed", 0)
    parameters = dict(model.named_parameters())
    parametrization = description.get("parametrization")
    if (checkpoint := description.get("checkpoint")) is not None:
        folder = model_folder(checkpoint)
        _check_rows(load_tokenizer(folder, description.get("tokenizer_digest")), architecture.vocab_size, folder)
        for name, value in hf.read_regions(folder, regions, scalar=scalar, verify=verify):
            parameters.pop(name, None)  # it may be a buffer
            yield name, value
            del value  # before the next is made
        parametrization = None  # a score on a language model's core
    factors = STANDARD if scalar or parametrization is None else Parametrization(**parametrization)
    for name, value in initial_values(parameters, architecture, seed, parametrization=factors):
        part = value[regions(name)]
        del value
        yield name, part
        del part  # before the next is made


# Checkpoints of adapters ----------------------------------------------------------------------------------------------


BASE = "base"
"""In a checkpoint of training: the digest of the weights that it leaves out."""


@functools.lru_cache(maxsize=4)
def _digest_once(folder: str) -> str:
    return weights_digest(folder)


def leave_out_base(checkpoint: dict[str, Any], folder: str | None, model: "nn.Module", part: str = "model") -> None:
    """Takes the weights of `model`, the `part` of a module, that are not trained out of a checkpoint, where they are
    those of a `folder`."""
    if folder is None:
        return
    frozen = {f"{part}.{name}" for name, parameter in model.named_parameters() if not parameter.requires_grad}
    checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name not in frozen}
    checkpoint[_base_of(part)] = _digest_once(str(folder))


def put_back_base(
    checkpoint: dict[str, Any], folder: str | None, build: "Callable[[], nn.Module]", part: str = "model"
) -> None:
    """Puts them back where they were left out; `build` makes the part from the folder. Raises `StageError` where the
    folder holds other weights than those that were trained beside."""
    if (saved := checkpoint.get(_base_of(part))) is None:
        return
    if (now := weights_digest(str(folder))) != saved:
        raise StageError(
            f"{folder} holds other weights ({now[:8]}) than those that the adapter was trained on ({saved[:8]}).",
            "Put the model back that the run started from, or train it again with force=true.",
        )
    if not checkpoint["state_dict"]:  # it is in the model already, which is in shards
        return
    for name, parameter in build().named_parameters():
        if not parameter.requires_grad:
            checkpoint["state_dict"].setdefault(f"{part}.{name}", parameter.detach())


def _base_of(part: str) -> str:
    return BASE if part == "model" else f"{part}_{BASE}"
