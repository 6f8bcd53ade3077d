"""Whether a run fits, before anything of it starts: what `maquette train --show` says of memory."""

from collections.abc import Iterator

from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.recipe_numbers import recipe_of, vocab_size
from maquette.data.config import DataConfig
from maquette.model.core_config import CoreConfig


def memory_lines(config: TrainStage) -> Iterator[str]:
    """Of a run on text with our data; of others nothing is known before their data is read."""
    if not (isinstance(config.data, DataConfig) and config.objective.entry.reads_text):
        return
    from maquette.training.devices import choose_precision, count_processes
    from maquette.training.step_memory import Step, device_memory, predict, remedy

    recipe = recipe_of(config, vocab_size(config), _architecture(config))
    processes = count_processes(config.trainer)
    accelerator = "cpu" if config.trainer.accelerator in ("cpu", "auto") else "cuda"
    context = config.data.sequence_length
    share = max(1, recipe.batch_size_tokens // context // count_processes(config.trainer, config.tensor_parallel_size))
    rows = config.data.micro_batch_size or _rows(recipe.architecture, context, share, accelerator)
    step = Step(
        recipe.architecture, rows, context, config.optimizer, passes=max(1, share // rows),
        precision=choose_precision(config.trainer, config.precision), checkpointing=config.activation_checkpointing,
        accelerator=accelerator, adapter=config.adapter,
        logits_limit=getattr(config.objective, "logits_limit", None),
    )  # fmt: skip
    shards = processes if config.trainer.strategy == "fsdp" else 1
    room = device_memory(accelerator)
    try:
        memory = predict(step).sharded(shards)
    except Exception as error:  # of anybody's model or optimiser that needs numbers: --show must not fail for it
        yield f"# memory of a process: not known before it runs ({type(error).__name__})"
        return
    parts = ", ".join(f"{name} {size(value)}" for name, value in memory.parts.items())
    yield f"# memory of a process: {size(memory.total)} for tensors ({parts}) with {rows} sequences at a time"
    if room is None:
        yield "#   no GPU is here to compare it with"
    elif memory.total <= room:
        yield f"#   it fits: the device has {size(room)}"
    else:
        yield f"#   it does not fit: the device has {size(room)}; {remedy(step, room, shards)}"


def _architecture(config: TrainStage) -> CoreConfig | None:
    if (start := config.starting_folder) is None:
        return None
    from maquette.model.hf import config_of, read_config
    from maquette.model.loading import model_folder

    folder = model_folder(start)
    return config_of(read_config(folder), folder)


def _rows(architecture: CoreConfig, context: int, share: int, accelerator: str) -> int:
    """Sequences of a forward pass: on a processor as the run will choose them, on a GPU one at least."""
    from maquette.training.devices import Hardware
    from maquette.training.micro_batch import choose_micro_batch

    if accelerator == "cuda":
        return 1
    return choose_micro_batch(
        architecture, batch_sequences=share, context=context, whole=1, micro_batch_size=None,
        hardware=Hardware("cpu", 1, 1, "single", 1, "fp32"),
    )  # fmt: skip


def size(value: float) -> str:
    """Bytes in words."""
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"
