"""Training a reward model as a workload: judged by how often, and how surely, it prefers what people preferred."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor

from maquette.data.example_batches import PreferenceBatch, preference_batches
from maquette.data.examples import Examples
from maquette.model import ScalarModel, hf
from maquette.model.loading import load_checkpoint, load_reward_model, model_folder
from maquette.objectives import RewardModelling
from maquette.objectives.config import RewardConfig
from maquette.statistics.calibration import Reliability, reliability
from maquette.training.assembly import module_weights, prepare_optimization
from maquette.training.examples import ExampleWorkload, gathered, in_parts
from maquette.training.figures import draw_reliability
from maquette.training.record import RunRecord
from maquette.training.validation import judging, sum_over
from maquette.training.workload import Row


class RewardTraining(ExampleWorkload):
    """Preferences are learned. The core comes from a language model, or all of it from a reward model."""

    examples_of_a_unit = 2
    curves = (
        ("loss (nats per pair)", ("train/loss", "validation/loss")),
        (
            "wanted answer has the higher reward",
            ("rewards/accuracies", "validation/accuracy", "validation/accuracy/chosen_longer",
             "validation/accuracy/chosen_shorter"),
        ),
    )  # fmt: skip

    def _open(self) -> None:
        assert isinstance(self.plan.objective, RewardConfig) and self.job.checkpoint is not None
        self.settings = self.plan.objective
        self.model = self._initial_model(self.job.checkpoint)
        self.core = self.model.core
        self.objective = RewardModelling(self.model.train(), prepare_optimization(self.job), self.settings)
        self._reliability: Reliability | None = None

    def _initial_model(self, checkpoint: Path) -> ScalarModel:
        if hf.is_scalar(hf.read_config(model_folder(checkpoint))):
            return load_reward_model(checkpoint, tokenizer_digest=self.tokenizer.digest)[0]
        language_model, _ = load_checkpoint(checkpoint, tokenizer_digest=self.tokenizer.digest)
        return ScalarModel.from_language_model(language_model, seed=self.job.seed)

    def _make(self, indices: NDArray[np.int64], parts: int) -> Sequence[PreferenceBatch]:
        return preference_batches(self.training, indices, parts)

    def _validate(self, trainer: Trainer) -> dict[str, float]:
        size, whole = self.settings.batch_size, len(self.validation) // 2
        batches = [preference_batches(self.validation, group, 1)[0] for group in in_parts(whole, size)]
        with judging(trainer):
            sums = sum_over(trainer, batches, lambda n, judged: gathered(n, size, whole, judged), 2 * whole)
        chosen, rejected = sums.view(2, whole).numpy()
        # Which of the two is called the first is by chance, so that half of the probabilities are below a half.
        swapped = np.arange(whole) % 2 == 1
        said = _sigmoid(np.where(swapped, rejected - chosen, chosen - rejected))
        self._reliability = reliability(said, ~swapped)
        return preference_metrics(self.validation, chosen, rejected) | {
            "validation/calibration_error": self._reliability.error,
            "validation/rewards/chosen": float(chosen.mean()),
            "validation/rewards/rejected": float(rejected.mean()),
        }

    def results(self, last: Row, step: int) -> dict[str, Any]:
        found = super().results(last, step)
        if (bins := self._reliability) is not None:
            found["facts"]["reliability"] = {
                "said": bins.said.tolist(), "came_true": bins.came_true.tolist(), "counts": bins.counts.tolist()
            }  # fmt: skip
        return found

    def export(self, state: dict[str, Tensor], folder: Path, record: RunRecord, *, finished: bool) -> None:
        with torch.device("meta"):
            model = ScalarModel(self.model.config)
        model.load_state_dict(module_weights(state, "model."), assign=True)
        hf.save_scalar(model, self.tokenizer, folder, card=self.card(record, finished=finished))

    def draw(self, history: list[Row], folder: Path, title: str) -> list[Path]:
        pictures = super().draw(history, folder, title)
        if self._reliability is not None:
            pictures.append(draw_reliability(self._reliability, folder / "calibration", title=title))
        return pictures


def preference_metrics(examples: Examples, chosen: NDArray[Any], rejected: NDArray[Any]) -> dict[str, float]:
    """Loss and accuracy over held-out pairs (equal rewards count half), and the accuracy of pairs whose wanted answer
    is the longer or the shorter one, and of each annotator's pairs."""
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


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return np.exp(-np.logaddexp(0.0, -x))
