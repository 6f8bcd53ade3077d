"""The guard: not a number stops, a leap is reported, and both name the step and its text."""

import math

import pytest

from maquette.artifacts import StageError
from maquette.training.callbacks.loss_spike import LossGuard


def guard(said: list[str]) -> LossGuard:
    return LossGuard(3.0, lambda step: f"documents of {step}", said.append)


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


def test_reports_a_leap_and_goes_on() -> None:
    said: list[str] = []
    watch = guard(said)
    for step in range(1, 51):
        watch.check(step, 2.0)
    watch.check(51, 6.5)
    watch.check(52, 2.0)
    assert watch.spikes == 1
    assert said == ["step 51: the loss leapt to 6.500 from 2.000 on average. Its batch: documents of 51"]


@pytest.mark.parametrize("factor", [3.0, math.inf])
def test_losses_about_zero_do_not_leap(factor: float) -> None:
    said: list[str] = []
    watch = LossGuard(factor, str, said.append)
    for step in range(1, 60):
        watch.check(step, -0.02 + 0.01 * (step % 3))
    assert not said and watch.spikes == 0


def test_the_first_steps_may_leap() -> None:
    said: list[str] = []
    watch = guard(said)
    for step, loss in enumerate([0.1, 5.0, 0.1, 9.0], 1):
        watch.check(step, loss)
    assert not said


def test_state_survives() -> None:
    first, second = guard([]), guard([])
    for step in range(1, 40):
        first.check(step, 2.0 + step % 3)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
