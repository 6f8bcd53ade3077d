"""Learning rates after pretraining: shares of what a model of this width and kind is pretrained with."""

import dataclasses
from typing import Any

import pytest

from maquette.artifacts import ConfigError
from maquette.model.architecture import CoreConfig, LSTMConfig, TransformerConfig
from maquette.recipe import DEFAULT_RULES, HyperparameterRules
from maquette.recipe.objectives import entry_of
from maquette.recipe.post_training import PostTraining, adapter_parameters
from maquette.recipe.pretraining import Recipe

MUP = HyperparameterRules(kind="mup", learning_rate=0.01, lr_width_exponent=0.0)


def transformer(**changes: bool) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=256, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=64, **changes,
    )  # fmt: skip


def recipe_of(objective: str, architecture: CoreConfig, rules: HyperparameterRules = DEFAULT_RULES) -> Recipe:
    return PostTraining(entry_of(objective), architecture, rules=rules).over_examples(
        examples=100, tokens=2000, answer_tokens=1000, epochs=1, batch_size=10
    )


@pytest.mark.parametrize(("objective", "share"), [("sft", 0.8), ("reward", 0.16), ("dpo", 0.05)])
def test_a_share_of_pretrainings_rate(objective: str, share: float) -> None:
    assert recipe_of(objective, transformer()).learning_rate == pytest.approx(share * 0.38 * 128**-1.1)


def test_a_lstm_keeps_its_multiple() -> None:
    lstm = LSTMConfig(256, 128, 2)
    assert recipe_of("sft", lstm).learning_rate == pytest.approx(0.8 * lstm.lr_multiplier * 0.38 * 128**-1.1)


def test_mup_gives_every_parameter_its_share() -> None:
    recipe = recipe_of("dpo", transformer(), MUP)
    assert recipe.learning_rate == pytest.approx(0.01 / 20) and recipe.parametrization == MUP.parametrization
    with pytest.raises(ConfigError, match="recipe=mup"):
        recipe_of("dpo", transformer(tie_word_embeddings=True), MUP)


LORA = {"_target_": "peft.LoraConfig", "r": 4}


def recipe_with(architecture: CoreConfig, adapter: dict[str, Any] | None) -> Recipe:
    return PostTraining(entry_of("sft"), architecture, adapter=adapter).over_examples(
        examples=100, tokens=2000, answer_tokens=1000, epochs=1, batch_size=10
    )


def test_an_adapter_learns_faster_and_costs_less() -> None:
    """Its FLOPs are counted from the products themselves: forward, backward to the inputs, and A's and B's own."""
    shape, tokens = transformer(), 2000
    arguments: dict[str, Any] = {
        "examples": 100,
        "tokens": tokens,
        "answer_tokens": tokens,
        "epochs": 1,
        "batch_size": 10,
    }
    plain, adapted = (
        PostTraining(entry_of("sft"), shape, adapter=node).over_examples(**arguments) for node in (None, LORA)
    )
    assert adapted.learning_rate == pytest.approx(10 * (128 / 2000) ** 0.35 * plain.learning_rate)
    for width, times in ((64, 3.0), (576, 6.5), (2048, 10.0), (4096, 10.0)):
        wide = dataclasses.replace(shape, hidden_size=width)
        rates = [recipe_with(wide, node).learning_rate for node in (None, LORA)]
        assert rates[1] / rates[0] == pytest.approx(times, rel=0.02)
    sums = 4 * (128 + 128) + 3 * (128 + 256)
    assert adapter_parameters(shape, LORA) == 2 * 4 * sums
    assert adapted.flops.head == pytest.approx(4 * tokens * 128 * 256)
    assert adapted.flops.core == pytest.approx(2 / 3 * plain.flops.core + 6 * tokens * 2 * 4 * sums)
    assert adapted.flops.attention == plain.flops.attention
    assert adapter_parameters(shape, LORA | {"target_modules": ["query"]}) == 2 * 4 * 256
    assert adapter_parameters(LSTMConfig(256, 128, 2), LORA) == 0
    given = PostTraining(entry_of("sft"), shape, learning_rate=1e-3, adapter=LORA).over_examples(**arguments)
    assert given.learning_rate == 1e-3


def test_looking_at_rollouts_costs_the_same_with_an_adapter() -> None:
    arguments: dict[str, Any] = {
        "num_iterations": 2, "rollout_batch_size": 8, "ppo_epochs": 2, "num_minibatches": 2, "row_tokens": 16,
        "has_value": False,
    }  # fmt: skip
    plain, adapted = (
        PostTraining(entry_of("ppo"), transformer(), adapter=node).of_policy(**arguments).flops.head
        for node in (None, LORA)
    )
    assert adapted / plain == pytest.approx((2 * 2 / 3 + 4 / 3) / (2 + 4 / 3))
