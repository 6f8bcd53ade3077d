"""From settings to annotators and rewards."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from maquette.artifacts import ConfigError
from maquette.feedback.annotators.answer_cache import AnswerCache
from maquette.feedback.annotators.callables import CallableAnnotator, CallableReward
from maquette.feedback.annotators.file import FileAnnotator
from maquette.feedback.annotators.gold import GoldAnnotator, GoldReward
from maquette.feedback.annotators.judges import EndpointJudge, LocalJudge
from maquette.feedback.annotators.language_model import Judge, LanguageModelAnnotator
from maquette.feedback.annotators.reward_model import LearnedReward, RewardModelAnnotator
from maquette.feedback.annotators.simulated import (
    SimulatedAnnotator,
    Taste,
    noise_for_agreement,
    utility_differences,
)
from maquette.feedback.comparison import Annotator, Comparison, Judgement
from maquette.feedback.config import FeedbackConfig, RewardConfig
from maquette.model.loading import find_checkpoint, load_checkpoint, load_reward_model
from maquette.objectives.completions import RewardFunction


class People:
    """Simulated people who take turns: pair i is judged by person i modulo their number."""

    def __init__(self, taste: Taste, *, people: int, seed: int = 0) -> None:
        self.taste = taste
        self.people = [SimulatedAnnotator(taste, seed=seed + number) for number in range(people)]
        self.name = self.people[0].name if people == 1 else f"simulated-{seed}..{seed + people - 1}"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        return [self.people[place % len(self.people)].judge([one])[0] for place, one in enumerate(comparisons)]


def build_annotator(
    config: FeedbackConfig, outputs: Path | str, comparisons: Sequence[Comparison], *, seed: int | None = None
) -> Annotator:
    """The annotator that the settings describe. `comparisons`: the pairs on which an `agreement` is reached. `seed`
    replaces that of simulated people, for other people of the same kind.

    Raises `ConfigError` for settings that contradict each other, `StageError` where a file is missing or damaged.
    """
    if config.kind == "gold":
        return GoldAnnotator()
    if config.kind == "simulated":
        taste = Taste(config.noise, config.length_bias, config.list_bias, config.position_bias)
        if config.agreement is not None:
            taste = noise_for_agreement(taste, utility_differences(taste, comparisons), config.agreement)
        return People(taste, people=config.people, seed=config.seed if seed is None else seed)
    if config.kind == "reward_model":
        return RewardModelAnnotator(open_reward_model(config.checkpoint, outputs), f"reward_model:{config.checkpoint}")
    if config.kind == "callable":
        return CallableAnnotator(config.callable)
    if config.kind == "file":
        return FileAnnotator(str(config.path))
    return LanguageModelAnnotator(
        _judge(config, outputs),
        cache=AnswerCache(Path(outputs) / "artifacts" / "judged.sqlite"),
        both_orders=config.both_orders,
        workers=config.workers if config.url else 1,
        input_price=config.input_price,
        output_price=config.output_price,
    )


def open_reward_model(checkpoint: str | None, outputs: Path | str) -> LearnedReward:
    """The reward model of a run. Raises `ConfigError` where none is named, `StageError` where it is no reward model."""
    if checkpoint is None:
        raise ConfigError("No reward model is named.", "Give reward.checkpoint=<run of objective=reward>.")
    model, tokenizer = load_reward_model(find_checkpoint(checkpoint, outputs))
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
    return replace(config, seed=config.seed + number * config.people)


def _judge(config: FeedbackConfig, outputs: Path | str) -> Judge:
    if config.url is not None:
        return EndpointJudge(config.url, config.model, key_variable=config.key_variable, retries=config.retries)
    folder = find_checkpoint(config.checkpoint, outputs)
    model, tokenizer = load_checkpoint(folder)
    return LocalJudge(model, tokenizer, folder.name)
