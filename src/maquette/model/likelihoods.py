"""How likely the next tokens are: cross-entropy and per-token log-probabilities, with or without `(B, T, V)` logits.

Where a batch's logits are many, they are computed, used and forgotten in chunks of rows. The gradient of a mean
cross-entropy needs nothing from later layers but one factor, so it is taken in the same pass, in place of the logits:
one softmax over memory that stays in the cache, instead of some eight trips of all logits to memory and back. Where a
loss makes something else of each token's log-probability (DPO, PPO), a chunk's logits are computed again in the
backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from maquette.artifacts.errors import StageError
from maquette.model.linear import linear, matmul, uses_onednn, weight_gradient
from maquette.model.tensor_parallel import cut_statistics, enter, group_of, own, own_logits, whole_logits

# Logits at once by default. On a CPU four megabytes of them stay in its cache. An accelerator wants large products and
# has the memory; each chunk also reads and writes the whole gradient of the head, so there are few.
CPU_LOGITS, ACCELERATOR_BYTES = 2**20, 2**30

# Where logits are computed again for the backward pass, every chunk adds a whole gradient of the head: fewer chunks.
CPU_LOGITS_TWICE = 2**24


def require_finite(values: Tensor, what: str = "logits") -> Tensor:
    """`values`, of a model's output. Raises `StageError` where one is NaN or infinite: an argmax over such takes the
    first place, and a mean of such hides which model it was."""
    if not torch.isfinite(values).all():
        raise StageError(
            f"The model gives {what} that are NaN or infinite: its weights are broken, or its training diverged.",
            "Use an earlier checkpoint, or train again with a lower optimizer.lr.",
        )
    return values


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each token: `logits (B, S, V)`, `tokens (B, S)` int64 -> `(B, S)`, in float32 at least."""
    return -F.cross_entropy(_at_least_float32(logits).flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)


def in_chunks(
    statistics: Callable[..., tuple[Tensor, ...]], vocab_size: int, *columns: Tensor, logits_limit: int | None = None
) -> tuple[Tensor, ...]:
    """`statistics(*columns)`, taken of so many rows at a time that there are at most `logits_limit` logits at once.

    `columns (N, ...)`, hidden states among them -> tensors `(N,)`. `statistics` makes logits `(n, vocab_size)` of n
    rows and tells of each row what is left of them; with gradients it is called again in the backward pass, and no
    chunk's logits are kept.
    """
    rows = len(columns[0])
    limit = logits_limit or _logits_at_once(columns[0], CPU_LOGITS_TWICE)
    if rows * vocab_size <= limit:
        return statistics(*columns)
    each = max(1, limit // vocab_size)
    parts = []
    for start in range(0, rows, each):
        part = [column[start : start + each] for column in columns]
        if torch.is_grad_enabled():
            parts.append(checkpoint(statistics, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(statistics(*part))
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def token_statistics(
    hidden: Tensor,
    head_weight: Tensor,
    tokens: Tensor,
    *,
    logit_softcap: float | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    logits_limit: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Each token's log-probability, and the entropy of the distribution it is from where that is asked for: `(N,)`.

    `hidden (N, D)` before each of `tokens (N,)`, `head_weight (V, D)`; the distribution is that of sampling at
    `temperature`. In float32 at least, and with gradients, in chunks of at most `logits_limit` logits.
    """

    if group_of(head_weight) is not None:
        chosen, _, spread = _of_cut_head(hidden, head_weight, tokens, logit_softcap, logits_limit, temperature, entropy)
        return chosen, spread if entropy else None

    def statistics(hidden: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        logits = _at_least_float32(capped_logits(hidden, head_weight, logit_softcap))
        if temperature != 1.0:
            logits = logits / temperature
        log_probs = logits.log_softmax(dim=-1)
        chosen = log_probs.gather(1, tokens[:, None])[:, 0]
        return (chosen, -(log_probs.exp() * log_probs).sum(dim=-1)) if entropy else (chosen,)

    result = in_chunks(statistics, head_weight.size(0), hidden, tokens, logits_limit=logits_limit)
    return result[0], result[1] if entropy else None


def _of_cut_head(
    hidden: Tensor,
    head_weight: Tensor,
    tokens: Tensor,
    softcap: float | None,
    logits_limit: int | None,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[Tensor, ...]:
    """`cut_statistics` of `hidden (N, D)`, in chunks, where each process has a part of the head."""

    def statistics(hidden: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        logits = own_logits(hidden, head_weight, softcap) / temperature
        return cut_statistics(logits, head_weight, tokens, entropy=entropy)

    rows = own(head_weight).size(0)
    return in_chunks(statistics, rows, enter(hidden, head_weight), tokens, logits_limit=logits_limit)


def capped_logits(hidden: Tensor, head_weight: Tensor, softcap: float | None) -> Tensor:
    """`hidden (..., D)`, `head_weight (V, D)` -> `(..., V)`, soft-capped by tanh (Gemma 2, section 2)."""
    if group_of(head_weight) is not None:
        return whole_logits(hidden, head_weight, softcap)
    logits = F.linear(hidden, head_weight)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def next_token_loss(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    logit_softcap: float | None = None,
    z_loss: float = 0.0,
    logits_limit: int | None = None,
    divisor: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the next tokens, in nats, and each token's own.

    `hidden (B, S, D)`, `head_weight (V, D)`, `targets (B, S)` int64, `mask (B, S)` true where a token counts ->
    the scalar to minimise, and the cross-entropies `(B, S)`, detached and without the z-loss. The mean is over the
    tokens that count, or the sum divided by `divisor` (for batches that come in parts). `z_loss` weighs the squared
    log-normaliser (Chowdhery et al. 2022, section 5); `logit_softcap` squashes logits by tanh (Gemma 2, section 2).
    More than `logits_limit` logits are computed in chunks of at most so many.
    """
    if divisor is None:
        divisor = targets.numel() if mask is None else mask.sum().clamp(min=1)
    if group_of(head_weight) is not None:
        log_probs, normalizer, _ = _of_cut_head(
            hidden.flatten(0, -2), head_weight, targets.flatten(), logit_softcap, logits_limit
        )
        losses = z_loss * normalizer.square() - log_probs if z_loss else -log_probs
        total = losses.sum() if mask is None else (losses * mask.flatten()).sum()
        return total / divisor, -log_probs.detach().view_as(targets)
    limit = logits_limit or _logits_at_once(hidden, CPU_LOGITS)
    rows, vocabulary = targets.numel(), head_weight.size(0)
    if rows * vocabulary <= limit:
        logits = _at_least_float32(linear(hidden, head_weight))
        if logit_softcap is not None:
            logits = logit_softcap * torch.tanh(logits / logit_softcap)
        cross_entropy = -token_log_probs(logits, targets)
        losses = cross_entropy + z_loss * logits.logsumexp(-1).square() if z_loss else cross_entropy
        total = losses.sum() if mask is None else (losses * mask).sum()
        return total / divisor, cross_entropy.detach()
    total, cross_entropy = ChunkedCrossEntropy.apply(
        hidden.flatten(0, -2),
        head_weight,
        targets.flatten(),
        None if mask is None else mask.flatten(),
        logit_softcap,
        z_loss,
        max(1, limit // vocabulary),
        torch.is_grad_enabled(),
    )
    return total / divisor, cross_entropy.view_as(targets)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of `hidden (N, D)` against `targets (N,)` over `mask`, `rows` at a time; and each.

    With p the softmax of a row's logits and L their log-normaliser, the gradient of `cross-entropy + z L^2` is
    `(1 + 2 z L) p - onehot(target)`; through the soft-cap it is multiplied by `1 - (logits / cap)^2`. Products are
    taken in autocast's precision where that is on, the softmax and the sum of the head's gradient in float32.

    PyTorch's `linear_cross_entropy`, which has neither cap nor z-loss, gives the same numbers (tests). In bfloat16 on a
    GPU it sums the head's gradient over the chunks in that precision, unless asked otherwise, and it gives each token's
    cross-entropy only at the price of all logits a second time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        targets: Tensor,
        mask: Tensor | None,
        softcap: float | None,
        z_loss: float,
        rows: int,
        with_gradients: bool,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        exact = torch.promote_types(hidden.dtype, torch.float32)
        inputs, matrix = hidden.to(precision), head_weight.to(precision)
        mask = None if mask is None else mask.to(precision)
        cross_entropy = torch.empty(targets.shape, dtype=exact, device=hidden.device)
        log_normalizer = torch.empty_like(cross_entropy)
        for_hidden, for_weight = (with_gradients and needed for needed in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(inputs) if for_hidden else None
        grad_weight = torch.zeros_like(matrix, dtype=exact) if for_weight else None
        reused = torch.empty(min(rows, len(targets)), matrix.size(0), dtype=precision, device=hidden.device)
        # oneDNN wants both factors with their inner dimension in a row.
        through_onednn = uses_onednn(inputs)
        transposed = matrix.t().contiguous() if through_onednn and for_hidden else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), rows):
                part = slice(start, start + rows)
                if through_onednn:
                    logits = matmul(inputs[part], matrix)
                else:
                    logits = torch.mm(inputs[part], matrix.t(), out=reused[: len(targets[part])]).to(exact)
                slope = None
                if softcap is not None:
                    squashed = logits.div_(softcap).tanh_()
                    slope = 1 - squashed.square()
                    logits = squashed.mul_(softcap)
                wanted = targets[part, None]
                target_logits, largest = logits.gather(1, wanted), logits.amax(1, keepdim=True)
                probabilities = torch.softmax(logits, 1, out=logits)
                # The likeliest token's probability gives the normaliser without another exponential of all logits.
                normalizer = largest - probabilities.amax(1, keepdim=True).log()
                cross_entropy[part], log_normalizer[part] = (normalizer - target_logits)[:, 0], normalizer[:, 0]
                if not (for_hidden or for_weight):
                    continue
                gradient = probabilities.mul_(1 + 2 * z_loss * normalizer) if z_loss else probabilities
                gradient.scatter_add_(1, wanted, gradient.new_full((1, 1), -1.0).expand_as(wanted))
                if slope is not None:
                    gradient.mul_(slope)
                # The mask goes to the narrow factors: `gradient` is V wide.
                gradient = gradient.to(precision)
                if grad_hidden is not None:
                    if transposed is not None:
                        grad_hidden[part] = matmul(gradient, transposed)
                    else:
                        torch.mm(gradient, matrix, out=grad_hidden[part])
                if grad_weight is not None:
                    counted = inputs[part] if mask is None else inputs[part] * mask[part, None]
                    if through_onednn:
                        grad_weight += weight_gradient(gradient, counted)
                    elif exact == precision:
                        torch.addmm(grad_weight, gradient.t(), counted, out=grad_weight)
                    else:
                        grad_weight += torch.mm(gradient.t(), counted)
        losses = cross_entropy + z_loss * log_normalizer.square() if z_loss else cross_entropy
        total = losses.sum() if mask is None else (losses * mask).sum()
        if grad_hidden is not None:
            grad_hidden = (
                grad_hidden.to(hidden.dtype) if mask is None else (grad_hidden * mask[:, None]).to(hidden.dtype)
            )
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(head_weight.dtype))
        ctx.mark_non_differentiable(cross_entropy)
        return total, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = [None if grad is None else grad * grad_total for grad in ctx.saved_tensors]
        return *grads, None, None, None, None, None, None


def _logits_at_once(values: Tensor, on_a_cpu: int) -> int:
    """Of the hidden states `values`, where nothing else is asked for."""
    if values.device.type == "cpu":
        return on_a_cpu
    return ACCELERATOR_BYTES // torch.promote_types(values.dtype, torch.float32).itemsize


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
