"""A model as a Hugging Face folder, and back: what `maquette export` and `import` stand on.

| file | holds |
|---|---|
| config.json | the shape, in the words of the family |
| model.safetensors | the weights, bit for bit |
| tokenizer.json, tokenizer_config.json | the tokenizer and its chat template |
| generation_config.json | the ids at which generation stops; of an imported model all that it said |
| chat_template.jinja, additional_chat_templates, special_tokens_map.json, added_tokens.json | as they were imported |
| checksums.json | SHA-256 of the files above, so that a changed byte is noticed when Maquette reads the folder |
| modeling_maquette.py | the modelling code, only where no family of `transformers` has the model's options |

A reward model is the family's `...ForSequenceClassification` with one label: the same core, with a head of one number.
Ours adds a bias to the score, which `transformers` has no place for: it lies in the file as `score.bias`, and rewards
there are lower by this constant, which no comparison of two completions feels. One from elsewhere has none.
`transformers` reads the score at the last token that is not padding. Where padding and the end of turn are one token,
as in SmolLM2, that would be the token before; a model that was trained to be read at the end of turn is written
without a padding token, and then `transformers` scores one text at a time.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.artifacts import StageError
from maquette.artifacts.files import atomic_folder, file_digest, listed, read_json, write_json
from maquette.artifacts.reading import load_sealed, reading, short, write_sealed
from maquette.model.heads import LanguageModel, Model, ScalarModel
from maquette.model.hf.config_file import CHECKSUMS, DROPOUT, FAMILIES, config_of, family_of, read_config
from maquette.model.hf.family import MODELING, OWN, READS_RENDERING, ModelFamily, Stored, is_scalar
from maquette.model.hf.weights import Region, read_weights, weight_files, write_weights
from maquette.reports import render
from maquette.text import Tokenizer, model_files
from maquette.text.special import END_OF_TURN
from maquette.text.tokenizer import MISSING_FILE

_FILES = frozenset(
    (
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", *model_files.NAMES,
        MISSING_FILE, f"{MODELING}.py", "README.md", "manifest.json", CHECKSUMS, "__pycache__",
    )
)  # fmt: skip


_BIAS = "score.bias"


def load(path: Path | str, *, dtype: torch.dtype | None = torch.float32) -> LanguageModel:
    """The model in a Hugging Face folder, in `dtype` (None: as in the file) and evaluation mode.

    Logits equal those of `transformers` up to rounding. Raises `StageError` naming what is wrong: an unknown
    architecture, a setting the core does not have, a tensor that is missing, left over or of a wrong shape.
    """
    path, raw = Path(path), read_config(Path(path))
    if is_scalar(raw):
        raise StageError(f"{path} is a reward model: it gives one number and writes no text.", "Name another model.")
    return _load(LanguageModel, path, raw, dtype)


def load_scalar(path: Path | str, *, dtype: torch.dtype | None = torch.float32) -> ScalarModel:
    """The reward model in a folder, of ours or of `transformers`' with one label, otherwise as `load`."""
    path, raw = Path(path), read_config(Path(path))
    if not is_scalar(raw):
        raise StageError(f"{path} is not a reward model.", "Train one with objective=reward.")
    labels = raw.get("id2label") or {}
    if (count := raw.get("num_labels") or len(labels) or 2) != 1:  # transformers' default is 2
        names = f" ({short(', '.join(map(str, labels.values())))})" if isinstance(labels, dict) and labels else ""
        raise StageError(
            f"{path / 'config.json'}: a classifier with {short(count)} labels{names} is not a reward model.",
            "One that gives a reward has num_labels=1.",
        )
    model = _load(ScalarModel, path, raw, dtype)
    model.padding_id = raw.get("pad_token_id")
    model.reads_rendering = bool(raw.get(READS_RENDERING, "tokenizer_digest" not in raw))
    return model


def _load(kind: type[Model], path: Path, raw: dict[str, Any], dtype: torch.dtype | None) -> Model:
    _verify(path)
    model = _empty(kind, path, raw)
    model.load_state_dict(dict(_values(model, path, raw, dtype)), assign=True)
    return model.eval()


def _empty(kind: type[Model], path: Path, raw: dict[str, Any]) -> Model:
    config = config_of(raw, path)
    with reading(path / "config.json", hint="Fetch the file again."), torch.device("meta"):
        return kind(config)  # no memory and no initial weights: those of the file take their place


def _values(
    model: Model,
    path: Path,
    raw: dict[str, Any],
    dtype: torch.dtype | None,
    regions: Mapping[str, Region] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """The model's weights as they stand in the folder, one after another."""
    family = family_of(raw, path)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    lacks_bias = _BIAS in shapes and _BIAS not in weight_files(path)
    if lacks_bias:
        del shapes[_BIAS]
    layout = _layout(family, model.config, shapes)
    for name, value in read_weights(path, family, layout, shapes, dtype, regions):
        yield name, value
        if lacks_bias and name == "score.weight":
            bias = torch.zeros(1, dtype=value.dtype)
            yield _BIAS, bias if regions is None else bias[regions[_BIAS]]


def read_regions(
    path: Path | str, regions: Callable[[str], Region], *, scalar: bool = False, verify: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """Of the weights in a folder (float32, by our names, one after another) the region of each that a process keeps.

    `scalar`: as a reward model has them; of a folder with a language model the core's alone. `verify`: whether to check
    the files against their checksums, which reads them whole. Raises as `load`.
    """
    path, raw = Path(path), read_config(Path(path))
    if verify:
        _verify(path)
    kind: Any = ScalarModel if is_scalar(raw) else LanguageModel
    model = _empty(kind, path, raw)
    core = scalar and not is_scalar(raw)
    wanted = {name for name in model.state_dict() if not core or name.startswith("core.")}
    nothing = (slice(0, 0),)
    of_each = {name: regions(name) if name in wanted else nothing for name in model.state_dict()}
    yield from (pair for pair in _values(model, path, raw, torch.float32, of_each) if pair[0] in wanted)


def _verify(path: Path) -> None:
    """Raises `StageError` where a file is not what `fill` wrote. Folders of others have no checksums."""
    if not (path / CHECKSUMS).exists():
        return
    hint = f"Get the file again; if it was changed on purpose, remove {CHECKSUMS}."
    for name, digest in load_sealed(path / CHECKSUMS, hint=hint)["files"].items():
        if not (path / name).is_file():
            raise StageError(f"{path / name} is missing.", hint)
        if file_digest(path / name) != digest:
            raise StageError(f"{path / name} is damaged: it does not match its checksum.", hint)


def save(
    model: LanguageModel | ScalarModel,
    tokenizer: Tokenizer,
    path: Path | str,
    *,
    card: str | None = None,
    values: Callable[[str], Tensor] | None = None,
) -> Path:
    """Writes the folder `path` atomically (one that is there is replaced) and returns it; `card` becomes README.md.
    `values` gives the weights one by one where the model has their shapes alone (on the meta device).

    Raises `StageError` where the model has fewer rows than the tokenizer has tokens, the disk is full, or `path` is a
    folder that holds anything else.
    """
    require_replaceable(path)
    with atomic_folder(path, is_export) as folder:
        fill(folder, model, tokenizer, card=card, values=values)
    return Path(path)


def fill(
    folder: Path,
    model: LanguageModel | ScalarModel,
    tokenizer: Tokenizer,
    *,
    card: str | None = None,
    values: Callable[[str], Tensor] | None = None,
) -> None:
    """Writes the files of `save` into a folder that is there."""
    config: Any = model.config
    if tokenizer.vocab_size > config.vocab_size:
        raise StageError(
            f"The tokenizer has {tokenizer.vocab_size:,} tokens and the model knows {config.vocab_size:,}.",
            "It is not the tokenizer that the model was trained with.",
        )
    family = next(family for family in FAMILIES if family.expresses(config))
    settings: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.model_type} | family.write(
        config
    )
    if getattr(config, DROPOUT, 0.0):
        settings[DROPOUT] = config.dropout
    state = model.state_dict()
    files, stop_ids, our_end = tokenizer.files, tokenizer.stop_ids, tokenizer.special_ids.get(END_OF_TURN)
    special = {"bos_token_id": tokenizer.document_id, "pad_token_id": tokenizer.padding_id} | files.ids
    if "auto_map" in settings:
        shutil.copyfile(Path(__file__).with_name(f"{MODELING}.py"), folder / f"{MODELING}.py")
    tokenizer.save(folder)
    if isinstance(model, ScalarModel):
        settings |= {"architectures": [family.scalar_architecture], "num_labels": 1, "problem_type": "regression"}
        settings |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, READS_RENDERING: model.reads_rendering}
        if model.reads_rendering:
            special["pad_token_id"] = model.padding_id
        elif special["pad_token_id"] in stop_ids:
            special["pad_token_id"] = None
        if family is not OWN and not (state[_BIAS] if values is None else values(_BIAS)).any():
            del state[_BIAS]
    else:
        special["eos_token_id"] = files.with_ends(files.ids, stop_ids, our_end)
        generation = files.generation or {"do_sample": False} | special
        ends = {"eos_token_id": files.with_ends(files.generation, stop_ids, our_end)}
        write_json(folder / model_files.GENERATION, generation | ends)
    dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
    # The first name is transformers 5, the second transformers 4
    settings |= special | {"dtype": dtype, "torch_dtype": dtype, "tokenizer_digest": tokenizer.digest}
    write_json(folder / "config.json", settings)
    write_weights(folder, _layout(family, config, state), state, values)
    written = [*listed(folder), *listed(folder / model_files.TEMPLATES)]
    digests = {str(path.relative_to(folder)): file_digest(path) for path in written if path.is_file()}
    write_sealed(folder / CHECKSUMS, {"files": digests})
    if card is not None:
        readme = card.rstrip() + "\n"
        if isinstance(model, LanguageModel):
            opens = config.opens_in_transformers
            how = {"transformers": opens, "own": family is OWN, "needs": () if opens else config.own_code}
            readme += f"\n{render('model_usage.md.j2', how)}"
        (folder / "README.md").write_text(readme, encoding="utf-8")


def is_export(path: Path) -> bool:
    """Whether `save` wrote the folder `path`, and nobody has put anything beside it."""
    config = read_json(path / "config.json")
    ours = isinstance(config, dict) and "tokenizer_digest" in config
    return ours and all(entry.name in _FILES for entry in path.iterdir())


def require_replaceable(path: Path | str) -> None:
    """Raises `StageError` where `path` is a file, or a folder with files that no export wrote: they would be lost."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise StageError(f"{path} is a file.", "Choose a folder.")
    if path.exists() and not is_export(path) and (entries := sorted(path.iterdir())):
        others = [entry.name for entry in entries if entry.name not in _FILES] or [entries[0].name]
        raise StageError(f"{path} holds other files ({others[0]}), which would be lost.", "Choose a folder of its own.")


def _layout(family: ModelFamily, config: Any, ours: dict[str, Any]) -> list[Stored]:
    """Where each of our tensors, by name, lies in the file."""
    shared = [stored for stored in family.tensors(config) if set(stored.ours) <= set(ours)] if family.tensors else []
    placed = {name for stored in shared for name in stored.ours}
    return [*shared, *(Stored(name, (name,)) for name in ours if name not in placed)]
