"""Models that no family of `transformers` has: our own settings and names, and the modelling code beside them.

`transformers` opens such a folder with `trust_remote_code=True` (modeling_maquette.py); only the LSTM baseline has no
such code.
"""

import dataclasses
from typing import Any

from maquette.model.config import CoreConfig, LSTMConfig, TransformerConfig
from maquette.model.hf.family import Family, Raw, number, require

MODELING = "modeling_maquette"
_KINDS: dict[str, type[TransformerConfig] | type[LSTMConfig]] = {"transformer": TransformerConfig, "lstm": LSTMConfig}


def _read(raw: Raw) -> CoreConfig:
    require(raw, kind=tuple(_KINDS))
    kind = _KINDS[raw.get("kind", "transformer")]
    for key in ("vocabulary_size", "width", "num_layers"):
        number(raw, key)
    fields = {field.name for field in dataclasses.fields(kind)}
    return kind(
        **{key: value for key, value in raw.items() if key in fields}, tied=raw.get("tie_word_embeddings", False)
    )


def _write(config: CoreConfig) -> Raw:
    settings: dict[str, Any] = {key: value for key, value in dataclasses.asdict(config).items() if key != "tied"}
    settings |= {"tie_word_embeddings": config.tied}
    if isinstance(config, LSTMConfig):
        return {"kind": "lstm"} | settings
    return {"kind": "transformer"} | settings | {
        "num_key_value_heads": config.key_value_heads,
        "head_width": config.width_of_head,
        "feed_forward_width": config.inner_width,
        "attention_bias": config.query_key_value_bias,
        "auto_map": {
            "AutoConfig": f"{MODELING}.MaquetteConfig",
            "AutoModelForCausalLM": f"{MODELING}.MaquetteForCausalLM",
        },
    }  # fmt: skip


OWN = Family(
    "MaquetteForCausalLM",
    "maquette",
    expresses=lambda config: True,
    read=_read,
    write=_write,
    head="head.weight",
)
