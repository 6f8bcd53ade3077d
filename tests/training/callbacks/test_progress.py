"""Lines for people without a terminal, a bar for those with one, and how long things take in words."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from maquette.artifacts.progress import report_to
from maquette.training.callbacks import Progress, RunContext, Throughput
from maquette.training.callbacks import progress as module
from maquette.training.callbacks.progress import duration
from maquette.training.processes import StopSignal


class Run:
    """A run whose steps a test takes itself; `trainer` has what a Trainer tells its callbacks."""

    def __init__(self, steps: int, *, first_step: int = 0, accumulate: int = 1, first_process: bool = True) -> None:
        self.throughput, self.progress = Throughput(), Progress()
        self.trainer: Any = SimpleNamespace(
            global_step=first_step, max_steps=steps, is_global_zero=first_process, accumulate_grad_batches=accumulate,
            callbacks=[self.throughput, self.progress], callback_metrics={},
        )  # fmt: skip
        self.module: Any = None
        self.progress.attach(
            RunContext(
                folder=Path("run"), steps=steps, batch_size_tokens=512, flops_per_token=1.0, peak_flops=1.0,
                validations=1, stop_signal=StopSignal(),
            )
        )  # fmt: skip
        self.progress.on_train_start(self.trainer, self.module)

    def batch(self, loss: float | None, *, ends_step: bool = True) -> None:
        """A micro-batch, whose loss Lightning has divided by their number."""
        self.trainer.global_step += ends_step
        outputs = None if loss is None else {"loss": torch.tensor(loss / self.trainer.accumulate_grad_batches)}
        self.progress.on_train_batch_end(self.trainer, self.module, outputs, None, 0)

    def validated(self, loss: float) -> None:
        self.trainer.callback_metrics["validation/loss"] = torch.tensor(loss)
        self.progress.on_validation_end(self.trainer, self.module)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(module, "say", messages.append)
    return messages


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (41.6, "42 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_now_and_then(now: list[float], lines: list[str]) -> None:
    run = Run(1000, first_step=500)
    for step in range(501, 651):
        now[0] += 0.25
        if step == 600:
            run.validated(4.5)
        run.throughput.tokens_per_second = 0.0 if step < 570 else 2048.0
        run.batch(5.0)
    assert lines == [
        "run: step 560 of 1,000 (56%), loss 5.000, 1 min 50 s left",  # by the clock, until the speed is known
        "run: step 620 of 1,000 (62%), loss 5.000 (validation 4.500), 2,048 tokens/s, 1 min 35 s left",
    ]


def test_the_loss_of_a_step_is_the_mean_of_its_micro_batches(now: list[float], lines: list[str]) -> None:
    run = Run(10, accumulate=2)
    for _ in range(2):
        now[0] += 20
        run.batch(3.0, ends_step=False)
        run.batch(5.0)
    assert lines == ["run: step 1 of 10 (10%), loss 4.000", "run: step 2 of 10 (20%), loss 4.000, 2 min 40 s left"]


def test_a_step_that_is_left_out_has_no_loss(now: list[float], lines: list[str]) -> None:
    run = Run(10)
    now[0] += 20
    run.throughput.tokens_per_second = 512.0
    run.batch(None)
    assert lines == ["run: step 1 of 10 (10%), 512 tokens/s, 9 s left"]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(module, "console", screen)
    run = Run(10)
    run.trainer.global_step = 4
    run.throughput.tokens_per_second = 1000.0
    run.batch(2.5)
    run.progress.teardown(run.trainer, run.module, "fit")
    assert "loss 2.500" in screen.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", ["teardown", "exception"])
def test_the_bar_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(module, "console", screen)
    run = Run(10)
    run.batch(2.5)
    bar = run.progress._bar
    assert bar is not None and bar.live.is_started
    if end == "teardown":
        run.progress.teardown(run.trainer, run.module, "fit")
    else:
        run.progress.on_exception(run.trainer, run.module, KeyboardInterrupt())
    assert not bar.live.is_started


def test_other_processes_are_silent(now: list[float], lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(module, "console", screen)
    run = Run(10, first_process=False)
    for _ in range(10):
        now[0] += 100
        run.batch(2.5)
    assert not lines and not screen.file.getvalue()  # type: ignore[attr-defined]


def test_somebody_who_shows_many_runs_is_told_instead(now: list[float], lines: list[str]) -> None:
    heard: list[tuple[int, int]] = []
    with report_to(lambda step, steps: heard.append((step, steps))):
        run = Run(40, first_step=10)
        for _ in range(30):
            now[0] += 0.1
            run.batch(2.5)
    assert (heard[0], heard[-1]) == ((10, 40), (40, 40))
    assert 5 <= len(heard) <= 9 and not lines
