"""Signals that warn before gold falls: on curves whose fall and whose warnings are known."""

from typing import Any

import numpy as np
import pytest

from maquette.feedback.building import disagreement
from maquette.feedback.early_warning import (
    SIGNALS,
    WatchedRun,
    first_warning,
    turning_point,
    warning_quality,
    warning_signals,
    watched_runs,
)
from maquette.feedback.study.figures import draw_signals

RISING = np.linspace(0.4, 0.6, 12)
FALLING = np.concatenate([np.linspace(0.4, 0.6, 6), np.linspace(0.5, 0.2, 6)])


@pytest.mark.parametrize(("gold", "place"), [
    (RISING, None), (FALLING, 6), ([0.5, 0.2, 0.5, 0.51], None), ([0.5, 0.2, 0.5, 0.4, 0.3], 3), ([0.5, 0.45], None),
    ([], None),
])  # fmt: skip
def test_where_gold_falls(gold: Any, place: int | None) -> None:
    assert turning_point(gold) == place


def test_signals_are_alarming_in_one_direction() -> None:
    signals = warning_signals({
        "objective/kl": [0.0, 1.0, 2.0, 5.0], "objective/entropy": [8.0, 8.0, 6.0, 4.0],
        "completions/mean_length": [4.0, 4.0, 3.0, 6.0], "val/explained_variance": [0.9, 0.9, 0.5, -1.0],
        "validation/disagreement": [0.1, 0.1, 0.3, 0.4],
    })  # fmt: skip
    assert signals["KL acceleration"].tolist() == [0, 0, 0, 2]
    assert signals["entropy"] == pytest.approx([0, 0, 0, 2 / 3])  # 2 nats a token, at last 2/3
    assert signals["length"].tolist() == [0, 0, 0.25, 0.5]
    assert signals["value error"] == pytest.approx([0.1, 0.1, 0.5, 2.0])
    assert signals["disagreement"] == pytest.approx([0, 0, 0.2, 0.3])
    assert "learned reward" not in signals
    assert (first_warning(signals["entropy"], 0.3), first_warning(signals["entropy"], 0.7)) == (3, None)
    assert first_warning([np.nan, 1.0], 0.5) == 1


def run(seed: int, gold: np.ndarray, **signals: Any) -> WatchedRun:
    return WatchedRun(seed, "ppo", gold, {name.replace("_", " "): np.asarray(row, float)
                                          for name, row in signals.items()})  # fmt: skip


def test_a_signal_that_warns_and_one_that_does_not() -> None:
    """`entropy` rises three iterations before gold falls, and never in a calm run; `length` in every run alike."""
    early, flat = np.where(np.arange(12) >= 3, 1.0, 0.0), np.zeros(12)
    runs = []
    for seed in range(4):
        noise = np.linspace(0, 1 + 0.1 * seed, 12)
        runs += [run(seed, RISING, entropy=flat, length=noise), run(seed, FALLING, entropy=early, length=noise)]
    quality = {one.signal: one for one in warning_quality(runs)}
    assert list(quality) == ["entropy", "length"]
    entropy, length = quality["entropy"], quality["length"]
    assert entropy.caught is not None and entropy.false is not None and length.false is not None
    assert (entropy.caught.value, entropy.false.value, entropy.lead) == (1.0, 0.0, 3.0)
    assert (entropy.falling, entropy.calm) == (4, 4) and entropy.caught.low < 0.7 < entropy.caught.high
    assert length.false.value == 0.25  # of each seed against the others' highest: only the last one's is above
    assert length.caught is not None and length.caught.value == 0.0 and length.lead is None


def test_a_warning_after_the_fall_is_none() -> None:
    late = np.where(np.arange(12) >= 8, 1.0, 0.0)
    runs = [run(0, RISING, entropy=np.zeros(12)), run(1, FALLING, entropy=late)]
    (quality,) = warning_quality(runs)
    assert quality.caught is not None and quality.caught.value == 0.0
    assert quality.false is None and quality.calm == 0  # there is no other seed to take the threshold from
    assert warning_quality([]) == []


def test_chance_is_called_chance() -> None:
    """Signals of noise: with four other calm runs a fifth has the highest value one time in five."""
    numbers = np.random.default_rng(0)
    rates = []
    for _ in range(100):
        runs = [run(seed, RISING, entropy=numbers.normal(size=12)) for seed in range(5)]
        (quality,) = warning_quality(runs)
        assert quality.false is not None
        rates.append(quality.false.value)
    assert np.mean(rates) == pytest.approx(0.2)


def test_runs_are_read_from_rows_of_validations() -> None:
    rows = [
        {"seed": 1, "policy": "ppo", "step": step, "gold": 0.5, "objective/kl": None if step == 0 else step,
         "objective/entropy": 2.0, "val/explained_variance": None, "validation/disagreement": float("nan")}
        for step in (8, 0, 4, 12)
    ]  # fmt: skip
    (one,) = watched_runs(rows)
    assert (one.seed, one.policy, one.falls, len(one.gold)) == (1, "ppo", None, 3)
    assert set(one.signals) == {"KL acceleration", "entropy"} <= set(SIGNALS)


def test_reward_models_that_differ_by_level_and_scale_agree() -> None:
    reference = np.array([0.0, 1.0, 2.0])
    scores = np.array([1.0, 3.0, 5.0])
    same = {"reward": scores, "other": 10 * scores - 7}
    level = {"reward": reference, "other": 10 * reference - 7}
    assert disagreement(same, level, list(same)) == pytest.approx(0.0, abs=1e-9)
    opposed = {"reward": scores, "other": -scores}
    between = disagreement(opposed, {"reward": reference, "other": -reference}, list(opposed))
    deviation = reference.std()
    assert between == pytest.approx(np.mean(np.abs(scores - 1.0)) / deviation)


def test_a_signal_has_one_colour_in_all_panels_and_the_legend_has_every_signal() -> None:
    row = np.linspace(0.0, 1.0, len(FALLING))
    first = WatchedRun(0, "ppo", FALLING, {"entropy": row, "value error": row, "length": row})
    second = WatchedRun(0, "group", FALLING, {"entropy": row, "length": row})
    panels = draw_signals([first, second]).axes
    colors = [[line.get_color() for line in panel.lines] for panel in panels]
    (gold, entropy, error, length, fall), others = colors
    assert others == [gold, entropy, length, fall] and len({entropy, error, length}) == 3
    legend = panels[-1].get_legend()
    assert legend is not None
    named = {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.get_lines(), strict=True)}
    assert named == {"gold reward": gold, "entropy": entropy, "value error": error, "length": length}
