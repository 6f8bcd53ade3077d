"""Where a step's time goes, with a clock that we wind ourselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from maquette.training.callbacks import RunContext, Throughput
from maquette.training.callbacks import throughput as module
from maquette.training.callbacks.throughput import Stopwatch
from maquette.training.processes import StopSignal
from support.list_logger import ListLogger

Clock = list[float]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_parts_of_a_step(clock: Clock) -> None:
    watch = Stopwatch(torch.device("cpu"))
    for number in range(3):
        clock[0] += 2  # until the batch comes
        watch.batch_came()
        clock[0] += 5 + number  # forward and backward
        watch.backward_done(last=False)
        clock[0] += 1
        watch.step_done(last=False)
        watch.batch_done()
        clock[0] += 100  # a pause
        watch.resume()
    measured = watch.take()
    assert (measured.steps, measured.data, measured.model, measured.optimizer) == (3, 2, 6, 1)
    assert measured.seconds == 9
    assert watch.take().steps == 0


def test_a_pause_within_a_step_is_left_out_too(clock: Clock) -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        clock[0] += 2
        watch.batch_came()
        clock[0] += 3
        watch.batch_done()
        clock[0] += 100
        watch.resume()
    watch.backward_done(last=False)
    watch.step_done(last=False)
    measured = watch.take()
    assert (measured.seconds, measured.data, measured.model, measured.optimizer) == (10, 4, 6, 0)


class Batches:
    """Batches, each of which takes two seconds to come."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.clock, self.count = clock, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(self.count):
            self.clock[0] += 2
            yield torch.ones(1)


class Winding(LightningModule):
    """Forward and backward take 5 s, the optimiser 1 s, a validation 100 s, and so does one before the first step."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.weight = torch.nn.Parameter(torch.ones(1))

    def on_train_start(self) -> None:
        self.clock[0] += 100

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.clock[0] += 5
        return (self.weight * batch).sum()

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
        optimizer.step(closure=closure)
        self.clock[0] += 1

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.clock[0] += 100

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Slow(Callback):
    """Comes after the others, and takes its time at each validation and each checkpoint: samples are written, say."""

    def __init__(self, clock: Clock, folder: Path) -> None:
        self.clock, self.folder = clock, folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock[0] += 1000

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % 3 == 0:
            trainer.save_checkpoint(self.folder / "any.ckpt")
            self.clock[0] += 1000


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_without_its_pauses(clock: Clock, tmp_path: Path, accumulate: int) -> None:
    throughput, logger = Throughput(), ListLogger()
    throughput.attach(
        RunContext(
            folder=Path("run"), steps=6, batch_size_tokens=480, flops_per_token=10.0, peak_flops=6000.0, validations=0,
            stop_signal=StopSignal(),
        )
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", max_steps=6, accumulate_grad_batches=accumulate, val_check_interval=2, log_every_n_steps=4,
        callbacks=[throughput, Slow(clock, tmp_path)], logger=[logger], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Winding(clock), Batches(clock, 6 * accumulate), [torch.ones(1)])
    rows = logger.having("speed/mfu")
    assert [row["step"] for row in rows] == [4, 6]
    data, compute = 2 * accumulate, 5 * accumulate
    seconds = data + compute + 1
    for row in rows:
        # Whether a batch is waited for right after a pause can't be told; that one counts as the pause.
        assert row["speed/optimizer_ms"] == 1000
        assert row["speed/model_ms"] == pytest.approx(1000 * compute)
        assert 0 <= row["speed/data_ms"] <= 1000 * data
        assert row["speed/step_ms"] == pytest.approx(row["speed/data_ms"] + 1000 * (compute + 1))
        assert 480 / seconds <= row["speed/tokens_per_second"] <= 480 / (seconds - data)
        assert row["speed/mfu"] == pytest.approx(row["speed/tokens_per_second"] * 10 / 6000)
    assert throughput.tokens_per_second == rows[-1]["speed/tokens_per_second"]


def test_a_run_without_pauses(clock: Clock) -> None:
    throughput, logger = Throughput(), ListLogger()
    throughput.attach(
        RunContext(
            folder=Path("run"), steps=4, batch_size_tokens=480, flops_per_token=10.0, peak_flops=6000.0, validations=0,
            stop_signal=StopSignal(),
        )
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", max_steps=4, max_epochs=2, log_every_n_steps=2, callbacks=[throughput], logger=[logger],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Winding(clock), Batches(clock, 2))  # two epochs: what comes between them is waiting
    expected = {
        "speed/tokens_per_second": 60.0, "speed/mfu": 0.1, "speed/step_ms": 8000.0, "speed/data_ms": 2000.0,
        "speed/model_ms": 5000.0, "speed/optimizer_ms": 1000.0,
    }  # fmt: skip
    assert logger.having("speed/mfu") == [{"step": 2} | expected, {"step": 4} | expected]
