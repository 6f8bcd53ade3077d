"""Parameters and FLOPs of modules that have no formula: built on the meta device, where they take no memory, and run
once under PyTorch's `FlopCounterMode`."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maquette.artifacts import ConfigError, MaquetteError
from maquette.artifacts.targets import place_of


@dataclass(frozen=True)
class CountedFlops:
    """Of one forward pass: products with matrices of weights, and products of activations with one another."""

    weights: int
    activations: int


def count_flops(run: Callable[[], Any], called: str) -> CountedFlops:
    """The FLOPs of `run`, which calls modules on the meta device.

    Products of two activations are told by their operator: batched ones, and fused attention. Raises `ConfigError`
    where nothing was counted, as of an operator of one's own.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    by_operator = counter.get_flop_counts().get("Global", {})
    weights = sum(flops for operator, flops in by_operator.items() if str(operator) in _OF_WEIGHTS)
    total = sum(by_operator.values())
    if not total:
        raise ConfigError(
            f"{called} does no operation that PyTorch counts, so its FLOPs are not known.",
            "Give it a method `flops(self, sequence_length) -> int`: those of one forward pass over one sequence.",
        )
    return CountedFlops(int(weights), int(total - weights))


_OF_WEIGHTS = frozenset(("aten.mm", "aten.addmm", "aten.convolution", "aten._convolution"))


@contextmanager
def on_meta(called: str) -> Iterator[None]:
    """Around building and running a user's module without memory; an error in it names it, its file and line."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            yield
    except MaquetteError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{called} failed{place_of(error)}: {type(error).__name__}: {error}",
            "It was made on PyTorch's meta device, where tensors have shapes and no values, to count it.",
        ) from error


def parameters_in(module: nn.Module) -> int:
    """Parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def meta_tokens(length: int) -> Tensor:
    """One sequence of `length` tokens without values."""
    return torch.zeros(1, length, dtype=torch.int64, device="meta")


cached = functools.lru_cache(maxsize=4096)
