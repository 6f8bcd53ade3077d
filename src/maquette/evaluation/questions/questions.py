"""Questions with one right answer, and tasks made of them. What is broken is refused, or skipped and counted."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, write_text

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """`options[answer]` is right. A completion's options go on from `context` as they stand (spaces included)."""

    id: str
    context: str
    options: tuple[str, ...]
    answer: int
    subject: str = ""


@dataclass(frozen=True)
class Task:
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
        """Accuracy of who guesses."""
        return sum(1 / len(question.options) for question in self.questions) / max(1, len(self.questions))


def fault(question: Question) -> str | None:
    """Why a question can't be asked; None where it can."""
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


def sound(name: str, questions: Iterable[Question], template: str) -> Task:
    """A task of the questions that can be asked, the others counted. Raises `StageError` for an id that comes twice
    (results are kept by id) and where nothing is left."""
    kept: dict[str, Question] = {}
    skipped: Counter[str] = Counter()
    for question in questions:
        if reason := fault(question):
            skipped[reason] += 1
        elif question.id in kept:
            raise StageError(f"{name}: the id {question.id!r} comes twice.", "Give each question an id of its own.")
        else:
            kept[question.id] = question
    if not kept:
        told = ", ".join(f"{count} with {reason}" for reason, count in skipped.items()) or "the file is empty"
        raise StageError(f"{name} has no question that can be asked: {told}.", "Look at the file.")
    return Task(name, template, tuple(kept.values()), dict(skipped))


def write_task(path: Path, task: Task) -> None:
    """One JSON line for each question, in this project's own format."""
    lines = (json.dumps(asdict(question), ensure_ascii=False) for question in task.questions)
    write_text(path, "".join(f"{line}\n" for line in lines))


def from_row(row: Mapping[str, Any], place: int) -> Question:
    """A question of this project's own format: id, context, options, answer. Raises `ValueError` and `KeyError`."""
    return Question(
        str(row.get("id", place)), str(row["context"]), tuple(str(option) for option in row["options"]),
        answer_place(row["answer"]), str(row.get("subject", "")),
    )  # fmt: skip


def answer_place(answer: Any) -> int:
    """0, "0", "A" or "a" is the first option; -1 where there is no answer."""
    text = str(answer).strip()
    if text.lstrip("-").isdigit():
        return int(text)
    if len(text) == 1 and text.upper() in LETTERS:
        return LETTERS.index(text.upper())
    return -1
