"""The guard: NaN stops, a spike is reported, and both name the step and its text."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from maquette.artifacts import StageError
from maquette.training.callbacks import LossSpikeGuard, RunContext
from maquette.training.callbacks import loss_spike as module
from maquette.training.callbacks.loss_spike import LossGuard
from maquette.training.processes import StopSignal


def guard(messages: list[str]) -> LossGuard:
    return LossGuard(3.0, lambda step: f"documents of {step}", messages.append)


@pytest.mark.parametrize(
    ("loss", "norm", "named"), [(math.nan, 1.0, "loss"), (math.inf, None, "loss"), (2.0, math.nan, "norm")]
)
def test_stops_where_numbers_end(loss: float, norm: float | None, named: str) -> None:
    with pytest.raises(StageError, match=rf"{named} of step 1,234 is (nan|inf)\. Its batch: documents of 1234"):
        guard([]).check(1234, loss, norm)


def test_a_scaled_gradient_may_overflow_now_and_then_but_not_for_ever() -> None:
    watch = LossGuard(3.0, str, print, scaled=True)
    for step in range(1, 100):
        watch.check(step, 2.0, math.inf if step % 10 < 9 else 1.0)
    with pytest.raises(StageError, match="norm of step 119 is inf"):
        for step in range(100, 200):
            watch.check(step, 2.0, math.inf)
    with pytest.raises(StageError, match="the loss of step 1 is nan"):
        LossGuard(3.0, str, print, scaled=True).check(1, math.nan, 1.0)


def test_reports_a_spike_and_continues() -> None:
    messages: list[str] = []
    watch = guard(messages)
    for step in range(1, 51):
        watch.check(step, 2.0)
    watch.check(51, 6.5)
    watch.check(52, 2.0)
    assert watch.spikes == 1
    assert messages == ["loss spike at step 51: 6.500 (running mean 2.000). Its batch: documents of 51"]


@pytest.mark.parametrize("factor", [3.0, math.inf])
def test_losses_about_zero_are_no_spikes(factor: float) -> None:
    messages: list[str] = []
    watch = LossGuard(factor, str, messages.append)
    for step in range(1, 60):
        watch.check(step, -0.02 + 0.01 * (step % 3))
    assert not messages and watch.spikes == 0


def test_the_first_steps_may_spike() -> None:
    messages: list[str] = []
    watch = guard(messages)
    for step, loss in enumerate([0.1, 5.0, 0.1, 9.0], 1):
        watch.check(step, loss)
    assert not messages


def test_state_survives() -> None:
    first, second = guard([]), guard([])
    for step in range(1, 40):
        first.check(step, 2.0 + step % 3)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()


# The callback --------------------------------------------------------------------------------------------------------


class GivenLosses(LightningModule):
    """Its losses are the batches."""

    def __init__(self, *, watches_spikes: bool = True) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.watches_spikes = watches_spikes

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return batch.mean() + 0.0 * self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(losses: Sequence[float], *, accumulate: int = 1, watches_spikes: bool = True) -> LossSpikeGuard:
    """Trains on the losses, micro-batch by micro-batch."""
    spikes = LossSpikeGuard()
    spikes.attach(
        RunContext(
            folder=Path("run"), steps=len(losses), batch_size_tokens=1, flops_per_token=1.0, peak_flops=1.0,
            validations=0, stop_signal=StopSignal(),
        )
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, accumulate_grad_batches=accumulate, callbacks=[spikes], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(losses, batch_size=1)  # type: ignore[arg-type,var-annotated]
    trainer.fit(GivenLosses(watches_spikes=watches_spikes), loader)
    return spikes


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(module, "say", messages.append)
    return messages


def test_a_run_is_stopped_with_the_place_in_its_data() -> None:
    with pytest.raises(StageError, match=r"the loss of step 3 is nan\. Its batch: batch 3 of the loader"):
        run([2.0, 2.0, 2.0, 2.0, 2.0, math.nan], accumulate=2)


def test_a_step_is_the_mean_of_its_micro_batches(lines: list[str]) -> None:
    steady = [1.0, 3.0] * 30
    assert run([*steady, 1.0, 8.0, *steady], accumulate=2).spikes == 0  # 4.5 is less than three times 2
    result = run([*steady, 1.0, 15.0, *steady], accumulate=2)
    assert result.spikes == 1
    assert len(lines) == 1 and lines[0].startswith("run: loss spike at step 31: 8.000 (running mean 2.000)")


def test_other_processes_are_silent(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [2.0] * 30 + [20.0]
    assert run(losses).spikes == 1 and len(lines) == 1
    monkeypatch.setattr(Trainer, "is_global_zero", property(lambda self: False))
    assert run(losses).spikes == 1 and len(lines) == 1
    with pytest.raises(StageError, match="loss of step 2 is nan"):  # but none goes on alone
        run([2.0, math.nan])


def test_some_objectives_have_no_usual_loss(lines: list[str]) -> None:
    assert run([2.0] * 30 + [20.0], watches_spikes=False).spikes == 0 and not lines
    with pytest.raises(StageError, match="loss of step 2 is inf"):
        run([2.0, math.inf], watches_spikes=False)


def test_the_callbacks_state_survives() -> None:
    first, second = run([2.0] * 30 + [20.0]), LossSpikeGuard()
    second.load_state_dict(first.state_dict())
    second.attach(first.run)  # type: ignore[arg-type]
    second.on_train_start(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), GivenLosses())
    assert second.state_dict() == first.state_dict() and second.spikes == 1
