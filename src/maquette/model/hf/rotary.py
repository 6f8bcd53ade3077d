"""Llama, Mistral, Qwen2 and Qwen3: RMSNorm, rotary positions and SwiGLU, with small differences.

Mistral has a sliding window in each layer; Qwen2 and Qwen3 may have one in some of them. Qwen2 has biases on query, key
and value; Qwen3 normalises queries and keys.
"""

from typing import Any

from maquette.artifacts.reading import short
from maquette.model.architecture import FULL, SLIDING, MixtureOfExpertsConfig, TransformerConfig
from maquette.model.core_config import CoreConfig
from maquette.model.hf.family import ModelFamily, Raw, Stored, number, require, unsupported

_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def _read_rope_theta(raw: Raw) -> float:
    """The rotary base, written as `rope_theta` (transformers 4) or in `rope_parameters` (5). Refuses scaled kinds."""
    for key in ("rope_scaling", "rope_parameters"):
        settings = raw.get(key) or {}
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind != "default":
            raise unsupported(f"{key}.rope_type", kind, "Only unscaled rotary positions (rope_type=default) are known.")
        if settings.get("partial_rotary_factor", 1.0) != 1.0:
            raise unsupported(f"{key}.partial_rotary_factor", settings["partial_rotary_factor"])
    if raw.get("partial_rotary_factor", 1.0) != 1.0:
        raise unsupported("partial_rotary_factor", raw["partial_rotary_factor"])
    newest = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    older = raw.get("rope_theta") or 10_000.0
    return float(newest.get("rope_theta") or older)


def _read_qwen_windows(raw: Raw) -> dict[str, Any]:
    """Sliding windows are on where `use_sliding_window` says so, in the layers that `layer_types` names or, in older
    files, from `max_window_layers` on."""
    layers = number(raw, "num_hidden_layers")
    window = raw.get("sliding_window", 4096) if raw.get("use_sliding_window", False) else None
    first = raw.get("max_window_layers", 28) if window is not None else layers
    types = raw.get("layer_types") or [FULL if layer < first else SLIDING for layer in range(layers)]
    if not isinstance(types, list) or len(types) != layers:
        raise unsupported("layer_types", short(types, 60), f"It must name the attention of each of {layers} layers.")
    if all(layer_type == FULL for layer_type in types):
        return {}
    if window is None and SLIDING in types:
        raise unsupported("layer_types", SLIDING, "It goes with use_sliding_window=true and a sliding_window.")
    return {"sliding_window": window, "layer_types": tuple(types)}


def read_rotary(raw: Raw, *, usual_head_dim: int | None = None, **ours: Any) -> TransformerConfig:
    require(raw, hidden_act=("silu", "swish"))
    sizes = {key: number(raw, key) for key in _SIZES}
    heads = sizes["num_attention_heads"]
    return TransformerConfig(
        **sizes,
        num_key_value_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim", usual_head_dim) or sizes["hidden_size"] // heads,
        max_position_embeddings=raw.get("max_position_embeddings", 2048),
        normalization="rmsnorm",
        normalization_eps=raw.get("rms_norm_eps", 1e-6),
        positions="rotary",
        rope_theta=_read_rope_theta(raw),
        activation="swiglu",
        tie_word_embeddings=raw.get("tie_word_embeddings", False),
        **ours,
    )


def _read_llama(raw: Raw) -> TransformerConfig:
    bias = raw.get("attention_bias", False)
    if raw.get("mlp_bias", False) != bias:
        raise unsupported("mlp_bias", raw.get("mlp_bias", False), f"It must be as attention_bias, which is {bias}.")
    return read_rotary(raw, bias=bias)


def _read_mistral(raw: Raw) -> TransformerConfig:
    return read_rotary(raw, sliding_window=raw.get("sliding_window", 4096))


def _read_qwen2(raw: Raw) -> TransformerConfig:
    return read_rotary(raw, attention_bias=True, **_read_qwen_windows(raw))


def _read_qwen3(raw: Raw) -> TransformerConfig:
    require(raw, attention_bias=(False,))
    return read_rotary(raw, usual_head_dim=128, qk_norm=True, **_read_qwen_windows(raw))


def write_rotary(config: TransformerConfig) -> Raw:
    return {key: getattr(config, key) for key in _SIZES} | {
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.width_of_head,
        "intermediate_size": config.inner_width,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.normalization_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tie_word_embeddings,
        # transformers 4 and vLLM read the first, transformers 5 the second
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
    }


def _write_llama(config: TransformerConfig) -> Raw:
    return write_rotary(config) | {"attention_bias": config.bias, "mlp_bias": config.bias}


def _write_mistral(config: TransformerConfig) -> Raw:
    return write_rotary(config) | {"sliding_window": config.sliding_window}


def _write_qwen(config: TransformerConfig) -> Raw:
    raw = write_rotary(config) | {"use_sliding_window": False, "sliding_window": None}
    if not any(config.windows):
        return raw
    return raw | {
        "use_sliding_window": True,
        "sliding_window": config.sliding_window,
        "layer_types": config.all_layer_types,
        "max_window_layers": config.all_layer_types.index(SLIDING),
    }


def expresses_rotary(config: CoreConfig, *, biases: tuple[bool, bool], qk_norm: bool, windows: str = "none") -> bool:
    """Whether all but the feed-forward is as in these families.

    `biases`: of all linear layers, of query, key and value. `windows`: in none of the layers, in all, or in any.
    """
    if not isinstance(config, TransformerConfig):
        return False
    if windows != "any" and [window is not None for window in config.windows].count(windows == "none"):
        return False
    return (
        not config.own_code
        and (config.normalization, config.positions, config.activation) == ("rmsnorm", "rotary", "swiglu")
        and config.hidden_size % config.num_attention_heads
        == 0  # which transformers insists on, even where head_dim is given
        and (config.bias, config.query_key_value_bias) == biases
        and config.qk_norm == qk_norm
        and config.logit_softcap is None
        and not config.token_shift
    )


def _is_dense(config: CoreConfig, **options: Any) -> bool:
    return not isinstance(config, MixtureOfExpertsConfig) and expresses_rotary(config, **options)


def attention_tensors(config: TransformerConfig) -> list[Stored]:
    """All but those of feed-forwards."""
    return _rotary_tensors(config, feed_forward=False)


def _rotary_tensors(config: TransformerConfig, *, feed_forward: bool = True) -> list[Stored]:
    modules = {
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
    }
    if feed_forward:
        modules |= {f"feed_forward.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    norms = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
    if config.qk_norm:
        norms |= {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
    stored = [Stored("model.embed_tokens.weight", ("core.embedding.weight",))]
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"core.layers.{layer}.", f"model.layers.{layer}."
        for our, their in (modules | norms).items():
            stored.append(Stored(f"{theirs}{their}.weight", (f"{ours}{our}.weight",)))
        for our, their in modules.items():
            input_bias = our in ("attention.query", "attention.key", "attention.value")
            if config.query_key_value_bias if input_bias else config.bias:
                stored.append(Stored(f"{theirs}{their}.bias", (f"{ours}{our}.bias",)))
    stored.append(Stored("model.norm.weight", ("core.norm.weight",)))
    return stored if config.tie_word_embeddings else [*stored, Stored("lm_head.weight", ("head.weight",))]


LLAMA = ModelFamily(
    "LlamaForCausalLM",
    "llama",
    expresses=lambda config: any(_is_dense(config, biases=(bias, bias), qk_norm=False) for bias in (False, True)),
    read=_read_llama,
    write=_write_llama,
    tensors=_rotary_tensors,
    prefix="model.",
    ignored=("rotary_emb.inv_freq",),
)
MISTRAL = ModelFamily(
    "MistralForCausalLM",
    "mistral",
    expresses=lambda config: _is_dense(config, biases=(False, False), qk_norm=False, windows="all"),
    read=_read_mistral,
    write=_write_mistral,
    tensors=_rotary_tensors,
    prefix="model.",
)
QWEN2 = ModelFamily(
    "Qwen2ForCausalLM",
    "qwen2",
    expresses=lambda config: _is_dense(config, biases=(False, True), qk_norm=False, windows="any"),
    read=_read_qwen2,
    write=_write_qwen,
    tensors=_rotary_tensors,
    prefix="model.",
)
QWEN3 = ModelFamily(
    "Qwen3ForCausalLM",
    "qwen3",
    expresses=lambda config: _is_dense(config, biases=(False, False), qk_norm=True, windows="any"),
    read=_read_qwen3,
    write=_write_qwen,
    tensors=_rotary_tensors,
    prefix="model.",
)
