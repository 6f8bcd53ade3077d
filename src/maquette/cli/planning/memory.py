"""Whether a run fits, before anything of it starts: what `maquette train --show` says of memory, the profile's page
beside what it measured.

Small runs on a processor are the rule, and for them a bound by arithmetic will do: without PyTorch `--show` is back at
once. Only where it comes within `FAR` of what the device has is a step gone through (training/step_memory.py).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maquette.artifacts.targets import target_of
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.recipe_numbers import recipe_of, vocab_size
from maquette.data.config import DataConfig
from maquette.model.core_config import CoreConfig
from maquette.optimization.config import AdamWConfig
from maquette.recipe.run_spec import RunSpec
from maquette.tracking.environment import machine_memory

if TYPE_CHECKING:
    from maquette.recipe.pretraining import Recipe
    from maquette.training.step_memory import Step

FAR = 4.0
"""A step of ours never takes so many times what `by_arithmetic` says (tests/cli/test_memory.py)."""

_BYTES_OF_A_WEIGHT = 16  # weight, gradient and two states of Adam, in float32
_ACTIVATIONS = 2 * 2**30  # training/micro_batch.py: what a processor gets for them, where a row is not more


def memory_lines(config: TrainStage) -> Iterator[str]:
    """Of a run on text with our data; of others nothing is known before their data is read."""
    if not (isinstance(config.data, DataConfig) and config.objective.entry.reads_text):
        return
    recipe = recipe_of(config, vocab_size(config), _architecture(config))
    if recipe.parameters.inactive:
        yield f"# parameters (without the embedding): {recipe.size:,} that a token uses, {total_of(recipe):,} in all"
    if (known := _far_below(config, recipe)) is not None:
        yield f"# memory of a process: some {size(known)} by arithmetic"
        yield f"#   it fits: the machine has {size(machine_memory())}"
        return
    yield from _traced_lines(config, recipe)


def total_of(recipe: "Recipe") -> int:
    """N of all experts, of those too that a token does not go through."""
    return recipe.size + recipe.parameters.inactive


def _far_below(config: TrainStage, recipe: "Recipe") -> float | None:
    """What a step takes by arithmetic, where it is far below what the machine has; None where that is not known."""
    trainer, optimizer = config.trainer, target_of(config.optimizer)
    usual = optimizer == AdamWConfig()._target_ and config.adapter is None and not recipe.architecture.own_code
    if not usual or trainer.accelerator not in ("cpu", "auto") or not isinstance(trainer.devices, int):
        return None
    context = config.data.sequence_length
    each = by_arithmetic(recipe.architecture, 1, context) - by_arithmetic(recipe.architecture, 0, context)
    rows = min(recipe.batch_size_tokens // context, max(1, int(_ACTIVATIONS / each)))  # more a run does not choose
    known = by_arithmetic(recipe.architecture, config.data.micro_batch_size or rows, context)
    return known if trainer.devices * FAR * known <= machine_memory() else None


def by_arithmetic(architecture: CoreConfig, rows: int, context: int) -> float:
    """Bytes of weights, gradients, Adam's states and what the forward pass keeps of `rows` sequences, in float32."""
    activations = 4 * rows * context * (architecture.numbers_per_token + architecture.vocab_size)
    return float(_BYTES_OF_A_WEIGHT * architecture.parameters().total + activations)


def _traced_lines(config: TrainStage, recipe: "Recipe") -> Iterator[str]:
    from maquette.training.devices import count_processes
    from maquette.training.step_memory import device_memory, predict, remedy

    processes = count_processes(config.trainer, config.tensor_parallel_size)
    accelerator = "cpu" if config.trainer.accelerator in ("cpu", "auto") else "cuda"
    context = config.data.sequence_length
    share = max(1, recipe.batch_size_tokens // context // processes)
    rows = config.data.micro_batch_size or _rows(recipe.architecture, context, share, accelerator)
    step, shards = step_of(config, recipe.architecture, rows=rows, passes=max(1, share // rows))
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


def step_of(config: TrainStage, architecture: CoreConfig, *, rows: int, passes: int) -> "tuple[Step, int]":
    """A step of the run with so many sequences in each of its forward passes, and over how many processes its weights
    are shared out."""
    from maquette.training.devices import choose_precision, count_processes
    from maquette.training.step_memory import Step

    step = Step(
        architecture, rows, config.data.sequence_length, config.optimizer, passes=passes,
        precision=choose_precision(config.trainer, config.precision), checkpointing=config.activation_checkpointing,
        accelerator="cpu" if config.trainer.accelerator in ("cpu", "auto") else "cuda", adapter=config.adapter,
        logits_limit=getattr(config.objective, "logits_limit", None),
    )  # fmt: skip
    return step, count_processes(config.trainer) if config.trainer.strategy == "fsdp" else 1


def predicted_parts(config: TrainStage, spec: RunSpec, passes: int) -> dict[str, int]:
    """Bytes by part of a step of `spec` in so many forward passes; nothing of a run whose shapes its data decide."""
    if not (isinstance(config.data, DataConfig) and config.objective.entry.reads_text):
        return {}
    from maquette.training.devices import count_processes
    from maquette.training.step_memory import predict

    processes = count_processes(config.trainer, config.tensor_parallel_size)
    sequences = spec.batch_size_tokens // config.data.sequence_length // processes
    step, shards = step_of(config, spec.architecture, rows=max(1, sequences // passes), passes=passes)
    return predict(step).sharded(shards).parts


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
