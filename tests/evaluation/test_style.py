"""Style covariates: counted by hand, and ratings at equal style."""

import numpy as np
import pytest
from scipy.special import expit

from maquette.artifacts import ConfigError
from maquette.evaluation import bradley_terry_ratings, style_covariates
from maquette.evaluation.arena import style


def test_counts_by_hand() -> None:
    text = "# Head\n\nSome **bold** and __more__.\n\n- one\n- two\n  1. three\n\n## Next\nnot a # heading - nor an item"
    assert style(text) == {"length": len(text), "lists": 3, "headings": 2, "bold": 2}


def test_covariates_change_sign_with_the_roles() -> None:
    longer, shorter = ["aaaa", "- x", "b"], ["aa", "cccc", "b"]
    result = style_covariates(longer, shorter)
    assert set(result) == {"length", "lists"}
    other = style_covariates(shorter, longer)
    assert np.allclose(result["length"], -other["length"])
    assert np.mean(result["length"] ** 2) == pytest.approx(1)
    with pytest.raises(ConfigError, match="2 winning and 1"):
        style_covariates(["a", "b"], ["a"])


def test_a_verbose_twin_is_as_good_at_equal_style() -> None:
    """Two models of one quality, one verbose; the judge likes length. At equal style they are equal again."""
    generator = np.random.default_rng(0)
    lengths = {"brief": generator.integers(20, 120, 3000), "verbose": generator.integers(60, 260, 3000)}
    gap = (lengths["verbose"] - lengths["brief"]) / (lengths["verbose"] + lengths["brief"])
    won = generator.random(3000) < expit(1.5 * gap)
    names = np.where(won, "verbose", "brief"), np.where(won, "brief", "verbose")
    texts = [["x" * lengths[name][i] for i, name in enumerate(side)] for side in names]
    raw = bradley_terry_ratings(*names)
    equal = bradley_terry_ratings(*names, covariates=style_covariates(*texts))
    assert raw.strengths["verbose"] - raw.strengths["brief"] > 0.4
    assert abs(equal.strengths["verbose"] - equal.strengths["brief"]) < 0.2
    assert equal.coefficient_intervals["length"].low > 0
