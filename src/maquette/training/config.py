"""Settings of the trainer: devices, precision, compilation, checkpoints, how often things are measured."""

from dataclasses import dataclass

from maquette.artifacts.settings import setting


@dataclass
class TrainerConfig:
    accelerator: str = setting("cpu", "hardware", choices=("cpu", "gpu", "auto"))
    devices: int = setting(1, "processes on this machine, one per device", minimum=1)
    num_nodes: int = setting(1, "machines", minimum=1)
    strategy: str = setting("single", "how processes share the work", choices=("single", "ddp", "fsdp"))
    threads: int | None = setting(
        None, "threads of a process; by default the machine's cores divided among processes", minimum=1
    )
    compile: str = setting(
        "auto", "torch.compile: auto decides by the run's expected length", choices=("auto", "on", "off")
    )
    checkpoint_minutes: float = setting(2.0, "minutes between checkpoints", minimum=0.0)
    checkpoint_steps: int | None = setting(None, "steps between checkpoints; replaces checkpoint_minutes", minimum=1)
    keep_checkpoints: int = setting(2, "how many of the latest checkpoints are kept", minimum=1)
    validation_runs: int = setting(
        10, "how often validation is run over the whole training (the end counts)", minimum=1
    )
    log_steps: int = setting(10, "steps between two points of the training curves", minimum=1)
    samples: list[str] = setting(
        lambda: ["def ", "The function returns", "Permission is hereby granted"], "prompts continued at each validation"
    )
    spike_factor: float = setting(3.0, "a loss this many times its running mean is reported as a spike", minimum=1.0)


@dataclass
class PrecisionConfig:
    kind: str = setting(
        "fp32", "number format of training", choices=("fp32", "tf32", "bf16-mixed", "bf16-true", "16-mixed")
    )
