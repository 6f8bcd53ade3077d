"""Settings of an evaluation: what is asked, and how."""

import re
from dataclasses import dataclass
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting

EMBEDDED = ("docstring", "continuation", "agreement", "arithmetic")
"""Tasks that are made from held-out documents of the corpus."""

CONTENT_PROTOCOLS = ("likelihood", "per_byte", "per_token", "unconditional")
LETTER_PROTOCOLS = ("letter", "constrained")
PROTOCOLS = CONTENT_PROTOCOLS + LETTER_PROTOCOLS
FREE_PROTOCOLS = ("exact_match", "judged")
"""How an answer in the model's own words is marked."""


@dataclass
class TemplateConfig:
    """How questions are put into words. `{context}`, `{letter}` and `{option}` are filled in; nothing else is."""

    description: str = setting("", "text before everything")
    question: str = setting("{context}", "the question itself")
    answer: str = setting("{option}", "its continuation, for the likelihood of each answer")
    option: str = setting("{letter}. {option}\n", "one line of the options, for protocols that ask for a letter")
    before_options: str = setting("\n", "between question and options")
    before_letter: str = setting("Answer:", "after the options")
    letter: str = setting(" {letter}", "the answer as a letter")
    separator: str = setting("\n\n", "between examples")
    unconditional: str = setting("", "context of an option's unconditional likelihood; empty: the document's begin")

    def validate(self) -> None:
        """Raises `ConfigError` where a template leaves out what it is for."""
        for name, needed in (
            ("question", "{context}"), ("answer", "{option}"), ("option", "{letter}"), ("letter", "{letter}")
        ):  # fmt: skip
            if needed not in getattr(self, name):
                raise ConfigError(f"template.{name} must hold {needed}.", "It is replaced by what is asked.")


def completion_template() -> TemplateConfig:
    """Options continue the text as they stand."""
    return TemplateConfig()


def question_template() -> TemplateConfig:
    """A question, and "Answer:" before each option."""
    return TemplateConfig(
        question="Question: {context}\nAnswer:", answer=" {option}", before_options="\n", unconditional="Answer:"
    )


@dataclass
class SuiteConfig:
    name: str = setting("embedded", "name of the suite")
    embedded: list[str] = setting(lambda: list(EMBEDDED), f"tasks made from held-out documents: {', '.join(EMBEDDED)}")
    items: int = setting(300, "questions of each task", minimum=8)
    files: dict[str, str] = setting(dict, "tasks from files: suite.files.mmlu=~/mmlu/test.csv (JSONL, CSV, Parquet)")
    preferences: dict[str, str] = setting(
        dict, "pairs that a reward model ranks, with a column subset: suite.preferences.rewardbench=rewardbench.parquet"
    )
    likelihood: bool = setting(True, "perplexity and bits per byte of held-out documents, by domain")
    documents: int = setting(40, "documents of each domain whose likelihood is measured", minimum=2)
    stride: int | None = setting(
        None, "tokens that each window of a long text adds; by default half the model's context", minimum=1
    )
    contamination: bool = setting(False, "test tasks from files for having been trained on")
    answer_tokens: int = setting(64, "tokens of an answer in the model's own words at most", minimum=1)
    answer_stop: list[str] = setting(lambda: ["\n"], "texts that end such an answer")
    answer_pattern: str | None = setting(
        None, "regular expression whose last match in it (its first group) is the answer; null: all of it"
    )
    judge: dict[str, Any] = setting(
        dict, "who marks it too, beside the accepted answer: {kind: language_model, url: ...}, as feedback is set"
    )

    @property
    def needs_corpus(self) -> bool:
        """Whether anything of it is made from held-out documents."""
        return bool(self.embedded) or self.likelihood

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        return not (self.embedded or self.files or self.likelihood or self.preferences)

    def validate(self) -> None:
        """Raises `ConfigError` for a task that is not known or has two meanings."""
        for task in self.embedded:
            if task not in EMBEDDED:
                raise ConfigError(f"suite.embedded={task} is not known.", f"Allowed: {', '.join(EMBEDDED)}.")
        if both := sorted(set(self.embedded) & set(self.files)):
            raise ConfigError(f"suite.files.{both[0]} has the name of an embedded task.", "Choose another.")
        try:
            re.compile(self.answer_pattern or "")
        except re.error as error:
            raise ConfigError(
                f"suite.answer_pattern={self.answer_pattern} is not a regular expression: {error}.",
                "Write it as Python's re does: '-?[0-9.]+' for the last number.",
            ) from None

    @property
    def free_form(self) -> dict[str, Any]:
        """What decides how answers in the model's own words are marked."""
        return {
            "tokens": self.answer_tokens, "stop": self.answer_stop, "pattern": self.answer_pattern, "judge": self.judge
        }  # fmt: skip


def no_suite() -> SuiteConfig:
    """What follows a training run unless it is asked for."""
    return SuiteConfig(name="none", embedded=[], likelihood=False)


@dataclass
class ProtocolConfig:
    protocols: list[str] = setting(lambda: list(PROTOCOLS), f"ways to take an answer: {', '.join(PROTOCOLS)}")
    shots: list[int] = setting(lambda: [0], "solved examples before each question, each number by itself: [0, 5]")
    orders: int = setting(4, "orders of the options in which a letter is asked for", minimum=1)
    completion: TemplateConfig = setting(completion_template, "template of continuations")
    question: TemplateConfig = setting(question_template, "template of questions")
    resamples: int = setting(2000, "bootstrap resamples behind each interval", minimum=20)
    level: float = setting(0.9, "coverage of intervals", minimum=0.5, maximum=0.999)
    seed: int = setting(0, "seed of the questions, the shots and the resamples", minimum=0)
    batch_size_tokens: int = setting(8192, "tokens computed at once", minimum=1)

    def validate(self) -> None:
        """Raises `ConfigError` for a protocol that is not known or numbers of shots below zero."""
        for name in self.protocols:
            if name not in PROTOCOLS:
                raise ConfigError(f"protocol.protocols={name} is not known.", f"Allowed: {', '.join(PROTOCOLS)}.")
        if not self.protocols or not self.shots or min(self.shots) < 0:
            raise ConfigError("protocol.protocols and protocol.shots need a value each, shots not below 0.")
