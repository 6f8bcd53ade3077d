"""From settings to annotators and rewards, and to the feedback of a policy in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import ConfigError, StageError
from maquette.data.process_group import process_group
from maquette.feedback.annotators.custom import CallableAnnotator, CallableReward, FileAnnotator
from maquette.feedback.annotators.language_model import AnswerCache, LanguageModelAnnotator
from maquette.feedback.annotators.reward_model import LearnedReward, RewardModelAnnotator
from maquette.feedback.annotators.simulated import (
    AnnotatorProfile,
    GoldAnnotator,
    GoldReward,
    SimulatedAnnotator,
    noise_for_agreement,
    utility_differences,
)
from maquette.feedback.chat_models import ChatModel, EndpointModel, LocalModel
from maquette.feedback.comparison import Annotator, Comparison, Judgement
from maquette.feedback.config import AuthorConfig, FeedbackConfig, PromptsConfig, RewardConfig
from maquette.feedback.policies import BinaryReward, PolicyScores, measure_policy
from maquette.feedback.prompts import open_prompts
from maquette.model import LanguageModel, Sampling
from maquette.model.loading import find_checkpoint, find_reward_model, load_checkpoint, load_reward_model, model_name
from maquette.objectives.completions import RewardFunction
from maquette.training.policy import PolicyFeedback

if TYPE_CHECKING:
    from maquette.text import Tokenizer


class AnnotatorPool:
    """Simulated people who take turns: pair i is judged by person i modulo their number. `groups`: the profile and the
    number of people of each kind, by its name, which then stands with each label; "" for people of one kind."""

    def __init__(self, groups: Mapping[str, tuple[AnnotatorProfile, int]], *, seed: int = 0) -> None:
        kinds = [(name, profile) for name, (profile, people) in groups.items() for _ in range(people)]
        self.people = [
            (name or None, SimulatedAnnotator(profile, seed=seed + number))
            for number, (name, profile) in enumerate(kinds)
        ]
        self.name = f"simulated-{seed}" if len(kinds) == 1 else f"simulated-{seed}..{seed + len(kinds) - 1}"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        judged = []
        for place, one in enumerate(comparisons):
            group, person = self.people[place % len(self.people)]
            judged.append(replace(person.judge([one])[0], annotator=group))
        return judged


def build_annotator(config: FeedbackConfig, outputs: Path | str, comparisons: Sequence[Comparison]) -> Annotator:
    """The annotator that the settings describe. `comparisons`: the pairs on which an `agreement` is reached.

    Raises `ConfigError` for settings that contradict each other, `StageError` where a file is missing or damaged.
    """
    if config.kind == "gold":
        return GoldAnnotator()
    if config.kind == "simulated":
        groups = config.by_group() or {"": config}
        return AnnotatorPool(
            {name: (_profile(one, comparisons), one.people) for name, one in groups.items()}, seed=config.seed
        )
    if config.kind == "reward_model":
        return RewardModelAnnotator(
            open_reward_model(config.checkpoint, outputs, key="feedback.checkpoint"),
            f"reward_model:{config.checkpoint}",
        )
    if config.kind == "callable":
        return CallableAnnotator(config.callable)
    if config.kind == "file":
        return FileAnnotator(str(config.path))
    return LanguageModelAnnotator(
        _judge(config, outputs),
        cache=AnswerCache(Path(outputs) / "artifacts" / "judged.sqlite"),
        both_orders=config.both_orders,
        by_probability=config.verdict == "log_probability",
        workers=config.workers if config.url else 1,
        input_price=config.input_price,
        output_price=config.output_price,
    )


def _profile(config: FeedbackConfig, comparisons: Sequence[Comparison]) -> AnnotatorProfile:
    profile = AnnotatorProfile(config.noise, config.length_bias, config.list_bias, config.position_bias)
    if config.agreement is None:
        return profile
    return noise_for_agreement(profile, utility_differences(profile, comparisons), config.agreement)


def open_reward_model(checkpoint: str | None, outputs: Path | str, *, key: str = "reward.checkpoint") -> LearnedReward:
    """The reward model of a run. Raises `ConfigError` where none is named, `StageError` where it is not a reward
    model."""
    if checkpoint is None:
        raise ConfigError("No reward model is named.", f"Give {key}=<run of objective=reward>.")
    model, tokenizer = load_reward_model(find_reward_model(checkpoint, outputs, key=key))
    return LearnedReward(model, tokenizer)


def build_reward(config: RewardConfig, outputs: Path | str) -> RewardFunction:
    """The reward that the settings name. Raises `ConfigError` for a callable that can't be found."""
    if config.kind == "gold":
        return GoldReward()
    if config.kind == "reward_model":
        return open_reward_model(config.checkpoint, outputs)
    return CallableReward(config.callable)


def other_people(config: FeedbackConfig, number: int) -> FeedbackConfig:
    """The same kind of people, but others."""
    people = sum(one.people for one in config.by_group().values()) or config.people
    return replace(config, seed=config.seed + number * people)


def _judge(config: FeedbackConfig, outputs: Path | str) -> ChatModel:
    if config.url is not None:
        return EndpointModel(config.url, config.model, key_variable=config.key_variable, retries=config.retries)
    folder = find_checkpoint(config.checkpoint, outputs, key="feedback.checkpoint")
    model, tokenizer = load_checkpoint(folder)
    return LocalModel(model, tokenizer, model_name(folder))


def build_author(config: AuthorConfig, outputs: Path | str) -> EndpointModel | LocalModel:
    """Who writes instructions. Raises `ConfigError` as `EndpointModel`, `StageError` where there is no such run."""
    sampling = Sampling(config.temperature, top_p=config.top_p)
    if config.url is not None:
        return EndpointModel(
            config.url, config.model, key_variable=config.key_variable, retries=config.retries, timeout=300.0,
            sampling=sampling, max_tokens=config.max_tokens,
        )  # fmt: skip
    folder = find_checkpoint(config.checkpoint, outputs, key="author.checkpoint")
    model, tokenizer = load_checkpoint(folder)
    return LocalModel(model, tokenizer, model_name(folder), sampling=sampling, max_tokens=config.max_tokens)


def disagreement(
    scores: Mapping[str, NDArray[np.float64]], reference: Mapping[str, NDArray[np.float64]], names: Sequence[str]
) -> float:
    """How far reward models differ on completions: the standard deviation over models `names` of a completion's score,
    each in standard deviations of its scores of the `reference`'s completions (n,), since a reward's level and scale
    are arbitrary; the mean over completions (n,)."""
    each = [(scores[name] - reference[name].mean()) / max(float(reference[name].std()), 1e-8) for name in names]
    return float(np.std(each, axis=0).mean())


@dataclass(frozen=True)
class ConfiguredFeedback:
    """A `FeedbackSource` from settings: plain values until it is opened. A value function starts from the reward model
    only where that reads the policy's tokens. `sample_prompts`: how many held-out prompts a policy is measured on."""

    prompts: PromptsConfig
    reward: RewardConfig
    outputs: str
    sample_prompts: int

    def open(self, tokenizer: "Tokenizer", context: int, max_completion_length: int) -> PolicyFeedback:
        """Raises `StageError` where prompts leave no room for a completion."""
        longest = context - max_completion_length
        if longest < 1:
            raise StageError(
                f"Completions of {max_completion_length} tokens leave no room for a prompt in a context of {context}.",
                "Use shorter completions, or a model with a longer context.",
            )
        reward = build_reward(self.reward, self.outputs)
        value = None
        if isinstance(reward, LearnedReward):
            value = reward.model if reward.tokenizer.digest == tokenizer.digest else None
            reward = reward.of_policy(tokenizer)
        if self.reward.baseline is not None:
            baseline, its_own = load_checkpoint(find_checkpoint(self.reward.baseline, self.outputs))
            reward = BinaryReward(reward, baseline, its_own, max_tokens=max_completion_length)
            value = None  # no model of this reward
        started_from = None
        if value is not None and self.reward.checkpoint is not None:
            started_from = str(find_reward_model(self.reward.checkpoint, self.outputs))
        held_out = open_prompts(self.prompts, tokenizer, longest=longest, split="held_out")
        prompts = tuple(held_out[number] for number in range(self.sample_prompts))
        rewards: dict[str, RewardFunction] = {"reward": reward}
        if self.prompts.path is None:
            rewards["gold"] = GoldReward()

        watching = {name: open_reward_model(name, self.outputs).of_policy(tokenizer) for name in self.reward.watched_by}
        ensemble = {"reward": reward, **watching} if watching else {}
        scale: dict[str, NDArray[np.float64]] = {}

        def scores_of(model: LanguageModel, reference: LanguageModel | None) -> PolicyScores:
            return measure_policy(
                model, tokenizer, prompts, rewards | watching, reference=reference, max_tokens=max_completion_length,
                seed=1, group=process_group(),
            )  # fmt: skip

        def measure(model: LanguageModel, reference: LanguageModel) -> Mapping[str, float]:
            if ensemble and not scale:  # the same after resuming: a policy's reference never changes
                scale.update(scores_of(reference, None).scores)
            scores = scores_of(model, reference)
            means = {name: float(scores.scores[name].mean()) for name in rewards}
            if ensemble:
                means["disagreement"] = disagreement(scores.scores, scale, list(ensemble))
            return means | {"kl": scores.kl, "words": float(scores.words.mean()), "eos_rate": scores.ended}

        return PolicyFeedback(
            prompts=open_prompts(self.prompts, tokenizer, longest=longest),
            reward=reward,
            value=value,
            measure=measure,
            held_out=prompts[:16],
            value_checkpoint=started_from,
        )
