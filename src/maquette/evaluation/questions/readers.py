"""Question files of others, from disk: MMLU, ARC and HellaSwag as they are published, in JSONL, CSV or Parquet.

The format is known by the columns:

| kind | columns |
|---|---|
| this project's own | `context`, `options`, `answer` |
| MMLU | `question`, `choices`, `answer` (place or letter); or its CSV without a head: question, A, B, C, D, letter |
| ARC | `question`, `choices` with `text` and `label`, `answerKey`; or `question` with `stem` and `choices` |
| HellaSwag | `ctx` (or `ctx_a`, `ctx_b`), `endings`, `label` |
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.evaluation.questions.questions import LETTERS, Question, QuestionSet, answer_place, from_row, sound

COMPLETION, QUESTION = "completion", "question"
"""The names of the two templates: options that go on from a text, and answers to a question."""


def read_task(name: str, path: Path | str, *, template: str | None = None, limit: int | None = None) -> QuestionSet:
    """The questions of a file. `template` by default is that of its format; the first `limit` are read.

    Raises `StageError` that names the file and row: a format that is not known, a row that can't be read, an id that
    comes twice. Questions without a right answer or with an empty option are skipped and counted.
    """
    path = Path(path).expanduser()
    rows = list(_rows(path))[:limit]
    if not rows:
        raise StageError(f"{path} has no rows.", "Give a file with one question a row.")
    read, usual = _format(rows[0], path)
    questions = []
    for place, row in enumerate(rows):
        try:
            questions.append(read(row, place))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise StageError(
                f"{path}, row {place + 1}: can't be read ({type(error).__name__}: {error}).", "Mend or remove it."
            ) from None
    return dataclasses.replace(sound(f"{name} ({path})", questions, template or usual), name=name)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".json"):
            yield from _json_rows(path)
        elif suffix == ".csv":
            yield from _csv_rows(path)
        elif suffix == ".parquet":
            from pyarrow.parquet import read_table

            yield from read_table(path).to_pylist()
        else:
            raise StageError(f"{path}: {suffix or 'no ending'} is not known.", "Give .jsonl, .json, .csv or .parquet.")
    except FileNotFoundError:
        raise StageError(f"{path} is missing.", "Download the file first: nothing is fetched here.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"{path} can't be read: {error}.", "Is it complete?") from None
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise StageError(f"{path} is damaged: {error}.", "Fetch the file again.") from None


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise StageError(f"{path}, line {number}: {error}.", "Each line holds one JSON object.") from None


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        return
    known = {"question", "context", "ctx", "ctx_a"}
    if known & {cell.strip().lower() for cell in rows[0]}:
        head = [cell.strip() for cell in rows[0]]
        for row in rows[1:]:
            yield {name: _cell(value) for name, value in zip(head, row, strict=False)}
        return
    for number, row in enumerate(rows, start=1):
        if len(row) < 4:
            raise StageError(
                f"{path}, row {number}: {len(row)} columns, and the file has no head.",
                "Without a head the columns are question, the options, and the right letter.",
            )
        yield {"question": row[0], "choices": row[1:-1], "answer": row[-1]}


def _cell(value: str) -> Any:
    """Lists and tables stand in CSV cells as JSON."""
    if value[:1] in "[{" and value:
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _format(row: Mapping[str, Any], path: Path) -> tuple[Callable[[Mapping[str, Any], int], Question], str]:
    columns = set(row)
    if {"context", "options", "answer"} <= columns:
        return from_row, COMPLETION
    if "endings" in columns and columns & {"ctx", "ctx_a"}:
        return _hellaswag, COMPLETION
    if "answerKey" in columns and "question" in columns:
        return _arc, QUESTION
    if {"question", "choices", "answer"} <= columns or {"question", "A", "B", "answer"} <= columns:
        return _mmlu, QUESTION
    raise StageError(
        f"{path}: the columns {', '.join(sorted(columns)[:8])} are those of no format that is known.",
        "MMLU: question, choices, answer. ARC: question, choices, answerKey. HellaSwag: ctx, endings, label. "
        "Own: context, options, answer.",
    )


def _mmlu(row: Mapping[str, Any], place: int) -> Question:
    choices = row["choices"] if "choices" in row else [row[letter] for letter in LETTERS if letter in row]
    return Question(
        str(row.get("id", place)), str(row["question"]).strip(), tuple(str(choice).strip() for choice in choices),
        answer_place(row["answer"]), str(row.get("subject", "")),
    )  # fmt: skip


def _arc(row: Mapping[str, Any], place: int) -> Question:
    question, choices = row["question"], row.get("choices")
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
    options = tuple(" " + str(ending).strip() if str(ending).strip() else "" for ending in row["endings"])
    # ActivityNet's and WikiHow's rows are numbered apart: only with its source is a row's number its own.
    source, number = row.get("source_id"), str(row.get("ind", row.get("id", place)))
    return Question(f"{source}/{number}" if source else number, prompt.strip(), options, answer_place(row["label"]))
