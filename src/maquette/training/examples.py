"""A run of fine-tuning, of a reward model or of DPO: what objectives over a fixed set of examples have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.targets import has_key, import_target, node_value
from maquette.data.example_data import ExampleData, InstructionData, LabelledData, PreferenceData
from maquette.objectives.config import ExampleConfig
from maquette.objectives.preferences import ReferenceLogProbs
from maquette.text import Tokenizer
from maquette.training.job import Job, ObjectivePlan, Opened, Row, describe_run_model, prepare_optimization
from maquette.training.micro_batch import forward_passes, passes_that_fit, rows_that_fit, share_of
from maquette.training.report import draw_curves, draw_reliability

_DATA: dict[str, type[ExampleData]] = {
    "instructions": InstructionData, "preferences": PreferenceData, "labels": LabelledData,
}  # fmt: skip


@dataclass(frozen=True)
class ExamplePlan(ObjectivePlan):
    """Which examples, and the objective's settings. `folder`: an artifact with `train/` and `validation/`;
    `micro_batch_size`: examples (or pairs) of one forward pass, None for the most that fits."""

    folder: Path
    objective: ExampleConfig
    micro_batch_size: int | None = None

    def forward_passes(self, processes: int, accumulate: int | None) -> int | None:
        """Of a process in a step, if the settings say so. Raises `ConfigError` where the batch can't be shared so."""
        what = "examples of a process's step"
        return forward_passes(
            self._share(processes), what, micro_batch_size=self.micro_batch_size, accumulate=accumulate
        )

    def _share(self, processes: int) -> int:
        batch = self.objective.batch_size
        return share_of(batch, processes, f"objective.batch_size={batch}", "objective.batch_size")

    def _passes_that_fit(self, job: Job) -> int:
        """With every example as long as the longest: which ones meet in a step is up to the seed."""
        longest = read_manifest(self.folder).facts["train"]["longest"] * (2 if self.objective.entry.reads_pairs else 1)
        rows = rows_that_fit(job.spec.architecture.numbers_per_token, longest, job.hardware)
        share = self._share(job.hardware.data_parts)
        return passes_that_fit(share, max(1, min(rows, share // job.hardware.min_passes)))

    def open(self, job: Job, tokenizer: Tokenizer) -> Opened:
        assert job.spec.checkpoint is not None
        accumulate = self.forward_passes(job.hardware.data_parts, job.trainer.accumulate_grad_batches)
        accumulate = accumulate or self._passes_that_fit(job)
        common: dict[str, Any] = {
            "batch_size": self.objective.batch_size, "micro_batches": accumulate, "steps": job.spec.steps,
            "seed": job.spec.seed, "batch_size_tokens": job.spec.batch_size_tokens,
        }  # fmt: skip
        entry = self.objective.entry
        if has_key(self.objective, "packing"):
            common["packing"] = node_value(self.objective, "packing")
        if entry.has_reference and getattr(self.objective, "has_reference", True):
            common["reference"] = ReferenceLogProbs(job.spec.checkpoint, job.folder, read_manifest(self.folder).digest)
        data: ExampleData = _DATA[entry.reads](self.folder, tokenizer, **common)
        module = import_target(self.objective._target_)(
            describe_run_model(job, tokenizer.digest), prepare_optimization(job), self.objective
        )
        return Opened(module, data, accumulate)

    def results(self, opened: Opened, last: Row, step: int) -> dict[str, Any]:
        data: Any = opened.data
        facts = data.manifest.facts | {"epochs": data.epochs(step)}
        if (bins := getattr(opened.module, "reliability", None)) is not None:
            facts["reliability"] = {
                "predicted": bins.predicted.tolist(), "observed": bins.observed.tolist(), "counts": bins.counts.tolist()
            }  # fmt: skip
        return {"facts": facts}

    def draw(self, opened: Opened, history: list[Row], folder: Path, title: str) -> list[Path]:
        pictures = [draw_curves(history, self.objective.entry.curves, folder / "curves", title=title)]
        if (bins := getattr(opened.module, "reliability", None)) is not None:
            pictures.append(draw_reliability(bins, folder / "calibration", title=title))
        return pictures
