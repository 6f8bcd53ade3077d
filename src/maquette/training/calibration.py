"""How fast would this machine train it? A few real steps on random tokens, through the same Trainer as a run's.

Only the later half counts: the first steps allocate and warm up. What validation and checkpoints cost is not in it;
they are a few percent.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from maquette.data import TokenBatch
from maquette.model import LanguageModel
from maquette.objectives import Pretraining
from maquette.objectives.config import PretrainConfig
from maquette.training.devices import prepare_process
from maquette.training.job import Job, prepare_optimization
from maquette.training.trainer import quieten

_STEPS, _SECONDS = 200, 2.0
"""At most so many steps, and none begins after so many seconds."""

_SEQUENCES = 8
"""At most so many sequences a step: a larger batch takes in proportion longer."""


class _Noise:
    """Batches of random tokens. Not a list: Lightning would take each batch for a loader."""

    def __init__(self, shape: tuple[int, int], vocab_size: int) -> None:
        self._shape, self._vocabulary_size = shape, vocab_size

    def __len__(self) -> int:
        return _STEPS

    def __iter__(self) -> Iterator[TokenBatch]:
        numbers = torch.Generator().manual_seed(0)
        domains = torch.zeros(self._shape[0], dtype=torch.int64)
        for _ in range(_STEPS):
            yield TokenBatch(torch.randint(0, self._vocabulary_size, self._shape, generator=numbers), domains)


class _Clock(Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        self.ends.append(time.perf_counter())
        if len(self.ends) > 2 and self.ends[-1] - self.ends[0] > _SECONDS:
            trainer.should_stop = True


def measure_speed(job: Job) -> float:
    """Training tokens per second of a job's model on this machine, in one process and uncompiled."""
    prepare_process(job.hardware)
    context = job.spec.architecture.max_position_embeddings
    sequences = max(1, min(_SEQUENCES, job.spec.batch_size_tokens // context))
    batches = _Noise((sequences, context + 1), job.spec.architecture.vocab_size)
    model = LanguageModel(job.spec.architecture, seed=0)
    optimization = dataclasses.replace(prepare_optimization(job), batch_size_tokens=sequences * context)
    clock = _Clock()
    quieten()
    precision: Any = job.hardware.lightning_precision
    trainer = Trainer(
        accelerator="cpu" if job.hardware.accelerator == "cpu" else "gpu", devices=1,
        precision=precision, max_steps=_STEPS, callbacks=[clock], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        gradient_clip_val=1.0,
    )  # fmt: skip
    state = torch.get_rng_state()
    trainer.fit(Pretraining(model, optimization, PretrainConfig()), batches)
    torch.set_rng_state(state)
    gaps = [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]
    gaps = sorted(gaps[len(gaps) // 2 :])
    return sequences * context / gaps[len(gaps) // 2]
