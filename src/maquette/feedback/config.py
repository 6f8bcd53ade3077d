"""Settings of feedback: which prompts, who demonstrates, who annotates, what a policy is rewarded for."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import check, from_table, setting
from maquette.artifacts.targets import check_target
from maquette.data.config import ExamplesConfig, RowsConfig

PREFERENCES = "preferences.jsonl"
"""The labels in the artifact of an annotation."""

CAPTIONS = {
    "gold": "Gold reward per completion, sampled and greedy, with 95% intervals. Where the two lie far apart, a "
    "policy knows more than it says.",
    "frontier": "What each policy is worth, and what it was optimised for, over how far it has moved, with 95% "
    "intervals. A method whose line lies higher gains more for the same KL divergence; gold that falls while the "
    "learned reward rises is over-optimisation.",
    "overoptimisation": "Gold and learned reward gained over how far a policy has moved, one colour a reward model; "
    "lines through gold are the curves of Gao et al. 2022 with 90% bands.",
    "signals": "What training shows while gold falls: the gold reward, and each signal over validations, as a share of "
    "its highest; the dotted line is where gold has fallen for good.",
    "length": "Where labels like length, longer completions win by the learned reward, and lose by gold.",
}
"""The figures of a study."""


@dataclass
class PromptsConfig(RowsConfig):
    tasks: list[str] = setting(
        lambda: ["pick"], "embedded tasks, drawn evenly: pick, sort, reverse, count, repeat, refuse, record"
    )
    seed: int = setting(0, "seed of the prompts and their order; by default that of the run", minimum=0)


@dataclass
class RewardConfig:
    kind: str = setting(
        "reward_model", "what a policy is optimised for: a reward model, the tasks' gold reward, or your own callable",
        choices=("reward_model", "gold", "callable"),
    )  # fmt: skip
    checkpoint: str | None = setting(None, "run or folder of the reward model")
    callable: str | None = setting(
        None, "module:function of your own, from a list of completions to a number each (sets kind=callable)"
    )
    baseline: str | None = setting(
        None,
        "binary reward: 1 where a completion beats one of this run or folder to the same prompt, -1 where it loses",
    )
    watched_by: list[str] = setting(
        list, "more reward models: how far they disagree on the policy's completions is measured at each validation"
    )

    def __post_init__(self) -> None:
        if self.callable is not None and self.checkpoint is None and self.kind == "reward_model":
            self.kind = "callable"

    def validate(self) -> None:
        """Raises `ConfigError` for a callable that is not named, or not there; it is not imported yet."""
        if self.kind != "callable":
            if self.callable is not None:
                raise ConfigError(
                    f"reward.callable={self.callable} stands beside another reward.",
                    "Give one of reward.callable, reward.checkpoint and reward.kind=gold.",
                )
            return
        if self.callable is None:
            raise ConfigError("reward.kind=callable needs reward.callable.", "Write it as module:function.")
        check_target(self.callable, key="reward.callable")


_OF_PEOPLE = ("people", "noise", "agreement", "length_bias", "list_bias", "position_bias")


@dataclass
class FeedbackConfig:
    kind: str = setting(
        "simulated", "who prefers one answer to another",
        choices=("gold", "simulated", "reward_model", "language_model", "file", "callable"),
    )  # fmt: skip
    people: int = setting(1, "simulated: so many people take turns", minimum=1)
    seed: int = setting(0, "simulated: tells these people from others; by default that of the run", minimum=0)
    groups: dict[str, dict[str, Any]] = setting(
        dict, "simulated: groups of people of different tastes, each with its own people, noise, agreement, "
        "length_bias, list_bias, position_bias: {terse: {length_bias: -0.2}, wordy: {length_bias: 0.2}}",
    )  # fmt: skip
    noise: float = setting(0.15, "simulated: Bradley-Terry noise, in units of the gold reward", minimum=0.0)
    agreement: float | None = setting(
        None, "simulated: choose the noise so that two people agree so often (replaces noise)",
        minimum=0.5, maximum=1.0,
    )  # fmt: skip
    length_bias: float = setting(0.0, "simulated: utility of each word of a completion")
    list_bias: float = setting(0.0, "simulated: utility of a completion laid out as a list")
    position_bias: float = setting(0.0, "simulated: utility of being shown first")
    checkpoint: str | None = setting(None, "reward_model, language_model: run or folder on this machine")
    url: str | None = setting(None, "language_model: an OpenAI-compatible server, such as http://localhost:8000/v1")
    model: str = setting("gpt-4o-mini", "language_model: the model's name at that server")
    key_variable: str | None = setting(None, "language_model: environment variable that holds the server's key")
    both_orders: bool = setting(True, "language_model: ask again with the completions turned round")
    verdict: str = setting(
        "letter", "language_model: the letter that it writes, or how likely each letter is (AlpacaEval 2)",
        choices=("letter", "log_probability"),
    )  # fmt: skip
    retries: int = setting(5, "language_model: how often a busy server is asked again", minimum=0)
    workers: int = setting(4, "language_model: questions under way at once", minimum=1)
    input_price: float = setting(0.0, "language_model: dollars per million tokens read", minimum=0.0)
    output_price: float = setting(0.0, "language_model: dollars per million tokens written", minimum=0.0)
    label_price: float = setting(0.0, "dollars that a label of any other annotator costs", minimum=0.0)
    path: str | None = setting(None, "file: preferences that others have given")
    callable: str | None = setting(
        None, "callable: module:function of your own, from a list of comparisons to a preference each"
    )

    def validate(self) -> None:
        """Raises `ConfigError` where the annotator lacks what it needs."""
        if self.kind == "callable":
            if self.callable is None:
                raise ConfigError("feedback.kind=callable needs feedback.callable.", "Write it as module:function.")
            check_target(self.callable, key="feedback.callable")
        elif self.callable is not None:
            raise ConfigError(f"feedback.callable={self.callable} has no effect here.", "Add feedback=callable.")
        if self.kind == "file" and self.path is None:
            raise ConfigError("feedback.kind=file needs feedback.path.", "Name a preference file.")
        if self.kind == "reward_model" and self.checkpoint is None:
            raise ConfigError(
                "feedback.kind=reward_model needs feedback.checkpoint.", "Name a run of objective=reward."
            )
        if self.kind == "language_model" and (self.url is None) == (self.checkpoint is None):
            raise ConfigError(
                "feedback.kind=language_model needs feedback.url or feedback.checkpoint.",
                "Name a server or a checkpoint, not both.",
            )

        if self.groups and self.kind != "simulated":
            raise ConfigError("feedback.groups has no effect here.", "Only feedback=simulated has groups of people.")
        self.by_group()

    def by_group(self) -> "dict[str, FeedbackConfig]":
        """Each group's settings, this one's where it has none of its own; empty where all people are of one kind.

        Raises `ConfigError` for settings that are not a person's."""
        for name, own in self.groups.items():
            for key in own:
                if key not in _OF_PEOPLE:
                    raise ConfigError(
                        f"feedback.groups.{name}.{key} is no setting of people.", f"Allowed: {', '.join(_OF_PEOPLE)}."
                    )
        shared = {key: getattr(self, key) for key in _OF_PEOPLE}
        groups = {
            name: from_table(FeedbackConfig, shared | own, f"feedback.groups.{name}")
            for name, own in self.groups.items()
        }
        for name, group in groups.items():
            check(group, f"feedback.groups.{name}.")
        return groups

    def annotator_folder(self, outputs: Path | str) -> Path | None:
        """The run or folder of the model that annotates, None where no model on this machine does."""
        from maquette.model.loading import find_checkpoint, find_reward_model

        if self.checkpoint is None:
            return None
        find = find_reward_model if self.kind == "reward_model" else find_checkpoint
        return find(self.checkpoint, outputs, key="feedback.checkpoint")

    def identity(self, *without: str) -> dict[str, Any]:
        """The settings that decide what is preferred, not how a server is reached; of a callable also its code."""
        settings = dataclasses.asdict(self)
        for key in ("retries", "workers", "key_variable", *without):
            del settings[key]
        if not self.groups:  # as annotations were named before there were any
            del settings["groups"]
        if self.verdict == "letter":  # as annotations were named before there was a choice
            del settings["verdict"]
        return settings | ({} if self.callable is None else {"code": code_digest(self.callable)})


@dataclass
class AuthorConfig:
    checkpoint: str | None = setting(
        None, "run or folder that writes, by its chat template; by default the latest finished run"
    )
    url: str | None = setting(None, "an OpenAI-compatible server instead, such as http://localhost:8000/v1")
    model: str = setting("gpt-4o-mini", "the model's name at that server")
    key_variable: str | None = setting(None, "environment variable that holds the server's key")
    retries: int = setting(5, "how often a busy server is asked again", minimum=0)
    workers: int = setting(8, "requests under way at once; a checkpoint answers so many in one batch", minimum=1)
    temperature: float = setting(0.8, "of sampling", minimum=0.0)
    top_p: float = setting(
        0.95, "sample among the likeliest tokens that hold this probability", minimum=0.0, maximum=1.0
    )
    max_tokens: int = setting(1024, "tokens of a reply at most", minimum=1)
    input_price: float = setting(0.0, "dollars per million tokens read", minimum=0.0)
    output_price: float = setting(0.0, "dollars per million tokens written", minimum=0.0)

    def validate(self) -> None:
        """Raises `ConfigError` where two write."""
        if self.url is not None and self.checkpoint is not None:
            raise ConfigError("author.checkpoint and author.url are both given.", "Name one who writes.")

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is written, without how a server is reached and what it costs."""
        without = ("checkpoint", "key_variable", "retries", "workers", "input_price", "output_price")
        settings = {key: value for key, value in dataclasses.asdict(self).items() if key not in without}
        return settings if self.url is not None else settings | {"model": None}


@dataclass
class TaskInstructionsConfig(ExamplesConfig):
    """Exercises of the embedded tasks, answered by demonstrators."""

    kind: str = setting("task", "where they come from", choices=("task",))
    tasks: list[str] = setting(lambda: ["pick"], "tasks: pick, sort, reverse, count, repeat, refuse, record")
    demonstrators: str = setting(
        "harder", "who answers, some better than others", choices=("easy", "harder", "perfect", "listing")
    )
    count: int = setting(40_000, "demonstrations for training", minimum=1)
    held_out: int = setting(512, "demonstrations to validate on", minimum=0)
    seed: int = setting(0, "seed of exercises and answers; by default that of the run", minimum=0)
