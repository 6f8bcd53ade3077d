"""Which experts a token goes through, and what keeps their loads even. Pure functions of a router's logits.

    p = softmax(x W_r)                 over E experts (Shazeer et al. 2017; Fedus et al. 2022, equation 1)
    chosen = the k largest of p + b    b: a bias that acts on the choice alone, where there is one
    y = sum over chosen of p_i E_i(x)  with p_i divided by their sum where `norm_topk_prob` says so

Letters in shapes: `N` tokens, `E` experts, `k` of them for each token, `L` layers.
"""

import math

import torch
from torch import Tensor


def route(logits: Tensor, top_k: int, *, normalize: bool, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`logits (N, E)`, in float32 at least -> weights `(N, k)` and the experts they belong to, `(N, k)` int64.

    `normalize`: each token's weights are divided by their sum. `bias (E,)` moves the choice and not the weights
    (DeepSeek-AI 2024, DeepSeek-V3, equation 16).
    """
    probabilities = logits.softmax(dim=-1)
    if bias is None:
        weights, chosen = probabilities.topk(top_k, dim=-1)
    else:
        chosen = (probabilities + bias).topk(top_k, dim=-1).indices
        weights = probabilities.gather(-1, chosen)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, chosen


def expert_counts(chosen: Tensor, num_experts: int) -> Tensor:
    """How many tokens go through each expert: `chosen (N, k)` -> `(E,)` int64."""
    flat = chosen.flatten()
    return torch.zeros(num_experts, dtype=torch.int64, device=flat.device).scatter_add_(0, flat, torch.ones_like(flat))


def load_balancing_loss(logits: Tensor, counts: Tensor, top_k: int) -> Tensor:
    """E times the sum over experts of f_i P_i (Fedus et al. 2022, Switch Transformers, equations 4 to 6), a scalar.

    P_i: mean probability that the router gives expert i over `logits (N, E)`; f_i: share of tokens that go through it,
    from `counts (E,)`. With k experts a token the f_i sum to k, as in `transformers`, and even loads give k. No
    gradient goes through f, so counts may be those of more tokens than are here, such as of all processes: the mean of
    the processes' losses is then the loss of the global batch (Qiu et al. 2025, "Demons in the detail").
    """
    shares = counts * (top_k / counts.sum())
    return logits.size(-1) * (shares * logits.softmax(dim=-1).mean(dim=0)).sum()


def router_z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-normaliser of `logits (N, E)` (Zoph et al. 2022, ST-MoE, equation 5): keeps logits small."""
    return logits.logsumexp(dim=-1).square().mean()


def balanced_bias(bias: Tensor, counts: Tensor, update_rate: float) -> Tensor:
    """The bias of the next step: up by `update_rate` for experts with less than the mean load, down for the others.

    `bias`, `counts` `(..., E)`. No gradient, and no loss that pulls at the weights (Wang et al. 2024,
    "Auxiliary-loss-free load balancing strategy for mixture-of-experts", algorithm 1).
    """
    load = counts.to(bias.dtype)
    return bias + update_rate * (load.mean(dim=-1, keepdim=True) - load).sign()


def load_figures(counts: Tensor) -> dict[str, Tensor]:
    """How evenly a step's tokens spread, from `counts (L, E)`, by the names of the curves.

    Of each layer: `entropy` of the shares over log E (1: even, 0: all through one), `largest_over_mean` (1: even, E:
    all through one), and each expert's `share`.
    """
    shares = counts / counts.sum(dim=-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(dim=-1) / math.log(max(2, shares.size(-1)))
    largest = shares.amax(dim=-1) * shares.size(-1)
    figures = {"experts/entropy": entropy.mean(), "experts/largest_over_mean": largest.max()}
    for layer in range(len(shares)):
        figures[f"experts/layer_{layer}/entropy"] = entropy[layer]
        figures[f"experts/layer_{layer}/largest_over_mean"] = largest[layer]
        figures |= {f"experts/layer_{layer}/share_{expert}": share for expert, share in enumerate(shares[layer])}
    return figures
