"""Means over the tokens that count.

What stands outside a mask is never read: garbage there, infinite or not a number, changes no value.
"""

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of `values` where `mask` (bool, of the same shape) is true: over everything, or along `dim`."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` (bool, of the same shape) is true: a scalar; 0 for a mask without a true place."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance of `values` over `mask`: a scalar; 0 where fewer than two places count."""
    deviations = values - masked_mean(values, mask)
    return masked_sum(deviations.square(), mask) / (mask.sum() - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values scaled to unit variance over a mask, and shifted to a mean of zero unless told otherwise.

    `values (B, S)`, `mask (B, S)` bool -> `(B, S)`, zero outside the mask. The variance is unbiased and 1e-8 is added
    to it, as in Ziegler et al. 2019's code and in TRL. Padding has no part in mean and variance (where it has, as in
    AlpacaFarm's code, the result depends on how a batch is padded).
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return torch.where(mask, whitened if shift_mean else whitened + mean, torch.zeros_like(values))
