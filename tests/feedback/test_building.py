"""Feedback of a policy in training: rewards by models with other tokenizers; what leaves no room is refused."""

import pytest
import torch

from maquette.artifacts import StageError
from maquette.feedback import building
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.feedback.building import ConfiguredFeedback
from maquette.feedback.config import PromptsConfig, RewardConfig
from maquette.model import ScalarModel, TransformerConfig
from maquette.objectives.completions import Completion
from maquette.objectives.rollouts import RolloutSchedule, collect_rollouts
from maquette.text import chat, train_tokenizer
from maquette.text.chat import Message
from maquette.text.config import TokenizerConfig
from maquette.text.special import END_OF_TURN
from support.policies import tiny_ppo

TOKENIZER = train_tokenizer([], TokenizerConfig(kind="byte"))
FEEDBACK = ConfiguredFeedback(PromptsConfig(), RewardConfig(), "outputs", 256)


def learned(kind: str) -> LearnedReward:
    tokenizer = train_tokenizer(WORDS, TokenizerConfig(kind=kind))
    size = tokenizer.vocab_size
    model = ScalarModel(
        TransformerConfig(size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256)
    )
    return LearnedReward(model, tokenizer)


def test_a_reward_model_with_another_tokenizer_reads_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no value function starts from it."""
    for kind, reads_ids in (("char", False), ("byte", True)):
        monkeypatch.setattr(building, "build_reward", lambda *_, kind=kind: learned(kind))
        feedback = FEEDBACK.open(TOKENIZER, 256, 20)
        assert isinstance(feedback.reward, LearnedReward) and feedback.reward.reads_ids == reads_ids
        assert (feedback.value is not None) == reads_ids


WORDS = ["other words than bytes", *map(chr, range(32, 127))]
SAID: list[Message] = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("messages", [SAID, [{"role": "system", "content": "be short"}, *SAID]], ids=len)
@pytest.mark.parametrize("answer", ["a cat", ""])
@pytest.mark.parametrize("ended", [True, False])
def test_a_completion_is_encoded_again(messages: list[Message], answer: str, ended: bool) -> None:
    """By the reward model's own tokenizer and template; one that did not end has no end of turn there either."""
    reward = learned("char")
    prompt = chat.render(TOKENIZER, messages, open_assistant=True).ids
    ids = [*TOKENIZER.encode(answer), *([TOKENIZER.special_ids[END_OF_TURN]] if ended else [])]
    completion = Completion(tuple(messages), answer, tuple(prompt), tuple(ids), ended)
    (score,) = reward.of_policy(TOKENIZER)([completion])
    whole = chat.render(reward.tokenizer, [*messages, {"role": "assistant", "content": answer}]).ids
    with torch.no_grad():
        assert score == pytest.approx(reward.model(torch.tensor([whole]))[0, -1 if ended else -2].item(), abs=1e-6)
    if ended:
        assert reward.of_answers([(messages, answer)]) == [score]


def test_the_score_by_another_tokenizer_stands_on_the_policys_last_token() -> None:
    reward = learned("char").of_policy(TOKENIZER)
    policy = tiny_ppo(reward=reward, normalize_scores=0, kl_coefficient=0.0, missing_eos_penalty=0.0, gae_lambda=1.0)
    completions, scores = policy.environment.completions(policy.model, 0, 8)
    rollouts, _ = collect_rollouts(policy, policy.environment, RolloutSchedule(8, 1, 1), completions, scores)
    assert scores.tolist() == reward(completions)
    for row, score in enumerate(scores.tolist()):
        last = int(rollouts.lengths[row]) - 2
        assert rollouts.mask[row, last] and not rollouts.mask[row, last + 1 :].any()
        assert rollouts.returns[row, last].item() == pytest.approx(score, abs=1e-5)


def test_answers_that_leave_no_room_for_a_prompt_are_refused() -> None:
    with pytest.raises(StageError, match="leave no room for a prompt in a context of 16"):
        FEEDBACK.open(TOKENIZER, 16, 16)
