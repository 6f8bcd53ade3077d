"""Feedback of a policy in training: rewards by models with other tokenizers, or against a baseline; people of several
tastes; what leaves no room is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.post_training import plan_policy
from maquette.feedback import building
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.feedback.building import ConfiguredFeedback, build_annotator, other_people
from maquette.feedback.comparison import preferences_of
from maquette.feedback.config import FeedbackConfig, PromptsConfig, RewardConfig
from maquette.feedback.policies import BinaryReward
from maquette.model import LanguageModel, ScalarModel, TransformerConfig, hf
from maquette.objectives.completions import Completion, sample_completions
from maquette.objectives.rollouts import RolloutSchedule, collect_rollouts
from maquette.text import chat, train_tokenizer
from maquette.text.chat import Message
from maquette.text.config import TokenizerConfig
from maquette.text.special import END_OF_TURN
from support.pairs import some_pairs
from support.policies import Prompts, tiny_model, tiny_ppo

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


def sum_of_ids(completions: Sequence[Completion]) -> list[float]:
    return [float(sum(one.answer_ids)) for one in completions]


def test_a_binary_reward_says_who_wins_against_the_baseline() -> None:
    """Whatever else is scored beside a completion, and against one completion for each prompt."""
    prompts = [Prompts()[number] for number in (0, 1, 2, 3, 0, 1, 2, 3)]
    reward = BinaryReward(sum_of_ids, tiny_model(seed=4, scale=3.0), TOKENIZER, max_tokens=6)
    completions = sample_completions(tiny_model(scale=3.0), TOKENIZER, prompts, max_tokens=6)
    binary = reward(completions)
    assert set(binary) == {-1.0, 1.0}
    assert [reward([one])[0] for one in completions] == binary
    beaten: dict[Any, set[tuple[float, float]]] = {}
    for one, won in zip(completions, binary, strict=True):
        beaten.setdefault(one.prompt_ids, set()).add((sum_of_ids([one])[0], won))
    for scores in beaten.values():  # a higher score never wins less
        ordered = sorted(scores)
        assert [won for _, won in ordered] == sorted(won for _, won in ordered)
    policy = tiny_ppo(reward=reward)
    _, scores = policy.environment.completions(policy.model, 0, 8)
    assert set(scores.tolist()) <= {-1.0, 0.0, 1.0}


def test_a_baseline_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No value function starts from a reward model that gives other numbers; another tokenizer is refused."""
    hf.save(tiny_model(), TOKENIZER, tmp_path / "base")
    characters = train_tokenizer(WORDS, TokenizerConfig(kind="char"))
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    }
    hf.save(LanguageModel(TransformerConfig(characters.vocab_size, **shape)), characters, tmp_path / "other")
    config = RewardConfig(checkpoint="reward", baseline=str(tmp_path / "base"))
    monkeypatch.setattr(building, "build_reward", lambda *_: learned("byte"))
    feedback = ConfiguredFeedback(PromptsConfig(), config, "outputs", 4).open(TOKENIZER, 256, 20)
    assert isinstance(feedback.reward, BinaryReward) and feedback.value is None

    def plan(baseline: str) -> Any:
        return plan_policy(compose(STAGES["train"], [  # type: ignore[arg-type]
            f"outputs='{tmp_path}'", "objective=ppo", f"checkpoint='{tmp_path / 'base'}'", "reward.kind=gold",
            f"reward.baseline='{tmp_path / baseline}'", "objective.max_completion_length=2",
        ]))  # fmt: skip

    with pytest.raises(ConfigError, match=r"baseline=.*other has another tokenizer"):
        plan("other")


def test_people_of_two_tastes_take_turns() -> None:
    config = FeedbackConfig(noise=0.0, groups={"terse": {"people": 2, "length_bias": -9}, "wordy": {"length_bias": 9}})
    pairs = some_pairs(60)
    words = np.array([len(one.first.split()) - len(one.second.split()) for one in pairs])
    judged = build_annotator(config, "outputs", pairs).judge(pairs)
    assert [one.annotator for one in judged[:4]] == ["terse", "terse", "wordy", "terse"]
    likes = np.array([-1 if one.annotator == "terse" else 1 for one in judged])
    differ = words != 0
    assert differ.sum() > 20
    assert (np.array([one.preference for one in judged])[differ] == (likes * words > 0)[differ]).all()
    assert {one.annotator for one in preferences_of(pairs, judged, "all")} == {"terse", "wordy"}
    assert other_people(config, 2).seed == 6 and "groups" not in FeedbackConfig().identity()
    (alone,) = build_annotator(FeedbackConfig(), "outputs", pairs[:1]).judge(pairs[:1])
    assert alone.annotator is None
    for settings, message in [
        ({"groups": {"a": {"lenght_bias": 1}}}, "groups.a.lenght_bias is no setting of people"),
        ({"groups": {"a": {"people": 0}}}, "groups.a.people=0"),
        ({"kind": "gold", "groups": {"a": {}}}, "groups has no effect"),
    ]:
        with pytest.raises(ConfigError, match=message):
            FeedbackConfig(**settings).validate()  # type: ignore[arg-type]
