"""Lightning's Trainer, put together from `conf/trainer`, `conf/callbacks` and `conf/logger`."""

import dataclasses
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy, SingleDeviceStrategy, Strategy

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import place_of, search_current_folder
from maquette.data.process_group import PATIENCE, local_gpu
from maquette.tracking.config import address_of
from maquette.training.callbacks import RunCallback, RunContext, ValidationSchedule
from maquette.training.checkpoint_io import AtomicCheckpointIO
from maquette.training.job import Job, Opened


def build_callbacks(job: Job, run: RunContext) -> list[Callback]:
    """The callbacks of the settings, ours attached to the run, and the schedule of validations unless
    `trainer.val_check_interval` is one. A `dirpath` (ModelCheckpoint's) gets the run's name below it: the jobs of a
    sweep have the same settings. Raises `ConfigError` for a node that makes no callback."""
    nodes = {
        name: {**node, "dirpath": str(Path(node["dirpath"]) / job.name)}
        if isinstance(node, Mapping) and node.get("dirpath")
        else node
        for name, node in job.callbacks.items()
    }
    callbacks: list[Callback] = parts("callbacks", nodes, Callback)
    if job.trainer.val_check_interval is None and job.trainer.check_val_every_n_epoch is None:
        callbacks.insert(0, ValidationSchedule())
    for callback in callbacks:
        if isinstance(callback, RunCallback):
            callback.attach(run)
    return callbacks


def parts(group: str, nodes: Mapping[str, Any], kind: type[Any]) -> list[Any]:
    """What the `_target_`s of a group make, in their order; null leaves one out.

    Raises `ConfigError` for one that can't be made or is not a `kind`."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    search_current_folder()
    made = []
    for name, node in nodes.items():
        if node is None:
            continue
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise ConfigError(f"{group}.{name} has no _target_.", f"Give {group}.{name}._target_=package.Class.")
        try:
            values = {key: address_of(value) if isinstance(value, str) else value for key, value in node.items()}
            part = instantiate(values, _convert_="all")
        except InstantiationException as error:
            raise ConfigError(f"{group}.{name} can't be made: {_innermost(error)}") from error
        if not isinstance(part, kind):
            raise ConfigError(f"{group}.{name}: {node['_target_']} is not a {kind.__module__}.{kind.__name__}.")
        made.append(part)
    return made


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}{place_of(error)}"


def build_trainer(
    job: Job, opened: Opened, callbacks: Sequence[Callback], loggers: Sequence[Logger], **others: Any
) -> Trainer:
    """A Trainer of the job's optimiser steps, in one epoch or in epochs of `opened.steps_per_epoch`. `others` are
    arguments in place of the settings."""
    quieten()
    hardware = job.hardware
    many = hardware.world_size > 1
    settings = {field.name: getattr(job.trainer, field.name) for field in dataclasses.fields(job.trainer)}
    epochs = 1 if opened.steps_per_epoch is None else -1
    if opened.steps_per_epoch:
        epochs = -(-job.spec.steps // opened.steps_per_epoch)
    plugins = settings.pop("plugins") or []
    bar = settings["enable_progress_bar"]
    settings |= {
        "accelerator": hardware.accelerator,
        "devices": hardware.processes if hardware.accelerator == "cpu"
        else min(hardware.processes, torch.cuda.device_count()),  # the strategy names them
        "num_nodes": hardware.nodes,
        "strategy": build_strategy(job),
        # Sharded weights are gathered in the compute dtype; autocast would convert them at each use.
        "precision": "32-true" if hardware.strategy == "fsdp" and hardware.precision == "bf16-mixed"
        else hardware.lightning_precision,
        "plugins": [
            AtomicCheckpointIO(), TorchElasticEnvironment() if many else LightningEnvironment(),
            *(plugins if isinstance(plugins, list | tuple) else [plugins]),
        ],
        "max_steps": job.spec.steps,
        "max_epochs": settings["max_epochs"] or epochs,
        "accumulate_grad_batches": opened.accumulate,
        "check_val_every_n_epoch": settings["check_val_every_n_epoch"]
        or (1 if isinstance(settings["val_check_interval"], float) else None),
        "default_root_dir": settings["default_root_dir"] or str(job.folder),
        "enable_progress_bar": any(isinstance(one, ProgressBar) for one in callbacks) if bar is None else bar,
        "callbacks": list(callbacks),
        "logger": list(loggers) or False,
    }  # fmt: skip
    return Trainer(**settings | others)


def build_strategy(job: Job) -> Strategy:
    """How processes share the work: alone, each with a copy (DDP), or with the weights shared out (FSDP)."""
    hardware = job.hardware
    if hardware.world_size == 1:
        return SingleDeviceStrategy(device=hardware.device)
    strategy: ParallelStrategy
    if hardware.strategy == "fsdp":
        from maquette.training.sharded_strategy import ShardedStrategy

        strategy = ShardedStrategy(
            nodes=hardware.nodes,
            compute_dtype=torch.bfloat16 if hardware.precision == "bf16-mixed" else torch.float32,
            timeout=PATIENCE,
            tensor_parallel_size=hardware.tensor_parallel_size,
            expert_parallel_size=hardware.expert_parallel_size,
        )
    else:
        strategy = DDPStrategy(process_group_backend=hardware.backend, timeout=PATIENCE, gradient_as_bucket_view=True)
    if hardware.accelerator != "cpu":  # Lightning would take as many as there are processes, of which srun may show one
        strategy.parallel_devices = [torch.device("cuda", local_gpu(rank)) for rank in range(hardware.processes)]
    return strategy


def quieten() -> None:
    """Lightning's remarks about what it found and what it would rather have; ours say what matters."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*`isinstance.*LeafSpec",
        r"Found \d+ module\(s\) in eval mode",  # policies have no dropout
        ".*does not have many workers",
        "You have overridden `transfer_batch_to_device` in `LightningModule`",
        "It is recommended to use `self.log",  # values are of all processes already
        "The number of training batches .* is smaller than the logging interval",  # the last step logs
        "Checkpoint directory .* exists and is not empty",
        "You defined a `validation_step` but have no `val_dataloader`",  # of a trial of speed
        "Full backward hook is firing when gradients are computed with respect to module outputs",  # of a profile
        "Total length of `.*` across ranks is zero",  # the run says that nothing is held out
    ):
        warnings.filterwarnings("ignore", message)
