"""A budget whose best size no model of the family has: the error names the budget, which was asked for."""

import pytest

from maquette.cli.planning.family import _out_of_reach
from maquette.model.config import ModelConfig
from maquette.recipe.shape import SizeError, choose_shape


def test_a_budget_whose_best_size_is_out_of_reach_is_named_as_it_was_asked_for() -> None:
    with pytest.raises(SizeError) as small:
        choose_shape(ModelConfig(), 10_000, vocab_size=50257, context=512)
    error = _out_of_reach("1e9", "10000", small.value)
    assert error.message.startswith("compute=1e9: by this law 10,000 parameters are the best for it, which can't be")
    assert "with a vocabulary of 50,257" in error.message and "size=10,000" not in error.message
    assert error.hint.startswith("Ask for more compute, or give a size in between as well: size=... compute=1e9")
    with pytest.raises(SizeError) as large:
        choose_shape(ModelConfig(), 10**15, vocab_size=1024, context=512)
    assert _out_of_reach("1e40", str(10**15), large.value).hint.startswith("Ask for less")
