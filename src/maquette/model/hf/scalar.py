"""Reward models as Hugging Face folders: the same core, with a head of one number in place of the vocabulary's.

The architecture is the family's `...ForSequenceClassification` with one label. Ours adds a bias to the score, which
`transformers` has no place for: it lies in the file as `score.bias`, and rewards there are lower by this constant,
which no comparison of two answers feels.
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import atomic_folder, write_json
from maquette.model.architecture import CoreConfig
from maquette.model.heads import ScalarModel
from maquette.model.hf.family import ModelFamily, Stored
from maquette.model.hf.folder import FAMILIES, family_of, is_export, read_config, require_replaceable
from maquette.model.hf.weights import read_weights, write_weights
from maquette.text import Tokenizer

_TEXT, _SCALAR = "ForCausalLM", "ForSequenceClassification"
_LANGUAGE_HEADS = {"GPT2LMHeadModel": "GPT2ForSequenceClassification"}


def is_scalar(raw: dict[str, Any]) -> bool:
    """Whether a `config.json` is a reward model's."""
    return any(str(name).endswith(_SCALAR) for name in raw.get("architectures") or [])


def save_scalar(model: ScalarModel, tokenizer: Tokenizer, path: Path | str, *, card: str | None = None) -> Path:
    """Writes the folder `path` atomically, as `hf.save` does for language models, and returns it."""
    require_replaceable(path)
    with atomic_folder(path, is_export) as folder:
        _fill(folder, model, tokenizer, card)
    return Path(path)


def load_scalar(path: Path | str, *, dtype: torch.dtype | None = torch.float32) -> ScalarModel:
    """The reward model in a folder, in evaluation mode. Raises `StageError` where there is none or it is damaged."""
    path = Path(path)
    raw = read_config(path)
    if not is_scalar(raw):
        raise StageError(f"{path} is no reward model.", "Train one with objective=reward.")
    family, config = _family_and_config(raw, path)
    with torch.device("meta"):
        model = ScalarModel(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = read_weights(path, family, _layout(family, config, shapes), shapes, dtype)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def read_architecture(raw: dict[str, Any], path: Path) -> CoreConfig:
    """The core's shape as a `config.json` has it, be it a language model's or a reward model's.

    Raises `StageError` for an unknown architecture or a setting that the core does not have."""
    return _family_and_config(raw, path)[1]


def _family_and_config(raw: dict[str, Any], path: Path) -> tuple[ModelFamily, CoreConfig]:
    named = [_language_name(str(name)) for name in raw.get("architectures") or []]
    family = family_of(raw | {"architectures": named}, path)
    try:
        return family, family.read(raw)
    except (StageError, ConfigError) as error:
        raise StageError(f"{path / 'config.json'}: {error.message}", error.hint) from None
    except TypeError as error:
        raise StageError(f"{path / 'config.json'} is damaged: {error}.", "Fetch the file again.") from None


def _fill(folder: Path, model: ScalarModel, tokenizer: Tokenizer, card: str | None) -> None:
    config: Any = model.config
    family = next(family for family in FAMILIES if family.expresses(config))
    state = model.state_dict()
    dtype = str(state["score.weight"].dtype).removeprefix("torch.")
    settings = {key: value for key, value in family.write(config).items() if key != "auto_map"}
    write_json(
        folder / "config.json",
        {"architectures": [_scalar_name(family.architecture)], "model_type": family.model_type}
        | settings
        | {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}, "problem_type": "regression"}
        | {"bos_token_id": tokenizer.document_id, "pad_token_id": tokenizer.padding_id}
        | {"dtype": dtype, "torch_dtype": dtype, "tokenizer_digest": tokenizer.digest},
    )
    write_weights(folder, _layout(family, config, state), state)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    tokenizer.save(folder)
    if card is not None:
        (folder / "README.md").write_text(card.rstrip() + "\n", encoding="utf-8")


def _layout(family: ModelFamily, config: Any, ours: dict[str, Any]) -> list[Stored]:
    if family.tensors is None:
        return [Stored(name, (name,)) for name in ours]
    core = [stored for stored in family.tensors(config) if "head.weight" not in stored.ours]
    return [*core, *(Stored(name, (name,)) for name in ("score.weight", "score.bias"))]


def _scalar_name(architecture: str) -> str:
    return _LANGUAGE_HEADS.get(architecture, architecture.replace(_TEXT, _SCALAR))


def _language_name(architecture: str) -> str:
    back = {theirs: ours for ours, theirs in _LANGUAGE_HEADS.items()}
    return back.get(architecture, architecture.replace(_SCALAR, _TEXT))
