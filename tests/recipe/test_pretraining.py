"""The recipe: what the dial sets, what can be overridden, and what contradicts itself."""

import pytest

from maquette.artifacts import ConfigError
from maquette.data.config import PhaseConfig
from maquette.model.architecture import LSTMConfig, TransformerConfig
from maquette.model.config import ModelConfig
from maquette.model.core_config import training_flops
from maquette.recipe import DEFAULT_RULES, HyperparameterRules, Recipe, resolve


def small(**settings: object) -> Recipe:
    return resolve(**{"size": "216k", "vocab_size": 1024, "sequence_length": 128, **settings})  # type: ignore[arg-type]


def test_the_prototypes_settings_come_out() -> None:
    recipe = small(tokens="4m")
    assert (recipe.architecture.hidden_size, recipe.architecture.num_hidden_layers) == (64, 3)
    assert recipe.batch_size_tokens == 512
    assert recipe.learning_rate == pytest.approx(0.38 * 64**-1.1)
    assert (recipe.warmup, recipe.weight_decay) == (0.1, 0.1)


def test_tokens_per_parameter() -> None:
    recipe = small(tokens_per_parameter=10)
    assert recipe.tokens == pytest.approx(10 * recipe.size, rel=0.001)
    assert recipe.tokens == recipe.steps * recipe.batch_size_tokens


def test_compute_sets_the_tokens_by_exact_flops() -> None:
    recipe = small(compute="1e12")
    assert recipe.compute == pytest.approx(1e12, rel=0.001)
    assert recipe.compute == training_flops(recipe.architecture, recipe.tokens, 128).total
    assert recipe.kaplan_compute == 6 * recipe.parameters.core * recipe.tokens


def test_tokens_and_compute_contradict() -> None:
    with pytest.raises(ConfigError, match="tokens and compute"):
        small(tokens="1m", compute="1e12")


def test_everything_can_be_overridden() -> None:
    recipe = small(tokens="1m", batch_size_tokens=1024, learning_rate=0.01, warmup=0.0, weight_decay=0.0)
    assert recipe.batch_size_tokens == 1024
    assert (recipe.learning_rate, recipe.warmup, recipe.weight_decay) == (0.01, 0.0, 0.0)
    assert small(batch_size_tokens=8192).learning_rate == pytest.approx(2 * small(batch_size_tokens=512).learning_rate)


def test_a_batch_is_made_of_whole_sequences() -> None:
    with pytest.raises(ConfigError, match=r"multiple of the longest sequence(.|\n)*1024"):
        small(batch_size_tokens=1000)


def test_a_run_is_at_least_one_step() -> None:
    assert small(tokens=10).steps == 1


def test_longer_contexts_cost_more_and_fix_the_batch() -> None:
    phases = [PhaseConfig(start=0.5, context_multiple=4)]
    plain, long = small(tokens="2m"), small(tokens="2m", phases=phases)
    assert long.architecture.max_position_embeddings == 512
    assert long.batch_size_tokens % 512 == 0
    assert long.tokens == plain.tokens
    attention = plain.flops.attention // 2
    assert long.flops.attention == pytest.approx(attention + 4 * attention, rel=1e-6)
    assert long.flops.core == plain.flops.core


def test_compute_with_a_longer_phase_is_met() -> None:
    recipe = small(compute="3e12", phases=[PhaseConfig(start=0.9, context_multiple=2)])
    assert recipe.compute == pytest.approx(3e12, rel=0.002)


def test_from_a_checkpoint_the_shape_is_given() -> None:
    shape = TransformerConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64
    )
    recipe = small(architecture=shape, tokens="1m")
    assert (recipe.architecture.hidden_size, recipe.architecture.max_position_embeddings) == (32, 128)


def test_laws_can_be_replaced() -> None:
    recipe = small(
        tokens="1m", rules=HyperparameterRules(learning_rate=0.4, base_batch_size_tokens=1024, weight_decay=0.05)
    )
    assert recipe.batch_size_tokens == 1024
    assert (recipe.learning_rate, recipe.weight_decay) == (pytest.approx(0.4 * 64**-1.1), 0.05)


@pytest.mark.parametrize(
    ("width", "tokens", "published"),
    [(2048, 2e12, 4e-4), (4096, 1e12, 3e-4), (8192, 1.4e12, 1.5e-4)],
    ids=["OLMo 1B", "LLaMA 7B", "LLaMA 65B"],
)
def test_near_published_learning_rates(width: int, tokens: float, published: float) -> None:
    """Batches of 4 million tokens."""
    assert 0.5 < DEFAULT_RULES.peak_learning_rate(width, 4e6) / published < 2.5


def test_short_runs_warm_up_for_enough_steps() -> None:
    assert small(tokens="512k", batch_size_tokens=512).warmup == pytest.approx(0.3)  # 300 of 1,000 steps
    assert small(tokens="128k", batch_size_tokens=512).warmup == pytest.approx(0.3)
    assert small(tokens="1m", batch_size_tokens=512).warmup == pytest.approx(300 / 1953)
    assert HyperparameterRules(min_warmup_steps=0).warmup_share(500) == 0.1


def test_batches_grow_with_the_run() -> None:
    sizes = ["100k", "1m", "10m", "100m", "1b", "10b", "100b"]
    batches = [resolve(size=size, vocab_size=1024, sequence_length=256).batch_size_tokens for size in sizes]
    assert batches == sorted(batches)
    assert batches[0] == 512
    assert 2e6 < batches[-1] < 1.2e7
    assert resolve(size="100b", vocab_size=1024, sequence_length=256).warmup < 0.02


@pytest.mark.parametrize("value", ["", "-3", "ten", "0"])
def test_sizes_that_are_none(value: str) -> None:
    with pytest.raises(ConfigError, match="size="):
        small(size=value)


def test_an_lstm_has_a_recipe_too() -> None:
    recipe = small(model=ModelConfig(kind="lstm"), size="1m")
    assert recipe.size == pytest.approx(1e6, rel=0.2)
    assert recipe.flops.attention == 0
    assert recipe.learning_rate == pytest.approx(
        LSTMConfig(9, 8, 1).lr_multiplier
        * HyperparameterRules().peak_learning_rate(recipe.architecture.hidden_size, recipe.batch_size_tokens)
    )
    assert small(model=ModelConfig(kind="lstm"), size="1m", learning_rate=0.01).learning_rate == 0.01
