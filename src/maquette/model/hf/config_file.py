"""The `config.json` of a Hugging Face folder: which family its model is of, and the core's shape.

Free of torch, so that a run that starts from a model is planned, and found finished, without it.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.reading import load_table, reading, short
from maquette.artifacts.strangers import check_code
from maquette.model.architecture import TransformerConfig
from maquette.model.core_config import CoreConfig
from maquette.model.hf.family import OWN, ModelFamily, ReadSettings
from maquette.model.hf.gpt2 import GPT2
from maquette.model.hf.mixture import MIXTRAL, QWEN3_MOE
from maquette.model.hf.rotary import LLAMA, MISTRAL, QWEN2, QWEN3

if TYPE_CHECKING:
    from maquette.text import Tokenizer

FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL, QWEN3_MOE, GPT2, OWN)
"""In the order in which one is chosen for a model to write; the last takes what the others can't express."""


CHECKSUMS = "checksums.json"
"""Of the files that an export wrote."""

DROPOUT = "dropout"
"""Our setting that no family's `config.json` has: `transformers` passes it over, a run that trains on reads it."""


def read_config(path: Path) -> dict[str, Any]:
    """The content of `config.json`. Raises `StageError` where it is missing or damaged."""
    file = path / "config.json"
    if not path.is_dir():
        raise StageError(f"{path} is not a folder.", "Give a folder that holds config.json and model.safetensors.")
    if not file.exists():
        raise StageError(f"{file} is missing.", "Is this a Hugging Face folder?")
    raw = load_table(file, hint="Fetch the file again.")
    if not isinstance(named := raw.get("architectures") or [], list) or not all(isinstance(one, str) for one in named):
        raise StageError(f"{file}: architectures must be a list of names, got {short(named)}.", "Fetch the file again.")
    return raw


def family_of(raw: dict[str, Any], path: Path) -> ModelFamily:
    """The family that a `config.json` names, be it a language model's or a reward model's.

    Raises `StageError` for an unknown architecture or quantised weights.
    """
    named = raw.get("architectures") or []
    for family in FAMILIES:
        known = {family.architecture, family.scalar_architecture} & set(named)
        if known or (not named and raw.get("model_type") == family.model_type):
            if raw.get("quantization_config"):
                raise StageError(f"{path / 'config.json'}: quantised weights are not supported.", "Fetch the original.")
            return family
    raise StageError(
        f"{path / 'config.json'}: the architecture {', '.join(named) or raw.get('model_type')} is not known.",
        f"Known: {', '.join(family.architecture for family in FAMILIES)}.",
    )


def config_of(raw: dict[str, Any], path: Path) -> CoreConfig:
    """The core's shape as a `config.json` has it, be it a language model's or a reward model's.

    Raises `StageError` for an unknown architecture or a setting that the core does not have.
    """
    family = family_of(raw, path)
    try:
        with reading(path / "config.json", hint="Fetch the file again."):
            settings = ReadSettings(raw)
            config = family.read(settings)
            if isinstance(config, TransformerConfig) and settings.get(DROPOUT):  # of training, which theirs have not
                config = dataclasses.replace(config, dropout=settings[DROPOUT])
            settings.require_known()
    except (StageError, ConfigError) as error:
        raise StageError(f"{path / 'config.json'}: {error.message}", error.hint) from None
    for name in config.own_code:
        check_code(name, path / "config.json", "code")
    return config


def limits(config: CoreConfig, tokenizer: "Tokenizer", *, scalar: bool) -> list[str]:
    """What a folder with such a model can't do elsewhere, in words."""
    limits = []
    if config.own_code:
        needed = ", ".join(config.own_code)
        limits.append(
            f"transformers can't open this folder: it needs {needed}, which is not in it. Maquette opens it "
            "where that code is installed, or lies in the current folder."
        )
    elif not config.opens_in_transformers:
        limits.append(f"transformers has no such model ({config.description}): only Maquette opens this folder.")
    if scalar and tokenizer.padding_id is None:
        limits.append("the tokenizer has no padding token: transformers scores one text at a time.")
    elif scalar and tokenizer.padding_id in tokenizer.stop_ids:
        limits.append("the padding token ends turns too: transformers scores one text at a time.")
    if not tokenizer.has_text:
        limits.append("the folder has no tokenizer: the tokens that the model read came without one.")
    return limits
