"""The reference model of DPO: the checkpoint that the policy starts from, whose log-probabilities are taken before the
first step and kept, so that it is not in memory while the policy trains."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maquette.artifacts.files import atomic_file
from maquette.artifacts.progress import progress
from maquette.data.example_batches import conversation_batches
from maquette.data.example_data import in_parts
from maquette.data.examples import Examples
from maquette.model import LanguageModel
from maquette.model.loading import load_checkpoint
from maquette.objectives.completion_log_probs import completion_log_probs


class Reference:
    """`reference(split, examples, trainer)`: log-probabilities, kept as files in the run's `folder` under the `digest`
    of the examples."""

    def __init__(self, checkpoint: Path | str, folder: Path | str, digest: str) -> None:
        self.checkpoint, self.folder, self.digest = Path(checkpoint), Path(folder), digest

    def model(self) -> LanguageModel:
        """The model, as it was before the first step."""
        return load_checkpoint(self.checkpoint)[0]

    def __call__(self, split: str, examples: Examples, trainer: Any) -> Tensor:
        """(n,) of every completion."""
        identity = hashlib.sha256(f"{self.digest} {self.checkpoint} {split}".encode()).hexdigest()[:16]
        path = self.folder / f"reference-{split}-{identity}.npy"
        if path.exists():
            return torch.from_numpy(np.load(path))
        found = self._computed(examples, trainer)
        if trainer is None or trainer.is_global_zero:
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, found.numpy())
        return found

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
def reference_log_probs(
    model: LanguageModel, examples: Examples, rows: NDArray[np.intp] | None = None, *, batch: int = 64
) -> Tensor:
    """(n,) log-probability of every example's completion, without dropout; zero for those not in `rows`."""
    model.eval()
    device = model.head_weight.device
    found = torch.zeros(len(examples))
    chosen_rows = np.arange(len(examples)) if rows is None else rows
    with progress("reference log-probabilities", len(chosen_rows), unit="completions") as advance:
        # Rows of like length together: less padding.
        order = chosen_rows[np.argsort(np.asarray(examples.lengths)[chosen_rows], kind="stable")]
        for part in in_parts(len(order), batch):
            chosen = order[part]
            one = conversation_batches(examples, chosen, 1, packed=False)[0].to(device)
            found[torch.from_numpy(chosen)] = completion_log_probs(model, one)[0].float().cpu()
            advance(len(chosen))
    return found
