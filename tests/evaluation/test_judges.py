"""Agreement and rank correlation of judges, and the aggregation over scenarios, by hand and against the libraries."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from maquette.artifacts import ConfigError
from maquette.evaluation import rank_agreement, score_models
from maquette.evaluation.judges import agreement


def test_kappa_by_hand_and_by_scikit_learn() -> None:
    """20 cases: both yes 10, both no 5, yes and no 2, no and yes 3; chance (.6 x .65 + .4 x .35)."""
    first = ["yes"] * 12 + ["no"] * 8
    second = ["yes"] * 10 + ["no"] * 2 + ["yes"] * 3 + ["no"] * 5
    result = agreement(first, second)
    assert (result.raw, result.by_chance) == pytest.approx((0.75, 0.53))
    assert result.corrected == pytest.approx((0.75 - 0.53) / 0.47)
    assert result.corrected == pytest.approx(cohen_kappa_score(first, second))


def test_missing_labels_and_one_label() -> None:
    assert agreement([1, None, 0, 1], [1, 1, None, 1]).cases == 2
    assert agreement(["a", "a"], ["a", "a"]).corrected == 0.0
    with pytest.raises(ConfigError, match="no case in common"):
        agreement([1, None], [None, 1])
    assert agreement([1, 0, 1], [1, 0, 1]).corrected == pytest.approx(1)
    assert agreement([1, 0, 1], [0, 1, 0]).raw == 0


def test_rank_agreement() -> None:
    cheap = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    trusted = {"a": 10.0, "b": 30.0, "c": 20.0, "d": 40.0}
    result = rank_agreement(cheap, trusted)
    assert result.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert result.kendall == pytest.approx((5 - 1) / 6)
    assert result.interval is None
    noise = np.random.default_rng(0)
    per_prompt = {name: value + noise.normal(size=200) for name, value in cheap.items()}
    sure = rank_agreement(per_prompt, per_prompt)
    assert sure.spearman == pytest.approx(1)
    assert sure.interval is not None and sure.interval.low == pytest.approx(1)
    with pytest.raises(ConfigError, match="Only one of the judges scored d"):
        rank_agreement(cheap, {"a": 1, "b": 2, "c": 3})
    with pytest.raises(ConfigError, match="no rank correlation"):
        rank_agreement({"a": 1, "b": 2}, {"a": 1, "b": 2})


def test_mean_win_rate_by_hand() -> None:
    """On x: a > b > c; on y: b > a = c; on z only a and b, equal."""
    scores = {
        "a": {"x": 0.9, "y": 0.2, "z": 0.5},
        "b": {"x": 0.5, "y": 0.8, "z": 0.5},
        "c": {"x": 0.1, "y": 0.2},
    }
    result = {row.model: row for row in score_models(scores)}
    assert result["a"].mean_win_rate == pytest.approx((1 + 0.25 + 0.5) / 3)
    assert result["b"].mean_win_rate == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert result["c"].mean_win_rate == pytest.approx((0 + 0.25) / 2)
    assert result["c"].mean_score == pytest.approx(0.15)
    assert [row.model for row in score_models(scores)] == ["b", "a", "c"]
    alone = score_models({"a": {"x": 1.0}})[0]
    assert np.isnan(alone.mean_win_rate) and alone.mean_score == 1
