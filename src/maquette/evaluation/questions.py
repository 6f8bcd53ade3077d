"""Questions with one right answer, and sets of them. What is broken is refused, or skipped and counted.

From a question to text, and from text to tokens: what changes scores most, and is shown least."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from maquette.artifacts import StageError
from maquette.artifacts.files import digest
from maquette.evaluation.config import TemplateConfig

if TYPE_CHECKING:
    from maquette.text import Tokenizer


FREE = "free"
"""The template of questions that are answered in one's own words; `options` of these are the accepted answers."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """`options[answer]` is right. A completion's options continue `context` as they stand (spaces included)."""

    id: str
    context: str
    options: tuple[str, ...]
    answer: int
    subject: str = ""


@dataclass(frozen=True)
class QuestionSet:
    """Questions of one kind; `template` names how they are asked, `skipped` says what was left out and how often."""

    name: str
    template: str
    questions: tuple[Question, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the questions, in their order."""
        return digest([asdict(question) for question in self.questions])

    @property
    def chance(self) -> float:
        """Accuracy of who guesses; of answers in one's own words 0."""
        if self.template == FREE:
            return 0.0
        return sum(1 / len(question.options) for question in self.questions) / max(1, len(self.questions))


def fault(question: Question, template: str = "") -> str | None:
    """Why a question can't be asked; None where it can."""
    if template == FREE:
        return None if question.options and all(option.strip() for option in question.options) else "no right answer"
    if len(question.options) < 2:
        return "fewer than two options"
    if len(question.options) > len(LETTERS):
        return f"more than {len(LETTERS)} options"
    if any(not option.strip() for option in question.options):
        return "an empty option"
    if len(set(question.options)) < len(question.options):
        return "two equal options"
    if not 0 <= question.answer < len(question.options):
        return "no right answer"
    return None


def sound(name: str, questions: Iterable[Question], template: str) -> QuestionSet:
    """A task of the questions that can be asked, the others counted. Raises `StageError` for an id that comes twice
    (results are kept by id) and where nothing is left."""
    distinct: dict[str, Question] = {}
    skipped: Counter[str] = Counter()
    for question in questions:
        if reason := fault(question, template):
            skipped[reason] += 1
        elif question.id in distinct:
            raise StageError(f"{name}: the id {question.id!r} comes twice.", "Give each question an id of its own.")
        else:
            distinct[question.id] = question
    if not distinct:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in skipped.items()) or "the file is empty"
        raise StageError(f"{name} has no question that can be asked: {reasons}.", "Look at the file.")
    return QuestionSet(name, template, tuple(distinct.values()), dict(skipped))


def answer_place(answer: Any) -> int:
    """0, "0", "A" or "a" is the first option; -1 where there is no answer."""
    text = str(answer).strip().removesuffix(".0")  # a column with gaps is one of fractions to a spreadsheet
    if text.lstrip("-").isdigit():
        return int(text)
    if len(text) == 1 and text.upper() in LETTERS:
        return LETTERS.index(text.upper())
    return -1


Pair = tuple[list[int], list[int]]
"""Tokens of a context, and of its continuation."""


def filled(template: str, **values: str) -> str:
    """The template with `{name}` replaced; any other brace is text, as questions about code have them."""
    for name, value in values.items():
        template = template.replace("{" + name + "}", value)
    return template


def content_prompt(template: TemplateConfig, question: Question, shots: Sequence[Question]) -> str:
    """Solved examples and the question, for the likelihood of answers in their own words."""
    solved = [
        filled(template.question, context=shot.context) + filled(template.answer, option=shot.options[shot.answer])
        for shot in shots
    ]
    asked = filled(template.question, context=question.context)
    return template.description + template.separator.join([*solved, asked])


def letter_prompt(template: TemplateConfig, question: Question, order: Sequence[int], shots: Sequence[Question]) -> str:
    """Solved examples and the question with its options listed in `order`, for the letter of the answer."""
    solved = []
    for shot in shots:
        right = filled(template.letter, letter=LETTERS[shot.answer])
        solved.append(_listed(template, shot, range(len(shot.options))) + right)
    return template.description + template.separator.join([*solved, _listed(template, question, order)])


def _listed(template: TemplateConfig, question: Question, order: Sequence[int]) -> str:
    asked = filled(template.question, context=question.context)
    # What stands before an answer in words ("Answer:") comes after the options here.
    asked = asked.removesuffix(template.before_letter).rstrip("\n")
    lines = "".join(
        filled(template.option, letter=LETTERS[place], option=question.options[option].strip())
        for place, option in enumerate(order)
    )
    return asked + (template.before_options if asked else "") + lines + template.before_letter


def option_orders(count: int, orders: int) -> list[list[int]]:
    """Orders of `count` options in which each stands in another place: rotations, at most `count` of them."""
    return [[(place + turn) % count for place in range(count)] for turn in range(min(orders, count))]


def choose_shots(questions: Sequence[Question], question: Question, count: int, seed: int) -> list[Question]:
    """`count` other questions, the same at each call. Raises `StageError` where there are not so many."""
    others = [other for other in questions if other.id != question.id]
    if count > len(others):
        raise StageError(f"{count} shots need {count + 1} questions; there are {len(questions)}.", "Use fewer shots.")
    return random.Random(f"{seed} {question.id}").sample(others, count)


def split(tokenizer: "Tokenizer", texts: Sequence[tuple[str, str]]) -> list[Pair]:
    """The tokens of each (context, continuation), as those of the whole text: a token that crosses the border counts
    to the continuation, so no text is made that the model never saw in this form."""
    begin = tokenizer.document_id
    if begin is None:
        raise StageError(
            "The tokenizer has no token that begins a document.", "Add bos_token to its tokenizer_config.json."
        )
    contexts = list(dict.fromkeys(context for context, _ in texts))
    alone: Mapping[str, list[int]] = dict(zip(contexts, tokenizer.encode_batch(contexts), strict=True))
    pairs = []
    for (context, _), whole in zip(texts, tokenizer.encode_batch([a + b for a, b in texts]), strict=True):
        shared = 0
        for first, second in zip(alone[context], whole, strict=False):
            if first != second:
                break
            shared += 1
        shared = min(shared, len(whole) - 1)
        pairs.append(([begin, *whole[:shared]], whole[shared:]))
    return pairs
