"""How a step's batch is shared out: among the processes, and into forward passes of each. For every objective."""

import torch

from maquette.artifacts import ConfigError
from maquette.model.core_config import CoreConfig
from maquette.training.devices import Hardware

_CPU_BYTES = 2 * 2**30
"""Memory for activations on a processor."""

_GPU_SHARE = 0.5
"""Share of a GPU's memory for activations; the rest is for weights, gradients, optimiser and what falls between."""


def share_of(batch: int, processes: int, what: str, key: str, *, whole: int = 1, unit: int = 1) -> int:
    """One process's part of a `batch`, in groups of `whole`. `what` is shared, and `key` sets it in `unit`s.

    Raises `ConfigError` where the batch can't be shared so."""
    share, rest = divmod(batch, processes)
    if rest or not share or share % whole:
        groups = f" in groups of {whole}" if whole > 1 else ""
        raise ConfigError(
            f"{what} can't be shared by {processes} processes{groups}.",
            f"Set {key} to a multiple of {processes * whole * unit:,}.",
        )
    return share


def forward_passes(
    share: int, what: str, *, micro_batch_size: int | None, accumulate: int | None, whole: int = 1
) -> int | None:
    """Forward passes of a process over its `share` of a step: as `data.micro_batch_size` or
    `trainer.accumulate_grad_batches` (`accumulate`) says; None where neither does.

    Raises `ConfigError` where they differ, or do not divide the share into groups of `whole`.
    """
    if micro_batch_size is not None:
        if share % micro_batch_size or micro_batch_size % whole:
            raise ConfigError(
                f"data.micro_batch_size={micro_batch_size} does not divide the {share} {what}.",
                f"Allowed: {', '.join(str(size) for size in _sizes(share, whole))}.",
            )
        if accumulate not in (None, share // micro_batch_size):
            raise ConfigError(
                f"trainer.accumulate_grad_batches={accumulate}, and data.micro_batch_size={micro_batch_size} means "
                f"{share // micro_batch_size}.",
                "Leave one of them out.",
            )
        return share // micro_batch_size
    if accumulate is not None and (share % accumulate or share // accumulate % whole):
        raise ConfigError(
            f"trainer.accumulate_grad_batches={accumulate} does not divide the {share} {what}.",
            "Leave it out: data.micro_batch_size, or what fits, says how a batch is split.",
        )
    return accumulate


def choose_micro_batch(
    architecture: CoreConfig,
    *,
    batch_sequences: int,
    context: int,
    whole: int,
    micro_batch_size: int | None,
    hardware: Hardware,
    accumulate: int | None = None,
) -> int:
    """Sequences of `context` tokens in one forward pass of one process: as the settings say, or the most that fits. It
    is a multiple of `whole` (contexts that a phase reads as one) and divides the process's share of the batch.

    Raises `ConfigError` where the batch can't be shared so.
    """
    share = share_of(
        batch_sequences, hardware.data_parts, f"A step of {batch_sequences} sequences", "data.batch_size_tokens",
        whole=whole, unit=context,
    )  # fmt: skip
    passes = forward_passes(
        share, "sequences of a process's step", micro_batch_size=micro_batch_size, accumulate=accumulate, whole=whole
    )
    if passes is not None:
        return share // passes
    rows = rows_that_fit(architecture.numbers_per_token + architecture.vocab_size, context, hardware)
    most = max(whole, min(rows, share // hardware.min_passes))
    return max(size for size in _sizes(share, whole) if size <= most)


def rows_that_fit(numbers_per_token: int, tokens: int, hardware: Hardware) -> int:
    """Rows of `tokens` tokens that a process has memory for, where a token keeps so many numbers for the backward pass:
    the core's, and its logits where they are kept. 1 at least."""
    element = torch.finfo(hardware.compute_dtype).bits // 8
    if hardware.accelerator == "cuda":
        budget = _GPU_SHARE * torch.cuda.get_device_properties(hardware.device).total_memory
    else:
        budget = float(_CPU_BYTES)
    return max(1, int(budget / (element * numbers_per_token * tokens)))


def passes_that_fit(share: int, rows: int) -> int:
    """The fewest forward passes that a `share` can be split into evenly, of at most `rows` each."""
    return next(passes for passes in range(1, share + 1) if share % passes == 0 and share // passes <= rows)


def _sizes(share: int, whole: int) -> list[int]:
    """Of micro-batches that divide a share and consist of groups of `whole`."""
    return [size for size in range(whole, share + 1, whole) if share % size == 0]
