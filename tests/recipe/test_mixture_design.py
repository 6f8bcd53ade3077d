"""Which mixtures a sweep tries."""

import pytest

from maquette.artifacts.errors import ConfigError
from maquette.recipe.sweeps import mixture_design

TOKENS = {"code": 6_000_000, "docs": 3_000_000, "legal": 100_000, "none": 0}


def test_a_design_has_the_mixtures_to_beat_and_bounds_epochs() -> None:
    design = mixture_design(TOKENS, 20, budget=1_000_000)
    assert len(design) == 22
    assert design[0] == pytest.approx({"code": 1 / 3, "docs": 1 / 3, "legal": 1 / 3}, abs=1e-3)
    assert design[1]["code"] == pytest.approx(6 / 9.1, abs=1e-3)
    for row in design:
        assert sum(row.values()) == pytest.approx(1)
        assert min(row.values()) >= 0
    for row in design[2:]:
        assert row["legal"] <= 4 * 100_000 / 1_000_000 + 1e-3
    assert max(row["legal"] for row in design[2:]) > 0.3  # and reach what they may
    assert mixture_design(TOKENS, 20, budget=1_000_000) == design


def test_one_domain_has_no_mixtures() -> None:
    with pytest.raises(ConfigError, match="two domains"):
        mixture_design({"a": 100, "b": 0}, 3, budget=10)
