"""Activations computed again in the backward pass instead of being kept (Chen et al. 2016, "Training Deep Nets with
Sublinear Memory Cost"), a block at a time.

    none        everything that the backward pass needs is kept
    block       of each block its input alone; its forward pass is run a second time
    selective   besides, the results of matrix products and of attention: what is computed again is cheap, norms,
                activations and rotations (Korthikanti et al. 2022, section 5)

Numbers are the same bits: the second pass is the same operations on the same values, dropout included. What was kept is
freed and the pass stops as soon as the backward pass has all it needs.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from maquette.model.config import ACTIVATION_CHECKPOINTING

_PRODUCTS = frozenset(("mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "linear", "_linear_pointwise", "onednn_product"))


def checkpoint_blocks(blocks: Iterable[nn.Module], kind: str) -> int:
    """Lets every block's forward pass be computed again as `kind` says, in place; returns how many there are.

    It acts where gradients are taken: generation and validation run as before."""
    assert kind in ACTIVATION_CHECKPOINTING
    blocks = list(blocks)
    for block in blocks:
        plain = getattr(block.forward, "plain", block.forward)  # of a module that is trained twice
        block.forward = plain if kind == "none" else _Recomputed(plain, kind)
    return len(blocks)


class _Recomputed:
    """A block's `forward` that keeps less."""

    def __init__(self, plain: Callable[..., Any], kind: str) -> None:
        self.plain = plain
        self.options: dict[str, Any] = {"use_reentrant": False}
        if kind == "selective":
            self.options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.plain(*arguments, **named)
        return checkpoint(self.plain, *arguments, **self.options, **named)


def _policy(context: Any, operation: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    """Whether what an operation gives is kept."""
    name = str(operation).split(".")[1] if "." in str(operation) else str(operation)
    saved = name in _PRODUCTS or "attention" in name or "attn" in name
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE
