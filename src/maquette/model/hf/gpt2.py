"""GPT-2: LayerNorm, learned positions and GELU; query, key and value in one matrix, and matrices transposed."""

from typing import Any

from maquette.model.architecture import TransformerConfig
from maquette.model.core_config import CoreConfig
from maquette.model.hf.family import ModelFamily, Raw, Stored, require

_GPT2_GELU = ("gelu_new", "gelu_pytorch_tanh")
_SETTINGS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 50257),
    "n_embd": ("hidden_size", 768),
    "n_layer": ("num_hidden_layers", 12),
    "n_head": ("num_attention_heads", 12),
    "n_positions": ("max_position_embeddings", 1024),
    "layer_norm_epsilon": ("normalization_eps", 1e-5),
    "tie_word_embeddings": ("tie_word_embeddings", True),
}
"""Their name: ours, and the value where a file leaves it out."""


def _read_gpt2(raw: Raw) -> TransformerConfig:
    require(
        raw,
        activation_function=_GPT2_GELU,
        scale_attn_weights=(True,),
        scale_attn_by_inverse_layer_idx=(False,),
        add_cross_attention=(False,),
    )
    values = {ours: raw.get(theirs, usual) for theirs, (ours, usual) in _SETTINGS.items()}
    return TransformerConfig(
        **values,
        intermediate_size=raw.get("n_inner") or 4 * values["hidden_size"],
        normalization="layernorm",
        positions="learned",
        activation="gelu",
        bias=True,
    )


def _write_gpt2(config: TransformerConfig) -> Raw:
    return {theirs: getattr(config, ours) for theirs, (ours, _) in _SETTINGS.items()} | {
        "n_inner": config.inner_width,
        "activation_function": _GPT2_GELU[0],
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def _is_gpt2(config: CoreConfig) -> bool:
    return (
        isinstance(config, TransformerConfig)
        and not config.own_code
        and not any(config.windows)
        and (config.normalization, config.positions, config.activation) == ("layernorm", "learned", "gelu")
        and config.bias
        and config.query_key_value_bias
        and not config.qk_norm
        and config.logit_softcap is None
        and not config.token_shift
        and config.key_value_heads == config.num_attention_heads
        and config.width_of_head * config.num_attention_heads == config.hidden_size
    )


def _gpt2_tensors(config: TransformerConfig) -> list[Stored]:
    stored = [
        Stored("transformer.wte.weight", ("core.embedding.weight",)),
        Stored("transformer.wpe.weight", ("core.positions.weight",)),
    ]
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"core.layers.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            transposed = kind == "weight"
            joined = tuple(f"{ours}attention.{part}.{kind}" for part in ("query", "key", "value"))
            stored += [
                Stored(f"{theirs}ln_1.{kind}", (f"{ours}attention_norm.{kind}",)),
                Stored(f"{theirs}attn.c_attn.{kind}", joined, transposed),
                Stored(f"{theirs}attn.c_proj.{kind}", (f"{ours}attention.output.{kind}",), transposed),
                Stored(f"{theirs}ln_2.{kind}", (f"{ours}feed_forward_norm.{kind}",)),
                Stored(f"{theirs}mlp.c_fc.{kind}", (f"{ours}feed_forward.up.{kind}",), transposed),
                Stored(f"{theirs}mlp.c_proj.{kind}", (f"{ours}feed_forward.down.{kind}",), transposed),
            ]
    stored += [Stored(f"transformer.ln_f.{kind}", (f"core.norm.{kind}",)) for kind in ("weight", "bias")]
    return stored if config.tie_word_embeddings else [*stored, Stored("lm_head.weight", ("head.weight",))]


GPT2 = ModelFamily(
    "GPT2LMHeadModel",
    "gpt2",
    expresses=_is_gpt2,
    read=_read_gpt2,
    write=_write_gpt2,
    tensors=_gpt2_tensors,
    prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"),
)
