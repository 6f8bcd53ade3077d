"""What held-out pairs say of rewards, learned or implicit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maquette.data.examples import Examples


class HeldOutPairs:
    """Collects `rows` numbers of every pair over batches and processes."""

    def __init__(self, rows: int) -> None:
        self._rows, self._found = rows, dict[int, Tensor]()

    def add(self, batch: Any, values: Tensor) -> None:
        """`values (rows, B)` of a `HeldOutExamples` batch."""
        if batch.counts:
            self._found[batch.first] = values.double().cpu()

    def gathered(self, whole: int, over_processes: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        """`(rows, whole)`: everybody's, in the order of the pairs."""
        placed = torch.zeros(self._rows, whole, dtype=torch.float64)
        for first, values in self._found.items():
            placed[:, first : first + values.size(1)] = values
        found: NDArray[np.float64] = over_processes(placed.flatten()).view(self._rows, whole).numpy()
        return found


def preference_metrics(examples: Examples, chosen: NDArray[Any], rejected: NDArray[Any]) -> dict[str, float]:
    """Loss and accuracy over held-out pairs (equal rewards count half), and the accuracy of pairs whose chosen
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
        "validation/loss": float(np.logaddexp(0.0, -difference).mean()),
        "validation/accuracy": float(right.mean()),
        "validation/margin": float(difference.mean()),
        **{f"validation/accuracy/{name}": float(right[chose].mean()) for name, chose in groups.items() if chose.any()},
    }
