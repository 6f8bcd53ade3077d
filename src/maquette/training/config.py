"""Settings of the Trainer (`conf/trainer/*.yaml`): all arguments of `lightning.Trainer` but callbacks and logger, which
are groups of their own. Where a default differs from Lightning's, the comment in `conf/trainer/default.yaml` says why.
"""

from dataclasses import dataclass
from typing import Any

from maquette.artifacts.settings import setting


@dataclass
class TrainerConfig:
    accelerator: str = setting("cpu", "hardware: cpu, gpu, auto", choices=("cpu", "gpu", "cuda", "auto"))
    strategy: Any = setting("auto", "how processes share the work: auto, ddp, fsdp")
    devices: Any = setting(1, "processes on this machine, one per device; auto: all that are there")
    num_nodes: int = setting(1, "machines", minimum=1)
    precision: Any = setting(None, "Lightning's name of a number format; by default that of precision=")
    fast_dev_run: Any = setting(False, "try every hook on so many batches; such a run is never recorded as finished")
    max_epochs: int | None = setting(None, "epochs at most; by default as many as the steps need")
    min_epochs: int | None = setting(None, "epochs at least")
    max_steps: int = setting(
        -1, "optimiser steps, instead of those that the token budget comes to", minimum=-1, first=True
    )

    min_steps: int | None = setting(None, "optimiser steps at least")
    max_time: Any = setting(None, "training time at most, such as 00:12:00:00")
    limit_train_batches: Any = setting(None, "batches of an epoch at most, or a share of them")
    limit_val_batches: Any = setting(None, "batches of a validation at most, or a share of them")
    limit_test_batches: Any = setting(None, "batches of a test at most")
    limit_predict_batches: Any = setting(None, "batches of a prediction at most")
    overfit_batches: Any = setting(0.0, "train and validate on so many batches")
    val_check_interval: Any = setting(None, "batches between validations, instead of num_validations in all")
    check_val_every_n_epoch: int | None = setting(
        None, "epochs between validations; null: val_check_interval counts on"
    )
    num_sanity_val_steps: int = setting(0, "validation batches before training, to see that they work")
    log_every_n_steps: int = setting(10, "steps between two points of the training curves", minimum=1)
    enable_checkpointing: bool | None = setting(None, "the callbacks say what is saved")
    enable_progress_bar: bool | None = setting(None, "Lightning's own progress bar")
    enable_model_summary: bool = setting(False, "print the module's layers")
    accumulate_grad_batches: int | None = setting(
        None, "forward passes of a step; by default what micro_batch_size comes to", minimum=1
    )
    gradient_clip_val: float | None = setting(
        1.0, "the gradient's norm is clipped to this; null: not clipped", minimum=0.0
    )
    gradient_clip_algorithm: str | None = setting(None, "how", choices=("norm", "value"))
    deterministic: Any = setting(None, "refuse operations that differ from run to run on a GPU")
    benchmark: bool | None = setting(None, "let cuDNN choose the fastest kernels by trying")
    inference_mode: bool = setting(False, "validate under inference_mode; caches made in it can't be trained through")
    use_distributed_sampler: bool = setting(False, "the order of data knows the processes already")
    profiler: Any = setting(None, "simple, advanced, pytorch, or a profiler")
    detect_anomaly: bool = setting(False, "find the operation that made a NaN (slow)")
    barebones: bool = setting(False, "switch everything off that costs time, to measure the rest")
    plugins: Any = setting(None, "plugins besides the project's own")
    sync_batchnorm: bool = setting(False, "for batch norm, which no model here has")
    reload_dataloaders_every_n_epochs: int = setting(0, "ask the data for its loaders again")
    default_root_dir: str | None = setting(None, "by default the run's folder")
    enable_autolog_hparams: bool = setting(False, "loggers get the run's settings instead")
    model_registry: str | None = setting(None, "of Lightning's own platform")


@dataclass
class PrecisionConfig:
    kind: str = setting(
        "fp32", "number format of training", choices=("fp32", "tf32", "bf16-mixed", "bf16-true", "16-mixed")
    )


@dataclass
class CheckpointConfig:
    """`callbacks.checkpoint`: from which a run resumes exactly."""

    _target_: str = setting("maquette.training.callbacks.RunCheckpoint", "the callback's class")
    every_n_train_steps: int | None = setting(None, "steps between checkpoints, instead of the interval", minimum=1)
    train_time_interval: dict[str, float] = setting(
        lambda: {"minutes": 2.0}, "time between checkpoints, as datetime.timedelta takes it"
    )
    save_last_k: int = setting(2, "how many of the newest stay", minimum=1)


@dataclass
class LossSpikeConfig:
    """`callbacks.loss_spike`: NaN, infinity, and spikes with their documents."""

    _target_: str = setting("maquette.training.callbacks.LossSpikeGuard", "the callback's class")
    factor: float = setting(3.0, "a loss so many times its running mean is reported as a spike", minimum=1.0)


@dataclass
class ThroughputConfig:
    """`callbacks.throughput`: tokens a second, MFU, and where a step's time goes."""

    _target_: str = setting("maquette.training.callbacks.Throughput", "the callback's class")


@dataclass
class ProgressConfig:
    """`callbacks.progress`: a bar, or a line now and then."""

    _target_: str = setting("maquette.training.callbacks.Progress", "the callback's class")


@dataclass
class SamplesConfig:
    """`callbacks.samples`: what the model writes at each validation."""

    _target_: str = setting("maquette.training.callbacks.Samples", "the callback's class")
    prompts: list[str] = setting(
        lambda: ["def ", "The function returns", "Permission is hereby granted"], "prompts continued at each validation"
    )


CALLBACKS: dict[str, type] = {
    "checkpoint": CheckpointConfig,
    "loss_spike": LossSpikeConfig,
    "throughput": ThroughputConfig,
    "progress": ProgressConfig,
    "samples": SamplesConfig,
}
"""The settings of the project's own callbacks, by the names that they have in `conf/callbacks/default.yaml`."""
