"""The transformer once more, written as its papers say it: one sequence, one head, one position at a time, in float64.

Slow and plain on purpose, so that it can be checked by reading; `test_transformer.py` holds the core to it.
"""

import math

import torch
from torch import Tensor

from maquette.model import LanguageModel, MixtureOfExpertsConfig, TransformerConfig


def reference_logits(
    model: LanguageModel, tokens: list[int], positions: list[int] | None = None, segments: list[int] | None = None
) -> Tensor:
    """Logits `(T, V)` of one sequence."""
    config = model.config
    assert isinstance(config, TransformerConfig)
    state = {name: value.detach().double() for name, value in model.state_dict().items()}
    positions = positions or list(range(len(tokens)))
    segments = segments or [0] * len(tokens)

    def linear(name: str, x: Tensor) -> Tensor:
        bias = state.get(f"{name}.bias")
        return state[f"{name}.weight"] @ x + (0 if bias is None else bias)

    stream = []
    for t, token in enumerate(tokens):
        x = state["core.embedding.weight"][token].clone()
        if config.token_shift and t > 0 and segments[t] == segments[t - 1]:
            x += state["core.token_shift"] * state["core.embedding.weight"][tokens[t - 1]]
        if config.positions == "learned":
            x += state["core.positions.weight"][positions[t]]
        stream.append(x)

    for index in range(config.num_hidden_layers):
        layer = f"core.layers.{index}"
        queries, keys, values = [], [], []
        for t, x in enumerate(stream):
            normed = norm(config, state, f"{layer}.attention_norm", x)
            parts = []
            for name in ("query", "key", "value"):
                heads = linear(f"{layer}.attention.{name}", normed).view(-1, config.width_of_head)
                if name != "value":
                    if config.qk_norm:
                        weight = state[f"{layer}.attention.{name}_norm.weight"]
                        heads = torch.stack([root_mean_square(head, weight, config) for head in heads])
                    if config.positions == "rotary":
                        heads = torch.stack([turned(head, positions[t], config.rope_theta) for head in heads])
                parts.append(heads)
            for target, part in zip((queries, keys, values), parts, strict=True):
                target.append(part)
        for t in range(len(tokens)):
            gathered = []
            for head in range(config.num_attention_heads):
                shared = head * config.key_value_heads // config.num_attention_heads
                window = config.windows[index] or len(tokens)
                seen = [s for s in range(max(0, t - window + 1), t + 1) if segments[s] == segments[t]]
                scores = torch.stack([queries[t][head] @ keys[s][shared] for s in seen]) / math.sqrt(
                    config.width_of_head
                )
                shares = torch.exp(scores - scores.max()) / torch.exp(scores - scores.max()).sum()
                gathered.append(sum(share * values[s][shared] for share, s in zip(shares, seen, strict=True)))
            stream[t] = stream[t] + linear(f"{layer}.attention.output", torch.cat(gathered))
            normed = norm(config, state, f"{layer}.feed_forward_norm", stream[t])
            if isinstance(config, MixtureOfExpertsConfig):
                stream[t] = stream[t] + mixture(config, state, f"{layer}.feed_forward", normed)
                continue
            inner = linear(f"{layer}.feed_forward.up", normed)
            if config.activation == "swiglu":
                gate = linear(f"{layer}.feed_forward.gate", normed)
                inner = gate / (1 + torch.exp(-gate)) * inner
            elif config.activation == "gelu":
                inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
            else:
                inner = torch.where(inner > 0, inner, 0.0) ** 2
            stream[t] = stream[t] + linear(f"{layer}.feed_forward.down", inner)

    head = state["core.embedding.weight" if config.tie_word_embeddings else "head.weight"]
    logits = torch.stack([head @ norm(config, state, "core.norm", x) for x in stream])
    return logits if config.logit_softcap is None else config.logit_softcap * torch.tanh(logits / config.logit_softcap)


def mixture(config: MixtureOfExpertsConfig, state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    scores = state[f"{name}.router.weight"] @ x
    shares = torch.exp(scores) / torch.exp(scores).sum()
    bias = state.get(f"{name}.router_bias", torch.zeros_like(shares))
    best = sorted(range(config.num_experts), key=lambda expert: -(shares[expert] + bias[expert]).item())
    chosen = best[: config.num_experts_per_tok]
    whole = sum(shares[expert] for expert in chosen) if config.norm_topk_prob else 1.0
    result = torch.zeros_like(x)
    for expert in chosen:
        matrices = [state[f"{name}.{part}.weight"][expert] for part in ("gate", "up", "down")]
        result += shares[expert] / whole * swiglu(*matrices, x)
    if config.n_shared_experts:
        result += swiglu(*(state[f"{name}.shared.{part}.weight"] for part in ("gate", "up", "down")), x)
    return result


def swiglu(gate: Tensor, up: Tensor, down: Tensor, x: Tensor) -> Tensor:
    opened = gate @ x
    return down @ (opened / (1 + torch.exp(-opened)) * (up @ x))


def norm(config: TransformerConfig, state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    if config.normalization == "rmsnorm":
        return root_mean_square(x, weight, config)
    centred = x - x.mean()
    normed = centred / torch.sqrt((centred**2).mean() + config.normalization_eps) * weight
    return normed if bias is None else normed + bias


def root_mean_square(x: Tensor, weight: Tensor, config: TransformerConfig) -> Tensor:
    return x / torch.sqrt((x**2).mean() + config.normalization_eps) * weight


def turned(head: Tensor, position: int, base: float) -> Tensor:
    """Pairs (i, i + W/2) turned by position * base^(-2i/W)."""
    half = len(head) // 2
    result = head.clone()
    for i in range(half):
        angle = position * base ** (-2 * i / len(head))
        result[i] = head[i] * math.cos(angle) - head[i + half] * math.sin(angle)
        result[i + half] = head[i + half] * math.cos(angle) + head[i] * math.sin(angle)
    return result
