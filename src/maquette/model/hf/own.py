"""Models that no family of `transformers` has: our own settings, and the modelling code beside them.

`transformers` opens such a folder with `trust_remote_code=True` (modeling_maquette.py); the LSTM baseline and models
with a user's code in them have no such code. The latter's settings name it, and it is imported from where it is
installed, or from the current folder.
"""

import dataclasses
from typing import Any

from maquette.artifacts import StageError
from maquette.model.config import KINDS, CoreConfig, CustomConfig, TransformerConfig
from maquette.model.hf.family import Family, Raw, number, require

MODELING = "modeling_maquette"

FORMAT = 2
"""Of the settings in `config.json`: from 2 on they have the names that `transformers` uses."""


def _read(raw: Raw) -> CoreConfig:
    if (found := raw.get("maquette_format", 1)) != FORMAT:
        raise StageError(
            f"The settings are of format {found}, and this version of Maquette reads {FORMAT}.",
            "Export the run again; of a run from before this version, with the version that trained it, or "
            "train it anew.",
        )
    require(raw, kind=tuple(KINDS))
    kind = KINDS[raw.get("kind", "transformer")]
    for key in ("vocab_size", "size") if kind is CustomConfig else ("vocab_size", "hidden_size", "num_hidden_layers"):
        number(raw, key)
    fields = {field.name for field in dataclasses.fields(kind)}
    config: CoreConfig = kind(**{key: value for key, value in raw.items() if key in fields})
    return config


def _write(config: CoreConfig) -> Raw:
    settings: dict[str, Any] = {"maquette_format": FORMAT} | dataclasses.asdict(config)
    settings = {"kind": config.kind} | settings
    if isinstance(config, TransformerConfig):
        settings |= {
            "num_key_value_heads": config.key_value_heads,
            "head_dim": config.width_of_head,
            "intermediate_size": config.inner_width,
            "attention_bias": config.query_key_value_bias,
        }
    if config.opens_in_transformers:
        settings["auto_map"] = {
            "AutoConfig": f"{MODELING}.MaquetteConfig",
            "AutoModelForCausalLM": f"{MODELING}.MaquetteForCausalLM",
        }
    return settings


OWN = Family(
    "MaquetteForCausalLM",
    "maquette",
    expresses=lambda config: True,
    read=_read,
    write=_write,
    head="head.weight",
)
