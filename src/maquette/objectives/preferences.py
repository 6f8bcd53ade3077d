"""What reward models and DPO share: numbers of a step, numbers of held-out pairs, and the reference's
log-probabilities."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maquette.artifacts.files import atomic_file
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import load_arrays
from maquette.data.example_batches import conversation_batches
from maquette.data.example_data import in_parts
from maquette.data.examples import Examples
from maquette.data.process_group import of_the_first
from maquette.model import LanguageModel
from maquette.model.loading import load_checkpoint
from maquette.objectives.base import Metrics
from maquette.objectives.completions import completion_log_probs

_ROWS = 64  # of a forward pass of the reference


def reward_metrics(chosen: Tensor, rejected: Tensor) -> Metrics:
    """Of a batch's rewards `(B,)` each, learned or implicit, by TRL's names."""
    return {
        "rewards/chosen": chosen.mean(),
        "rewards/rejected": rejected.mean(),
        "rewards/margins": (chosen - rejected).mean(),
        "rewards/accuracies": (chosen > rejected).float().mean(),
    }


class HeldOutPairs:
    """Collects `rows` numbers of every held-out pair over batches and processes."""

    def __init__(self, rows: int) -> None:
        self._rows, self._values = rows, dict[int, Tensor]()

    def add(self, batch: Any, values: Tensor) -> None:
        """`values (rows, B)` of a `HeldOutExamples` batch."""
        if batch.counts:
            self._values[batch.first] = values.double().cpu()

    def gathered(self, whole: int, over_processes: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        """`(rows, whole)`: everybody's, in the order of the pairs."""
        placed = torch.zeros(self._rows, whole, dtype=torch.float64)
        for first, values in self._values.items():
            placed[:, first : first + values.size(1)] = values
        gathered: NDArray[np.float64] = over_processes(placed.flatten()).view(self._rows, whole).numpy()
        return gathered


def preference_metrics(examples: Examples, chosen: NDArray[Any], rejected: NDArray[Any]) -> dict[str, float]:
    """Accuracy and margin over held-out pairs (equal rewards count half), and the accuracy of pairs whose chosen
    completion is the longer or the shorter one, and of each annotator's pairs."""
    difference = chosen - rejected
    right = (difference > 0) + 0.5 * (difference == 0)
    lengths = examples.answer_lengths
    longer = lengths[::2] - lengths[1::2]
    groups = {"chosen_longer": longer > 0, "chosen_shorter": longer < 0, "equal_lengths": longer == 0}
    annotators = examples.names.get("annotator", [])
    if len(annotators) > 1:
        of_pairs = np.asarray(examples.columns["annotator"][::2])
        groups |= {f"annotator {name or 'unnamed'}": of_pairs == number for number, name in enumerate(annotators)}
    return {
        "validation/accuracy": float(right.mean()),
        "validation/margin": float(difference.mean()),
        "validation/rewards/chosen": float(chosen.mean()),
        "validation/rewards/rejected": float(rejected.mean()),
        **{f"validation/accuracy/{name}": float(right[chose].mean()) for name, chose in groups.items() if chose.any()},
    }


class ReferenceLogProbs:
    """`reference(split, examples, trainer)`: log-probabilities under the model that a policy starts from, taken before
    the first step and kept as files in the run's `folder` under the `digest` of the examples, so that the reference is
    not in memory while the policy trains."""

    def __init__(self, checkpoint: Path | str, folder: Path | str, digest: str) -> None:
        self.checkpoint, self.folder, self.digest = Path(checkpoint), Path(folder), digest

    def model(self) -> LanguageModel:
        """The model, as it was before the first step."""
        return load_checkpoint(self.checkpoint)[0]

    def __call__(self, split: str, examples: Examples, trainer: Any) -> Tensor:
        """(n,) of every completion."""
        identity = hashlib.sha256(f"{self.digest} {self.checkpoint} {split}".encode()).hexdigest()[:16]
        path = self.folder / f"reference-{split}-{identity}.npz"
        if of_the_first(path.exists):  # a file that one process does not see yet would leave the others waiting
            return torch.from_numpy(load_arrays(path, hint="Remove it: it is computed again.")["log_probs"])
        log_probs = self._computed(examples, trainer)
        if trainer is None or trainer.is_global_zero:
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                np.savez(file, log_probs=log_probs.numpy())
        return log_probs

    def _computed(self, examples: Examples, trainer: Any) -> Tensor:
        """As training computes the policy's: on its device and in its number format, so that implicit rewards begin at
        0. Every process takes its share."""
        if trainer is None:
            return reference_log_probs(self.model(), examples)
        shared = trainer.world_size > 1
        rows = np.arange(trainer.global_rank, len(examples), trainer.world_size) if shared else np.arange(len(examples))
        device = trainer.strategy.root_device
        model: Any = trainer.precision_plugin.convert_module(self.model().to(device))
        with trainer.precision_plugin.forward_context():
            part = reference_log_probs(model, examples, rows)
        return trainer.strategy.reduce(part.to(device), reduce_op="sum").cpu() if shared else part


@torch.no_grad()
def reference_log_probs(model: LanguageModel, examples: Examples, rows: NDArray[np.intp] | None = None) -> Tensor:
    """(n,) log-probability of every example's completion, without dropout; zero for those not in `rows`."""
    model.eval()
    device = model.head_weight.device
    log_probs = torch.zeros(len(examples))
    chosen_rows = np.arange(len(examples)) if rows is None else rows
    with progress("reference log-probabilities", len(chosen_rows), unit="completions") as advance:
        # Rows of like length together: less padding.
        order = chosen_rows[np.argsort(np.asarray(examples.lengths)[chosen_rows], kind="stable")]
        for part in in_parts(len(order), _ROWS):
            chosen = order[part]
            one = conversation_batches(examples, chosen, 1, packed=False)[0].to(device)
            log_probs[torch.from_numpy(chosen)] = completion_log_probs(model, one)[0].float().cpu()
            advance(len(chosen))
    return log_probs
