"""IsoFLOP curves: around the expected best size, shared between budgets, inside the family's reach."""

import math

import pytest

from maquette.artifacts import ConfigError
from maquette.model.config import ModelConfig
from maquette.recipe.pretraining import resolve
from maquette.recipe.sweeps import Curve, isoflop_curve


def curve(budget: float, **changes: object) -> Curve:
    settings: dict[str, object] = {
        "count": 5, "ratio": 1.5, "tokens_per_parameter": 20.0, "model": ModelConfig(), "vocab_size": 1024,
        "context": 128,
    }  # fmt: skip
    return isoflop_curve(budget, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [1e11, 3e11, 1e12, 3e12, 1e13, 1e15])
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_sizes_stand_around_the_expected_one(budget: float, kind: str) -> None:
    result = curve(budget, model=ModelConfig(kind=kind))
    middle = math.exp(sum(map(math.log, result.sizes)) / 5)
    assert not result.warning
    assert abs(math.log(middle / result.expected)) < 0.55 * math.log(1.5)
    ratios = [large / small for small, large in zip(result.sizes, result.sizes[1:], strict=False)]
    assert ratios == pytest.approx([1.5] * 4, rel=0.01)
    # The size expected to be best is the one that the budget trains on 20 tokens a parameter.
    recipe = resolve(
        size=result.expected, compute=budget, vocab_size=1024, sequence_length=128, model=ModelConfig(kind=kind)
    )
    assert recipe.tokens / recipe.size == pytest.approx(20, rel=0.25)  # depth comes in steps


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_every_size_is_met_and_none_twice(kind: str) -> None:
    model = ModelConfig(kind=kind)
    for budget in (1e11, 1e12, 1e13):
        recipes = [
            resolve(size=size, compute=budget, vocab_size=1024, sequence_length=128, model=model)
            for size in curve(budget, model=model).sizes
        ]
        assert [recipe.size for recipe in recipes] == pytest.approx(list(curve(budget, model=model).sizes), rel=0.06)
        assert len({recipe.architecture for recipe in recipes}) == 5
        assert all(recipe.architecture.num_hidden_layers >= 2 for recipe in recipes)
        assert [recipe.compute for recipe in recipes] == pytest.approx([budget] * 5, rel=0.01)


def test_neighbouring_budgets_share_sizes() -> None:
    shared = set(curve(1e12).sizes) & set(curve(3e12).sizes)
    assert len(shared) >= 3


def test_more_tokens_a_parameter_means_smaller_models() -> None:
    assert curve(1e13, tokens_per_parameter=80.0).expected < 0.6 * curve(1e13).expected


def test_unless_told_sizes_stand_where_the_least_loss_was_found() -> None:
    """Some ten tokens a parameter for the smallest budgets, some twenty at 1e13 FLOPs."""
    for budget, ratio in ((1e11, 12.0), (1e13, 19.0)):
        expected = curve(budget, tokens_per_parameter=None).expected
        assert expected == pytest.approx(curve(budget, tokens_per_parameter=ratio).expected, rel=0.01)


def test_below_the_family_the_curve_leans_and_says_so() -> None:
    result = curve(1e10, vocab_size=4096)
    assert "the family begins at 34,288: the curve leans to the right" in result.warning
    assert min(result.sizes) > 0.95 * 34_288


def test_a_fixed_shape_is_no_family() -> None:
    with pytest.raises(ConfigError, match="the model's shape is fixed"):
        curve(1e11, model=ModelConfig(hidden_size=32, num_hidden_layers=2))
