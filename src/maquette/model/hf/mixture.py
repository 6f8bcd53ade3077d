"""Mixtral and Qwen3-MoE: the Llama, and the Qwen3, with a mixture of experts in place of every feed-forward.

Their files keep each expert's matrices apart, where ours are a stack. OLMoE is not among them: it normalises queries
and keys over all heads at once, which our core does not.
"""

import dataclasses
from typing import Any

from maquette.model.architecture import MixtureOfExpertsConfig
from maquette.model.core_config import CoreConfig
from maquette.model.hf.family import ModelFamily, Raw, Stored, number, require
from maquette.model.hf.rotary import (
    attention_tensors,
    expresses_rotary,
    read_rotary,
    write_rotary,
)

_Z_LOSS = "router_z_loss_coef"
"""Of training, which theirs have not; `transformers` passes it over."""


def _read(raw: Raw, *, inner: str, normalized: bool, **ours: Any) -> MixtureOfExpertsConfig:
    require(raw, attention_bias=(False,), output_router_logits=(False, True))
    dense = read_rotary(raw, **ours)
    return MixtureOfExpertsConfig(
        **dataclasses.asdict(dense) | {"intermediate_size": number(raw, inner)},
        num_experts=raw.get("num_local_experts") or number(raw, "num_experts"),
        num_experts_per_tok=number(raw, "num_experts_per_tok"),
        norm_topk_prob=normalized,
        router_aux_loss_coef=raw.get("router_aux_loss_coef", 0.001),
        router_z_loss_coef=raw.get(_Z_LOSS, 0.0),
    )


def _read_mixtral(raw: Raw) -> MixtureOfExpertsConfig:
    require(raw, router_jitter_noise=(0.0, None))
    window = raw.get("sliding_window")
    return _read(raw, inner="intermediate_size", normalized=True, sliding_window=window)


def _read_qwen3(raw: Raw) -> MixtureOfExpertsConfig:
    require(raw, decoder_sparse_step=(1,), mlp_only_layers=([], None), use_sliding_window=(False,))
    normalized = bool(raw.get("norm_topk_prob", False))
    return _read(raw, inner="moe_intermediate_size", normalized=normalized, usual_head_dim=128, qk_norm=True)


def _write(config: MixtureOfExpertsConfig) -> Raw:
    return write_rotary(config) | {
        "num_experts_per_tok": config.num_experts_per_tok,
        "router_aux_loss_coef": config.router_aux_loss_coef,
        _Z_LOSS: config.router_z_loss_coef,
        "output_router_logits": False,
        "sliding_window": None,
    }


def _write_mixtral(config: MixtureOfExpertsConfig) -> Raw:
    return _write(config) | {
        "num_local_experts": config.num_experts,
        "router_jitter_noise": 0.0,
        "sliding_window": config.sliding_window,
    }


def _write_qwen3(config: MixtureOfExpertsConfig) -> Raw:
    return _write(config) | {
        "num_experts": config.num_experts,
        "moe_intermediate_size": config.inner_width,
        "norm_topk_prob": config.norm_topk_prob,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "attention_bias": False,
        "use_sliding_window": False,
    }


def _expresses(config: CoreConfig, *, qk_norm: bool) -> bool:
    windows = ("none",) if qk_norm else ("none", "all")
    return (
        isinstance(config, MixtureOfExpertsConfig)
        and any(expresses_rotary(config, biases=(False, False), qk_norm=qk_norm, windows=one) for one in windows)
        and config.n_shared_experts == 0
        and config.router_bias_update_rate == 0
        and (qk_norm or config.norm_topk_prob)
    )


def _tensors(config: MixtureOfExpertsConfig, block: str, names: dict[str, str]) -> list[Stored]:
    stored = attention_tensors(config)
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"core.layers.{layer}.feed_forward.", f"model.layers.{layer}.{block}."
        stored.append(Stored(f"{theirs}gate.weight", (f"{ours}router.weight",)))
        stored += [
            Stored(f"{theirs}experts.{expert}.{name}.weight", (f"{ours}{our}.weight",), expert=expert)
            for our, name in names.items()
            for expert in range(config.num_experts)
        ]
    return stored


MIXTRAL = ModelFamily(
    "MixtralForCausalLM",
    "mixtral",
    expresses=lambda config: _expresses(config, qk_norm=False),
    read=_read_mixtral,
    write=_write_mixtral,
    tensors=lambda config: _tensors(config, "block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}),
    prefix="model.",
)
QWEN3_MOE = ModelFamily(
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    expresses=lambda config: _expresses(config, qk_norm=True),
    read=_read_qwen3,
    write=_write_qwen3,
    tensors=lambda config: _tensors(config, "mlp", {name: f"{name}_proj" for name in ("gate", "up", "down")}),
    prefix="model.",
)
