"""DPO as a workload: the reference's log-probabilities are taken before the first step, the divergence from it is
measured on the policy's own answers."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor

from maquette.artifacts.files import atomic_file
from maquette.artifacts.progress import progress
from maquette.data.example_batches import PreferenceBatch, conversation_batches, preference_batches
from maquette.data.examples import Examples
from maquette.model import LanguageModel, hf
from maquette.model.loading import load_checkpoint
from maquette.objectives import DirectPreferenceOptimization
from maquette.objectives.config import PreferenceConfig
from maquette.objectives.sft import answer_log_probs
from maquette.training.assembly import prepare_optimization
from maquette.training.divergence import SampledAnswers, diverged
from maquette.training.examples import ExampleWorkload, gathered, in_parts
from maquette.training.record import RunRecord
from maquette.training.reward_training import preference_metrics
from maquette.training.supervised_training import language_model_of
from maquette.training.validation import judging, sum_over
from maquette.training.workload import Row

_SHOWN = 4


class PreferenceTraining(ExampleWorkload):
    """A policy learns from pairs; the reference is the checkpoint that it starts from."""

    examples_of_a_unit = 2
    curves = (
        ("loss", ("train/loss", "validation/loss")),
        ("implicit reward", ("rewards/chosen", "rewards/rejected", "rewards/margins")),
        ("KL from the reference (nats per answer)", ("objective/kl",)),
    )

    def _open(self) -> None:
        assert isinstance(self.plan.objective, PreferenceConfig) and self.job.checkpoint is not None
        self.settings, self.checkpoint = self.plan.objective, self.job.checkpoint
        self.model, _ = load_checkpoint(self.checkpoint, tokenizer_digest=self.tokenizer.digest)
        self.core = self.model.core
        self._reference = {
            "train": self._reference_log_probs("train", self.training),
            "validation": self._reference_log_probs("validation", self.validation),
        }
        self.objective = DirectPreferenceOptimization(self.model, prepare_optimization(self.job), self.settings)
        self._sampled: SampledAnswers | None = None

    def _reference_log_probs(self, split: str, examples: Examples) -> Tensor:
        """(2 n,) of every answer, by the model before its first step; kept in the run's folder, so that going on needs
        the reference no more."""
        identity = hashlib.sha256(f"{self.manifest.digest} {self.checkpoint} {split}".encode()).hexdigest()[:16]
        path = self.job.folder / f"reference-{split}-{identity}.npy"
        if not path.exists():
            found = self._computed(examples)
            if self.world.is_first:
                with atomic_file(path) as temporary, temporary.open("wb") as file:
                    np.save(file, found.numpy())
            return found
        return torch.from_numpy(np.load(path))

    def _computed(self, examples: Examples) -> Tensor:
        """The reference's log-probabilities as training computes the policy's: on its device and in its number format,
        so that implicit rewards begin at 0. Every process takes its share."""
        hardware = self.job.hardware
        shared = self.world.size > 1 and torch.distributed.is_initialized()
        rows = np.arange(self.world.rank, len(examples), self.world.size) if shared else np.arange(len(examples))
        if hardware.precision == "bf16-true":
            self.model.bfloat16()  # as Lightning does before the first step
        mixed = hardware.precision in ("bf16-mixed", "16-mixed")
        format_ = torch.autocast(hardware.device.type, hardware.compute_dtype) if mixed else contextlib.nullcontext()
        with format_:
            part = reference_log_probs(self.model.to(hardware.device), examples, rows)
        if not shared:
            return part
        part = part.to(hardware.device)
        torch.distributed.all_reduce(part)
        return part.cpu()

    def _make(self, indices: NDArray[np.int64], parts: int) -> Sequence[PreferenceBatch]:
        return preference_batches(self.training, indices, parts, self._reference["train"])

    def _validate(self, trainer: Trainer) -> dict[str, float]:
        size, whole = self.settings.batch_size, len(self.validation) // 2
        reference = self._reference["validation"]
        batches = [preference_batches(self.validation, group, 1, reference)[0] for group in in_parts(whole, size)]
        with judging(trainer):
            sums = sum_over(trainer, batches, lambda n, judged: gathered(n, size, whole, judged), 3 * whole)
        losses, chosen, rejected = sums.view(3, whole).numpy()
        return preference_metrics(self.validation, chosen, rejected) | {
            "validation/loss": float(losses.mean()),
            "validation/rewards/chosen": float(chosen.mean()),
            "validation/rewards/rejected": float(rejected.mean()),
        }

    def _sample(self, step: int) -> dict[str, float]:
        """The reference comes back for this, and leaves again."""
        prompts = self.prompts(self.settings.sample_prompts)
        if not prompts:
            return {}
        reference, _ = load_checkpoint(self.checkpoint)
        self._sampled = diverged(
            self.model, reference.to(self.model.head_weight), self.tokenizer, prompts,
            max_tokens=self.settings.max_completion_length, seed=self.job.seed,
        )  # fmt: skip
        return self._sampled.describe() if self._sampled.answers else {}

    def write_samples(self, step: int) -> list[Row]:
        answers = self._sampled.answers[:_SHOWN] if self._sampled is not None else []
        return [self.shown(answer, step) for answer in answers]

    def export(self, state: dict[str, Tensor], folder: Path, record: RunRecord, *, finished: bool) -> None:
        model = language_model_of(self.model, state)
        hf.save(model, self.tokenizer, folder, card=self.card(record, finished=finished))


@torch.no_grad()
def reference_log_probs(
    model: LanguageModel, examples: Examples, rows: NDArray[np.intp] | None = None, *, batch: int = 64
) -> Tensor:
    """(n,) log-probability of every example's answer under a model, without dropout; zero for those not in `rows`."""
    model.eval()
    device = model.head_weight.device
    found = torch.zeros(len(examples))
    wanted = np.arange(len(examples)) if rows is None else rows
    with progress("reference log-probabilities", len(wanted), unit="answers") as advance:
        # Rows of like length together: less padding.
        order = wanted[np.argsort(np.asarray(examples.lengths)[wanted], kind="stable")]
        for part in in_parts(len(order), batch):
            chosen = order[part]
            one = conversation_batches(examples, chosen, 1, packed=False)[0].to(device)
            found[torch.from_numpy(chosen)] = answer_log_probs(model, one)[0].float().cpu()
            advance(len(chosen))
    return found
