"""Training on a fixed set of examples as a workload: what fine-tuning, reward models and DPO have in common."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from maquette.artifacts import ConfigError
from maquette.artifacts.manifest import Manifest, read_manifest, verify_files
from maquette.data.example_batches import ExampleBatches, ExampleOrder
from maquette.data.examples import Examples
from maquette.data.prompts import Prompt
from maquette.model.heads import Core
from maquette.objectives.config import ExampleConfig
from maquette.objectives.rewards import Completion
from maquette.text import Tokenizer
from maquette.training.example_card import write_example_card
from maquette.training.figures import draw_curves
from maquette.training.job import Job
from maquette.training.processes import World
from maquette.training.record import RunRecord
from maquette.training.workload import Row, Workload


@dataclass(frozen=True)
class ExamplePlan:
    """Which examples, and the objective's settings. `folder`: an artifact with `train/` and `validation/`;
    `micro_batch_size`: examples of one forward pass, None for all of a process's share."""

    folder: Path
    objective: ExampleConfig
    micro_batch_size: int | None = None

    @property
    def kind(self) -> str:
        return self.objective.kind

    def open(self, job: Job, tokenizer: Tokenizer, world: World) -> Workload:
        from maquette.training.preference_training import PreferenceTraining
        from maquette.training.reward_training import RewardTraining
        from maquette.training.supervised_training import SupervisedTraining

        kinds: Mapping[str, type[ExampleWorkload]] = {
            "sft": SupervisedTraining,
            "reward": RewardTraining,
            "dpo": PreferenceTraining,
        }
        return kinds[self.kind](self, job, tokenizer, world)


def micro_batches(batch_size: int, world_size: int, wished: int | None) -> int:
    """Forward passes of one process in a step. Raises `ConfigError` where the batch can't be shared so."""
    share, rest = divmod(batch_size, world_size)
    if rest or not share:
        raise ConfigError(
            f"objective.batch_size={batch_size} can't be shared by {world_size} processes.",
            f"Set it to a multiple of {world_size}.",
        )
    if wished is not None and share % wished:
        allowed = ", ".join(str(number) for number in range(1, share + 1) if share % number == 0)
        raise ConfigError(
            f"data.micro_batch_size={wished} does not divide the {share} examples of a process's step.",
            f"Allowed: {allowed}.",
        )
    return share // (wished or share)


class ExampleWorkload(Workload):
    """What is written for one objective: `_open` (model and objective), `_make` (batches), `_validate` (judging)."""

    core: Core

    examples_of_a_unit = 1
    """2 where the examples come in pairs."""

    curves: Sequence[tuple[str, Sequence[str]]] = ()
    """Panels of the run's figure: the label of the axis, and the curves in it."""

    def __init__(self, plan: ExamplePlan, job: Job, tokenizer: Tokenizer, world: World) -> None:
        self.plan, self.job, self.tokenizer, self.world = plan, job, tokenizer, world
        self.manifest: Manifest = verify_files(plan.folder) if world.is_first else read_manifest(plan.folder)
        self.training = Examples.load(plan.folder / "train")
        self.validation = Examples.load(plan.folder / "validation")
        self._open()
        self.micro_batches_per_step = micro_batches(plan.objective.batch_size, world.size, plan.micro_batch_size)
        self.batches = self._ordered = ExampleBatches(
            ExampleOrder(len(self.training) // self.examples_of_a_unit, job.seed),
            self._make,
            batch_size=plan.objective.batch_size,
            micro_batches=self.micro_batches_per_step,
            steps=job.steps,
            identity=self.manifest.digest,
            rank=world.rank,
            world_size=world.size,
        )

    @abc.abstractmethod
    def _open(self) -> None:
        """Sets `core` and `objective`."""

    @abc.abstractmethod
    def _make(self, indices: NDArray[np.int64], parts: int) -> Sequence[Any]:
        """The micro-batches of a step."""

    @abc.abstractmethod
    def _validate(self, trainer: Trainer) -> dict[str, float]:
        """Values of held-out examples; there are some."""

    def _sample(self, step: int) -> dict[str, float]:
        """Values of answers that the model samples; called in the first process alone."""
        return {}

    def judge(self, trainer: Trainer, step: int) -> dict[str, float]:
        values: dict[str, float] = {"tokens": step * self.job.batch_size_tokens, "epochs": self._epochs(step)}
        if len(self.validation):
            values |= self._validate(trainer)
        if self.world.is_first and self.job.hardware.strategy != "fsdp":
            values |= self._sample(step)
        return values

    def describe(self, step: int) -> str:
        """The numbers of the examples."""
        what = "pairs" if self.examples_of_a_unit == 2 else "examples"
        return f"{what} {', '.join(map(str, sorted(self._ordered.indices(step - 1).tolist())))} of {self.plan.folder}"

    def results(self, last: Row, step: int) -> dict[str, Any]:
        return {"facts": self.manifest.facts | {"epochs": self._epochs(step)}}

    def draw(self, history: list[Row], folder: Path, title: str) -> list[Path]:
        return [draw_curves(history, self.curves, folder / "curves", title=title)]

    def totals(self, record: RunRecord) -> dict[str, float]:
        return {"epochs": record.facts["epochs"]}

    def card(self, record: RunRecord, *, finished: bool) -> str | None:
        return write_example_card(record) if finished else None

    def prompts(self, count: int) -> list[Prompt]:
        """The first different prompts of held-out examples (of training ones where there are none), each up to where
        its answer begins; those that leave no room for another answer are passed over."""
        examples = self.validation if len(self.validation) else self.training
        context = self.core.config.max_position_embeddings
        found: dict[tuple[int, ...], None] = {}
        for ids, mask in examples:
            if len(found) == count:
                break
            prompt = tuple(ids[: int(np.argmax(mask))].tolist())
            if len(prompt) < context:
                found[prompt] = None
        return [Prompt((), prompt) for prompt in found]

    def shown(self, answer: Completion, step: int) -> Row:
        """A sample as people read it: without the tokens that mark turns."""
        text = self.tokenizer.decode(answer.prompt_ids, skip_special=True)
        return {"step": step, "prompt": text, "text": answer.answer}

    def _epochs(self, step: int) -> float:
        return step * self.plan.objective.batch_size * self.examples_of_a_unit / len(self.training)


def in_parts(count: int, size: int) -> list[NDArray[np.int64]]:
    """0 ... count - 1 in runs of at most `size`."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def gathered(number: int, size: int, whole: int, values: torch.Tensor) -> torch.Tensor:
    """`values (k, B)` of batch `number` at their places among `whole` columns, zero elsewhere, flat: summed over all
    batches and processes they are everybody's."""
    placed = torch.zeros(values.size(0), whole, dtype=torch.float64)
    placed[:, number * size : number * size + values.size(1)] = values.double().cpu()
    return placed.flatten()
