"""How much of a batch goes through the model at once: what fits, in parts that are alike."""

import torch

from maquette.artifacts import ConfigError
from maquette.model.core_config import CoreConfig
from maquette.training.devices import Hardware
from maquette.training.job import Job

_CPU_BYTES = 2 * 2**30
"""Memory for activations on a processor."""

_GPU_SHARE = 0.5
"""Share of a GPU's memory for activations; the rest is for weights, gradients, optimiser and what falls between."""


def activation_bytes(architecture: CoreConfig, element: int) -> int:
    """Roughly what one token keeps for the backward pass, at `element` bytes a number: in the core, and at the end the
    logits' share."""
    return element * (architecture.numbers_per_token + architecture.vocab_size)


def choose_micro_batch(
    architecture: CoreConfig,
    *,
    batch_sequences: int,
    context: int,
    whole: int,
    micro_batch_size: int | None,
    hardware: Hardware,
) -> int:
    """Sequences of `context` tokens in one forward pass of one process: `micro_batch_size`, or the most that fits. It
    is a multiple of `whole` (contexts that a phase reads as one) and divides the process's share of the batch.

    Raises `ConfigError` where the batch can't be shared so.
    """
    share, rest = divmod(batch_sequences, hardware.world_size)
    if rest or share % whole:
        raise ConfigError(
            f"A step of {batch_sequences} sequences can't be shared by {hardware.world_size} processes.",
            f"Set data.batch_size_tokens to a multiple of {hardware.world_size * whole * context:,}.",
        )
    if micro_batch_size is not None:
        if share % micro_batch_size or micro_batch_size % whole:
            raise ConfigError(
                f"data.micro_batch_size={micro_batch_size} does not divide the {share} sequences of a process's step.",
                f"Allowed: {', '.join(str(n) for n in range(whole, share + 1, whole) if share % n == 0)}.",
            )
        return micro_batch_size
    element = torch.finfo(hardware.compute_dtype).bits // 8
    if hardware.accelerator == "cuda":
        budget = _GPU_SHARE * torch.cuda.get_device_properties(hardware.device).total_memory
    else:
        budget = float(_CPU_BYTES)
    most = max(whole, int(budget / (activation_bytes(architecture, element) * context)))
    return max(n for n in range(whole, share + 1, whole) if share % n == 0 and n <= most)


def micro_batch_of(micro_batch_size: int | None, batch: int, job: Job) -> int | None:
    """Sequences (or examples) of a forward pass where `trainer.accumulate_grad_batches` says how many of them a step
    has. Raises `ConfigError` where they do not divide, or both are given and differ."""
    accumulate = job.trainer.accumulate_grad_batches
    if accumulate is None:
        return micro_batch_size
    share, rest = divmod(batch, job.hardware.world_size * accumulate)
    if rest or not share:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={accumulate} does not divide a step's batch of {batch}.",
            "Leave it out: data.micro_batch_size, or what fits, says how a batch is split.",
        )
    if micro_batch_size not in (None, share):
        raise ConfigError(
            f"trainer.accumulate_grad_batches={accumulate} means micro-batches of {share}, and "
            f"data.micro_batch_size={micro_batch_size}.",
            "Leave one of them out.",
        )
    return share


def micro_batches(batch_size: int, world_size: int, micro_batch_size: int | None) -> int:
    """Forward passes of one process in a step. Raises `ConfigError` where the batch can't be shared so."""
    share, rest = divmod(batch_size, world_size)
    if rest or not share:
        raise ConfigError(
            f"objective.batch_size={batch_size} can't be shared by {world_size} processes.",
            f"Set it to a multiple of {world_size}.",
        )
    return 1 if micro_batch_size is None else _passes(share, micro_batch_size, "examples of a process's step")


def minibatch_passes(minibatch: int, micro_batch_size: int | None, accumulate: int | None) -> int:
    """Forward passes of one process over a minibatch of so many completions (PPO): one, unless the settings ask for
    more. Raises `ConfigError` where they do not divide it, or where two settings differ."""
    minibatch = max(1, minibatch)  # too small a batch is refused where it is shared out
    passes = accumulate or 1
    if micro_batch_size is not None:
        passes = _passes(minibatch, micro_batch_size, "completions of a process's minibatch")
    if accumulate not in (None, passes):
        raise ConfigError(
            f"trainer.accumulate_grad_batches={accumulate}, and data.micro_batch_size={micro_batch_size} means "
            f"{passes}.",
            "Leave one of them out.",
        )
    return passes


def _passes(share: int, micro_batch_size: int, what: str) -> int:
    if share % micro_batch_size:
        raise ConfigError(
            f"data.micro_batch_size={micro_batch_size} does not divide the {share} {what}.",
            f"Allowed: {', '.join(str(number) for number in range(1, share + 1) if share % number == 0)}.",
        )
    return share // micro_batch_size
