"""Feedback of a policy in training: what can't be read is refused before anything is sampled."""

import pytest

from maquette.artifacts import StageError
from maquette.feedback import building
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.feedback.building import ConfiguredFeedback
from maquette.feedback.config import PromptsConfig, RewardConfig
from maquette.model import ScalarModel, TransformerConfig
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

TOKENIZER = train_tokenizer([], TokenizerConfig(kind="byte"))
FEEDBACK = ConfiguredFeedback(PromptsConfig(), RewardConfig(), "outputs")


def learned(kind: str) -> LearnedReward:
    tokenizer = train_tokenizer(["other words than bytes"], TokenizerConfig(kind=kind))
    size = tokenizer.vocab_size
    model = ScalarModel(
        TransformerConfig(size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256)
    )
    return LearnedReward(model, tokenizer)


def test_a_reward_model_with_another_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "build_reward", lambda *_: learned("char"))
    with pytest.raises(StageError, match="The reward model has another tokenizer"):
        FEEDBACK.open(TOKENIZER, 256, 20)
    monkeypatch.setattr(building, "build_reward", lambda *_: learned("byte"))
    assert FEEDBACK.open(TOKENIZER, 256, 20).value is not None


def test_answers_that_leave_no_room_for_a_prompt_are_refused() -> None:
    with pytest.raises(StageError, match="leave no room for a prompt in a context of 16"):
        FEEDBACK.open(TOKENIZER, 16, 16)
