"""Learning rates after pretraining: shares of what a model of this width and kind is pretrained with."""

import pytest

from maquette.artifacts import ConfigError
from maquette.model.architecture import CoreConfig, LSTMConfig, TransformerConfig
from maquette.recipe import DEFAULT_RULES, HyperparameterRules
from maquette.recipe.objectives import entry_of
from maquette.recipe.post_training import PostTraining
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
