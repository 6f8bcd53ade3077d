"""Instructions and preferences as LightningDataModules: fixed examples, read in an order of (data, seed, step)."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from maquette.artifacts.manifest import Manifest, read_manifest, verify_files
from maquette.data.batches import TensorBatch
from maquette.data.conversations import Prompt
from maquette.data.example_batches import (
    ExampleBatches,
    conversation_batches,
    labelled_batches,
    mismatched_examples,
    preference_batches,
)
from maquette.data.examples import Examples
from maquette.data.order import Reshuffled
from maquette.data.process_group import data_place

if TYPE_CHECKING:
    from maquette.text import Tokenizer


@dataclasses.dataclass
class HeldOutExamples(TensorBatch):
    """A validation `batch`, which begins with example (or pair) `first`; `counts`: whether it is this process's to
    count."""

    batch: Any
    first: int
    counts: bool = True


class ExampleData(LightningDataModule, abc.ABC):
    """The examples in `folder`, an artifact with `train/` and `validation/`.

    `batch_size`: examples (or pairs) of a step over all processes; `micro_batches`: forward passes of one process in a
    step; `batch_size_tokens`: tokens of a step on average.
    """

    examples_of_a_unit = 1
    """2 where the examples come in pairs."""

    def __init__(
        self,
        folder: Path | str,
        tokenizer: "Tokenizer",
        *,
        batch_size: int,
        micro_batches: int,
        steps: int,
        seed: int,
        batch_size_tokens: int,
    ) -> None:
        super().__init__()
        self.folder, self.tokenizer = Path(folder), tokenizer
        self.batch_size, self.micro_batches, self.steps = batch_size, micro_batches, steps
        self.seed, self.batch_size_tokens = seed, batch_size_tokens
        self.manifest: Manifest | None = None

    def setup(self, stage: str | None = None) -> None:
        """Reads the examples, whose bytes the first process checks. Raises `StageError` where they are damaged."""
        if self.manifest is not None:
            return
        first = self.trainer is None or self.trainer.is_global_zero
        self.manifest = verify_files(self.folder) if first else read_manifest(self.folder)
        self.training = Examples.load(self.folder / "train")
        self.validation = Examples.load(self.folder / "validation")
        self._order = Reshuffled(len(self.training) // self.examples_of_a_unit, "examples", self.seed)

    def train_dataloader(self) -> ExampleBatches[Any]:
        assert self.manifest is not None
        rank, world_size = data_place(self.trainer)
        cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return ExampleBatches(
            self._order, self._training_batches(), batch_size=self.batch_size, micro_batches=self.micro_batches,
            steps=self.steps, identity=self.manifest.digest, rank=rank, world_size=world_size,
            pin_memory=cuda,
        )  # fmt: skip

    def val_dataloader(self) -> list["_HeldOutExampleLoader"]:
        rank, world_size = data_place(self.trainer)
        count = len(self.validation) // self.examples_of_a_unit
        make = self._validation_batch()
        return [_HeldOutExampleLoader(make, in_parts(count, self.batch_size), rank, world_size)] if count else []

    @abc.abstractmethod
    def _training_batches(self) -> Callable[[NDArray[np.int64], int, slice], Sequence[Any]]:
        """`make(indices, parts, mine)`: micro-batches of a step."""

    @abc.abstractmethod
    def _validation_batch(self) -> Callable[[NDArray[np.int64]], Any]:
        """`make(indices)`: one batch of held-out examples."""

    def progress(self, step: int) -> dict[str, float]:
        """How far the run is after `step`: tokens, and how often each example was seen."""
        return {"tokens": step * self.batch_size_tokens, "epochs": self.epochs(step)}

    def epochs(self, step: int) -> float:
        return step * self.batch_size * self.examples_of_a_unit / len(self.training)

    def describe(self, step: int) -> str:
        """The numbers of the examples that `step` (from 1) read."""
        what = "pairs" if self.examples_of_a_unit == 2 else "examples"
        first = (step - 1) * self.batch_size
        indices = sorted(self._order.locate(np.arange(first, first + self.batch_size)).tolist())
        return f"{what} {', '.join(map(str, indices))} of {self.folder}"

    def prompts(self, count: int, context: int) -> list[Prompt]:
        """The first different prompts of held-out examples (of training ones where there are none), each up to where
        its completion begins; those that leave no room in the context are passed over."""
        examples = self.validation if len(self.validation) else self.training
        distinct: dict[tuple[int, ...], None] = {}
        for ids, mask in examples:
            if len(distinct) == count:
                break
            prompt = tuple(ids[: int(np.argmax(mask))].tolist())
            if len(prompt) < context:
                distinct[prompt] = None
        return [Prompt((), prompt) for prompt in distinct]

    def shown(self, answer: Any) -> dict[str, Any]:
        """A sample as people read it: without the tokens that mark turns."""
        return {"prompt": self.tokenizer.decode(answer.prompt_ids, skip_special=True), "text": answer.answer}


class InstructionData(ExampleData):
    """Conversations to imitate; with `packing` short ones share a row."""

    def __init__(self, folder: Path | str, tokenizer: "Tokenizer", *, packing: bool = True, **settings: Any) -> None:
        super().__init__(folder, tokenizer, **settings)
        self.packing = packing

    def _training_batches(self) -> Callable[[NDArray[np.int64], int, slice], Sequence[Any]]:
        return functools.partial(conversation_batches, self.training, packed=self.packing)

    def _validation_batch(self) -> Callable[[NDArray[np.int64]], Any]:
        return lambda indices: conversation_batches(self.validation, indices, 1, packed=self.packing)[0]


class PreferenceData(ExampleData):
    """Pairs of completions. `reference(split, examples, trainer)`, where an objective has one, gives the
    log-probabilities `(2 n,)` of all completions under the reference model, and `reference.model()` the model."""

    examples_of_a_unit = 2

    def __init__(self, folder: Path | str, tokenizer: "Tokenizer", *, reference: Any = None, **settings: Any) -> None:
        super().__init__(folder, tokenizer, **settings)
        self.reference = reference

    def reference_model(self) -> Any:
        """None where the objective has no reference."""
        return None if self.reference is None else self.reference.model()

    def _training_batches(self) -> Callable[[NDArray[np.int64], int, slice], Sequence[Any]]:
        known = self._reference_log_probs("train", self.training)
        return lambda pairs, parts, mine: preference_batches(self.training, pairs, parts, known, mine)

    def _validation_batch(self) -> Callable[[NDArray[np.int64]], Any]:
        known = self._reference_log_probs("validation", self.validation)
        return lambda pairs: preference_batches(self.validation, pairs, 1, known)[0]

    def _reference_log_probs(self, split: str, examples: Examples) -> Any:
        return None if self.reference is None else self.reference(split, examples, self.trainer)


class LabelledData(ExampleData):
    """Completions that are good or bad by themselves. `reference(split, examples, trainer)` gives log-probabilities
    under the reference model, and `reference.model()` the model."""

    def __init__(self, folder: Path | str, tokenizer: "Tokenizer", *, reference: Any, **settings: Any) -> None:
        super().__init__(folder, tokenizer, **settings)
        self.reference = reference

    def reference_model(self) -> Any:
        return self.reference.model()

    def _training_batches(self) -> Callable[[NDArray[np.int64], int, slice], Sequence[Any]]:
        return self._batches("train", self.training)

    def _validation_batch(self) -> Callable[[NDArray[np.int64]], Any]:
        make = self._batches("validation", self.validation)
        return lambda indices: make(indices, 1, slice(None))[0]

    def _batches(self, split: str, examples: Examples) -> Callable[..., Sequence[Any]]:
        assert self.manifest is not None
        mismatched = mismatched_examples(examples, self.manifest.facts["longest"])
        known = [
            self.reference(name, some, self.trainer)
            for name, some in ((split, examples), (f"{split}-mismatched", mismatched))
        ]
        return functools.partial(labelled_batches, examples, mismatched, tuple(known))


class _HeldOutExampleLoader:
    """Validation batches of one process; all processes take part in every round."""

    def __init__(
        self, make: Callable[[NDArray[np.int64]], Any], groups: Sequence[NDArray[np.int64]], rank: int, world_size: int
    ) -> None:
        self._make, self._groups, self._rank, self._world_size = make, groups, rank, world_size

    def __len__(self) -> int:
        return -(-len(self._groups) // self._world_size)

    def __iter__(self) -> Iterator[HeldOutExamples]:
        for start in range(0, len(self._groups), self._world_size):
            mine = start + self._rank
            group = self._groups[min(mine, len(self._groups) - 1)]
            yield HeldOutExamples(self._make(group), int(group[0]), counts=mine < len(self._groups))


def in_parts(count: int, size: int) -> list[NDArray[np.int64]]:
    """0 ... count - 1 in runs of at most `size`."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
