"""Learning rate schedules, against values computed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.artifacts import ConfigError
from maquette.optimization import Schedule, build_schedule
from maquette.optimization.config import (
    SCHEDULERS,
    ConstantSchedulerConfig,
    CosineSchedulerConfig,
    LinearSchedulerConfig,
    WSDSchedulerConfig,
)


def test_linear_rises_then_falls_to_zero() -> None:
    schedule = build_schedule(LinearSchedulerConfig(), total=1000, warmup=0.1)
    assert [schedule.factor(t) for t in (0, 50, 100, 550, 1000)] == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_cosine_with_a_floor() -> None:
    schedule = build_schedule(CosineSchedulerConfig(final=0.1), total=1000, warmup=0.2)
    assert schedule.factor(600) == pytest.approx(0.55)
    assert schedule.factor(400) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.factor(1000) == pytest.approx(0.1)


@pytest.mark.parametrize(("shape", "quarter"), [("linear", 0.75), ("sqrt", 0.5), ("cosine", (1 + math.sqrt(0.5)) / 2)])
def test_wsd_decay_shapes(shape: str, quarter: float) -> None:
    schedule = build_schedule(WSDSchedulerConfig(decay=0.4, decay_shape=shape), total=1000, warmup=0.1)
    assert schedule.factor(100) == schedule.factor(350) == schedule.factor(600) == 1.0
    assert schedule.factor(700) == pytest.approx(quarter)
    assert schedule.factor(1000) == pytest.approx(0.0)


def test_constant_stays() -> None:
    schedule = build_schedule(ConstantSchedulerConfig(), total=1000, warmup=0.1)
    assert schedule.factor(50) == 0.5
    assert schedule.factor(1000) == 1.0


def test_the_rate_of_a_step_is_that_of_its_middle_token() -> None:
    schedule = Schedule(total=100, warmup=20, stable=0)
    assert [schedule.step_factor(step, 10) for step in (0, 1, 2, 9)] == [0.25, 0.75, 1 - 5 / 80, 1 - 75 / 80]


def test_no_warm_up() -> None:
    assert Schedule(total=100, warmup=0, stable=0).factor(0) == 1.0


def test_overlapping_warm_up_and_decay_are_refused() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        build_schedule(WSDSchedulerConfig(decay=0.6), total=1000, warmup=0.5)


@given(
    kind=st.sampled_from(["linear", "cosine", "wsd", "constant"]),
    total=st.integers(10, 10**13),
    warmup=st.floats(0, 0.5),
    final=st.floats(0, 1),
    place=st.floats(0, 1.2),
)
def test_always_between_zero_and_the_peak(kind: str, total: int, warmup: float, final: float, place: float) -> None:
    node = SCHEDULERS[kind]() if kind == "constant" else SCHEDULERS[kind](final=final)  # type: ignore[call-arg]
    schedule = build_schedule(node, total, warmup)
    assert -1e-12 <= schedule.factor(place * total) <= 1.0
