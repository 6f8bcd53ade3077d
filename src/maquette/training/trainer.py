"""Lightning's Trainer, put together from settings: strategy, precision, and nothing else that would touch a step."""

import datetime
import logging
import warnings
from collections.abc import Sequence

import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy, Strategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from maquette.training.checkpoints import AtomicCheckpointIO
from maquette.training.devices import Hardware

_PATIENCE = datetime.timedelta(minutes=30)
"""How long a process waits for another, which may be validating or saving."""


def build_trainer(
    hardware: Hardware,
    *,
    steps: int,
    accumulate: int,
    callbacks: Sequence[Callback],
    blocks: set[type[torch.nn.Module]],
    steps_per_epoch: int | None = None,
) -> Trainer:
    """A Trainer of `steps` optimiser steps of `accumulate` micro-batches each, in one epoch or in epochs of
    `steps_per_epoch`. `blocks`: classes of layers that FSDP shards one by one.

    Logging, checkpoints, validation and the progress bar are the monitor's, so Lightning's are off.
    """
    _quieten()
    many = hardware.world_size > 1
    return Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.processes,
        num_nodes=hardware.nodes,
        strategy=build_strategy(hardware, blocks),
        precision=hardware.lightning_precision,  # type: ignore[arg-type]
        plugins=[AtomicCheckpointIO(), TorchElasticEnvironment() if many else LightningEnvironment()],
        max_steps=steps,
        max_epochs=1 if steps_per_epoch is None else -(-steps // steps_per_epoch),
        accumulate_grad_batches=accumulate,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def build_strategy(hardware: Hardware, blocks: set[type[torch.nn.Module]]) -> Strategy:
    """How processes share the work: alone, each with a copy (DDP), or with the weights shared out (FSDP)."""
    if hardware.strategy == "fsdp":
        return FSDPStrategy(
            auto_wrap_policy=ModuleWrapPolicy(blocks),
            state_dict_type="full",
            sharding_strategy="FULL_SHARD",
            timeout=_PATIENCE,
        )
    if hardware.world_size > 1:
        return DDPStrategy(
            process_group_backend="gloo" if hardware.accelerator == "cpu" else "nccl",
            timeout=_PATIENCE,
            gradient_as_bucket_view=True,
        )
    return SingleDeviceStrategy(device=hardware.device)


def _quieten() -> None:
    """Lightning's remarks about what it found and what it would rather have; ours say what matters."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        "You defined a `validation_step` but have no `val_dataloader`",
        ".*`isinstance.*LeafSpec",
        r"Found \d+ module\(s\) in eval mode",  # policies have no dropout
    ):
        warnings.filterwarnings("ignore", message)
