"""The family of shapes: near the size asked for, homogeneous, monotone, and respecting what is fixed."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.artifacts import ConfigError
from maquette.model.architecture import TransformerConfig
from maquette.model.config import ModelConfig
from maquette.model.core_config import count_parameters
from maquette.recipe.shape import choose_shape


def shape(size: float, *, vocab_size: int = 1024, **model: object) -> TransformerConfig:
    chosen = choose_shape(ModelConfig(**model), round(size), vocab_size=vocab_size, context=128)  # type: ignore[arg-type]
    assert isinstance(chosen, TransformerConfig)
    return chosen


def parameters(config: TransformerConfig) -> int:
    count = count_parameters(config)
    return count.core + count.head


@pytest.mark.parametrize(
    ("size", "width", "layers"),
    [("23k", 16, 2), ("38k", 24, 2), ("56k", 32, 2), ("132k", 48, 3), ("216k", 64, 3), ("384k", 80, 4)],
)
def test_the_prototypes_family(size: str, width: int, layers: int) -> None:
    chosen = shape(float(size[:-1]) * 1000)
    assert (chosen.hidden_size, chosen.num_hidden_layers) == (width, layers)


@settings(max_examples=60, deadline=None)
@given(exponent=st.floats(4.7, 11))
def test_near_what_was_asked_for(exponent: float) -> None:
    chosen = shape(10**exponent)
    assert parameters(chosen) == pytest.approx(10**exponent, rel=0.08)  # most within 5%; a step in depth leaves gaps
    assert chosen.num_hidden_layers >= 2
    assert chosen.hidden_size % chosen.num_attention_heads == 0
    assert 16 <= chosen.width_of_head <= (64 if chosen.hidden_size < 2048 else 128) and chosen.width_of_head % 2 == 0
    assert 8 / 3 / 1.4 < chosen.inner_width / chosen.hidden_size < 8 / 3 * 1.4


def test_ten_thousand_parameters() -> None:
    assert parameters(shape(10_000)) == pytest.approx(10_000, rel=0.05)


def test_more_is_never_smaller() -> None:
    family = [shape(10 ** (4 + 0.01 * step)) for step in range(500)]
    for small, large in itertools.pairwise(family):
        assert small.hidden_size <= large.hidden_size
        assert small.num_hidden_layers <= large.num_hidden_layers
        assert parameters(small) <= parameters(large)


def test_what_is_fixed_stays() -> None:
    chosen = shape(
        1e6,
        hidden_size=96,
        num_attention_heads=3,
        num_key_value_heads=1,
        intermediate_size=200,
        tie_word_embeddings=True,
        activation="gelu",
    )
    assert (chosen.hidden_size, chosen.num_attention_heads, chosen.key_value_heads, chosen.inner_width) == (
        96,
        3,
        1,
        200,
    )
    assert (chosen.tie_word_embeddings, chosen.activation) == (True, "gelu")
    exact = shape(5, hidden_size=20, num_hidden_layers=7)
    assert (exact.hidden_size, exact.num_hidden_layers) == (20, 7)


def test_width_against_depth_at_one_size() -> None:
    """The `shape` sweep: either number fixed, the other follows, and N stays."""
    for layers in (1, 2, 4, 8, 16):
        chosen = shape(1e6, num_hidden_layers=layers)
        assert chosen.num_hidden_layers == layers
        assert parameters(chosen) == pytest.approx(1e6, rel=0.05)
    depths = [shape(1e6, hidden_size=width).num_hidden_layers for width in (64, 96, 128, 192)]
    assert depths == sorted(depths, reverse=True)


def test_grouped_queries_divide() -> None:
    for size in (1e5, 1e6, 1e7):
        chosen = shape(size, num_key_value_heads=2)
        assert chosen.num_attention_heads % 2 == 0
        assert parameters(chosen) == pytest.approx(size, rel=0.06)


def test_wide_heads() -> None:
    assert shape(1e7, head_dim=128).width_of_head == 128


@pytest.mark.parametrize(
    ("size", "chosen"),
    [
        (3e5, (72, 4, 4, 4, 164)),
        (1e6, (120, 5, 6, 6, 328)),
        (1e7, (320, 8, 10, 10, 832)),
        (1.24e8, (832, 14, 13, 13, 2432)),
        (4e8, (1280, 18, 20, 20, 4032)),
        (9e8, (1920, 22, 30, 30, 4544)),
    ],
)
def test_below_two_thousand_channels_nothing_is_grouped(size: float, chosen: tuple[int, ...]) -> None:
    """As the laws and studies had these models before wide ones got wide heads."""
    config = shape(size)
    assert chosen == (
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.key_value_heads,
        config.inner_width,
    )


@settings(max_examples=20, deadline=None)
@given(exponent=st.floats(9.1, 11))
def test_wide_models_have_wide_heads_that_share_keys_and_values(exponent: float) -> None:
    config = shape(10**exponent)
    assert config.width_of_head == 128 and config.num_attention_heads == 4 * config.key_value_heads
    assert config.hidden_size == 128 * config.num_attention_heads


def test_what_groups_do_not_go_with_is_not_grouped() -> None:
    wide = {"hidden_size": 2048, "num_hidden_layers": 1}
    assert shape(1, **wide).key_value_heads == 4
    assert shape(1, **wide, num_key_value_heads=16).key_value_heads == 16
    assert shape(1, **wide, num_attention_heads=32).key_value_heads == 32
    assert shape(1, **wide, positions="learned").key_value_heads == 16


def test_too_small_for_the_vocabulary() -> None:
    with pytest.raises(ConfigError, match=r"size=10,000 can't be reached with a vocabulary of 50,257"):
        shape(10_000, vocab_size=50257)


def test_impossible_heads() -> None:
    with pytest.raises(ConfigError, match=r"No shape goes with model.hidden_size=64, model.num_attention_heads=5"):
        shape(1e6, hidden_size=64, num_attention_heads=5)


def test_full_size_vocabulary() -> None:
    assert parameters(shape(124e6, vocab_size=50257)) == pytest.approx(124e6, rel=0.02)
