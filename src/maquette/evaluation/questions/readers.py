"""Question files of others, from disk: MMLU, ARC and HellaSwag as they are published, in JSONL, CSV or Parquet.

The format is known by the columns:

| kind | columns |
|---|---|
| this project's own | `context`, `options`, `answer` |
| MMLU | `question`, `choices`, `answer` (place or letter); or its CSV without a head: question, A, B, C, D, letter |
| ARC | `question`, `choices` with `text` and `label`, `answerKey`; or `question` with `stem` and `choices` |
| HellaSwag | `ctx` (or `ctx_a`, `ctx_b`), `endings`, `label` |
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.evaluation.questions.questions import LETTERS, Question, QuestionSet, answer_place, sound
from maquette.evaluation.row_files import read_rows

COMPLETION, QUESTION = "completion", "question"
"""The names of the two templates: options that continue a text, and answers to a question."""


def read_task(name: str, path: Path | str, *, limit: int | None = None) -> QuestionSet:
    """The questions of a file; the first `limit` are read.

    Raises `StageError` that names the file and row: a format that is not known, a row that can't be read, an id that
    comes twice. Questions without a right answer or with an empty option are skipped and counted.
    """
    rows = list(islice(read_rows(path, "questions", ("question", "context", "ctx", "ctx_a")), limit))
    if not rows:
        raise StageError(f"{path} has no rows.", "Give a file with one question a row.")
    read, template = _format(rows[0][1], rows[0][0])
    questions = []
    for number, (place, row) in enumerate(rows):
        try:
            questions.append(read(row, number))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise StageError(
                f"{place}: can't be read ({type(error).__name__}: {error}).", "Mend or remove it."
            ) from None
    return dataclasses.replace(sound(f"{name} ({path})", questions, template), name=name)


def _format(row: Mapping[Any, Any], place: str) -> tuple[Callable[[Mapping[Any, Any], int], Question], str]:
    """How rows like this one are read, and the template that their questions are asked with."""
    if 0 in row:
        return _headless_mmlu, QUESTION
    columns = set(row)
    if {"context", "options", "answer"} <= columns:
        return _own, COMPLETION
    if "endings" in columns and columns & {"ctx", "ctx_a"}:
        return _hellaswag, COMPLETION
    if "answerKey" in columns and "question" in columns:
        return _arc, QUESTION
    if {"question", "choices", "answer"} <= columns or {"question", "A", "B", "answer"} <= columns:
        return _mmlu, QUESTION
    raise StageError(
        f"{place}: the columns {', '.join(sorted(columns)[:8])} are those of no format that is known.",
        "MMLU: question, choices, answer. ARC: question, choices, answerKey. HellaSwag: ctx, endings, label. "
        "Own: context, options, answer.",
    )


def _own(row: Mapping[str, Any], place: int) -> Question:
    options = tuple(str(option) for option in _listed(row["options"]))
    return Question(
        str(row.get("id", place)), str(row["context"]), options, answer_place(row["answer"]),
        str(row.get("subject", "")),
    )  # fmt: skip


def _listed(value: Any) -> Any:
    """A CSV cell holds a list or a table as JSON."""
    return json.loads(value) if isinstance(value, str) else value


def _headless_mmlu(row: Mapping[int, str], place: int) -> Question:
    if len(row) < 4:
        raise ValueError("without a head the columns are the question, its options and the letter of the right one")
    question, *choices, answer = row.values()
    return _mmlu({"question": question, "choices": choices, "answer": answer}, place)


def _mmlu(row: Mapping[str, Any], place: int) -> Question:
    choices = _listed(row["choices"]) if "choices" in row else [row[letter] for letter in LETTERS if letter in row]
    return Question(
        str(row.get("id", place)), str(row["question"]).strip(), tuple(str(choice).strip() for choice in choices),
        answer_place(row["answer"]), str(row.get("subject", "")),
    )  # fmt: skip


def _arc(row: Mapping[str, Any], place: int) -> Question:
    question, choices = row["question"], _listed(row.get("choices"))
    if isinstance(question, Mapping):
        question, choices = question["stem"], question["choices"]
    if isinstance(choices, Mapping):
        texts, labels = list(choices["text"]), [str(label) for label in choices["label"]]
    else:
        texts, labels = [choice["text"] for choice in choices or ()], [str(c["label"]) for c in choices or ()]
    key = str(row["answerKey"]).strip()
    answer = labels.index(key) if key in labels else -1
    return Question(str(row.get("id", place)), str(question).strip(), tuple(str(t).strip() for t in texts), answer)


def _hellaswag(row: Mapping[str, Any], place: int) -> Question:
    context = row["ctx"] if "ctx" in row else f"{row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    activity = str(row.get("activity_label") or "")
    prompt = f"{activity}: {context}" if activity else str(context)
    options = tuple(" " + str(ending).strip() if str(ending).strip() else "" for ending in _listed(row["endings"]))
    # ActivityNet's and WikiHow's rows are numbered apart: only with its source is a row's number its own.
    source, number = row.get("source_id"), str(row.get("ind", row.get("id", place)))
    return Question(f"{source}/{number}" if source else number, prompt.strip(), options, answer_place(row["label"]))
