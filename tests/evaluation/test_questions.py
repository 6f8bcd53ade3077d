"""Question files, embedded tasks, prompts and protocols: by hand, with a scripted model, and what is broken."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maquette.artifacts import StageError
from maquette.corpus.document import Document
from maquette.evaluation import multiple_choice
from maquette.evaluation.config import EMBEDDED, PROTOCOLS, completion_template, question_template
from maquette.evaluation.embedded_questions import make_task
from maquette.evaluation.multiple_choice import ask, predictions
from maquette.evaluation.question_files import read_task
from maquette.evaluation.questions import (
    Question,
    choose_shots,
    content_prompt,
    letter_prompt,
    option_orders,
    sound,
    split,
)
from maquette.model.scoring import Continuation
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

QUESTION = Question("q", "2 + 2?", ("3", "4", "22"), 1)
OTHER = Question("o", "1 + 1?", ("2", "11", "0"), 0)


def test_mmlu(tmp_path: Path) -> None:
    rows = [["What is 2 + 2?", "3", "4", "5", "6", "B"], ["And {braces}, 'quotes'?", "a", "b", "c", "d", "D"]]
    with (tmp_path / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    table = {"question": ["What is 2 + 2?"], "choices": [["3", "4", "5", "6"]], "answer": [1], "subject": ["maths"]}
    pq.write_table(pa.table(table), tmp_path / "test.parquet")
    task = read_task("mmlu", tmp_path / "test.csv")
    assert task.template == "question" and task.chance == 0.25
    assert [question.answer for question in task.questions] == [1, 3]
    assert read_task("mmlu", tmp_path / "test.parquet").questions[0].options == ("3", "4", "5", "6")


def test_arc_and_hellaswag(tmp_path: Path) -> None:
    choices = {"text": ["sun", "moon", "sea"], "label": ["1", "2", "3"]}
    old = [{"text": "sun", "label": "A"}, {"text": "sea", "label": "B"}]
    lines = [
        {"id": "x", "question": "What shines?", "choices": choices, "answerKey": "1"},
        {"id": "y", "question": {"stem": "And by night?", "choices": old}, "answerKey": "B"},
        {"id": "z", "question": "Nothing?", "choices": choices, "answerKey": ""},
    ]
    (tmp_path / "arc.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arc = read_task("arc", tmp_path / "arc.jsonl")
    assert [(question.id, question.answer) for question in arc.questions] == [("x", 0), ("y", 1)]
    assert arc.skipped == {"no right answer": 1}
    line = {"ind": 7, "activity_label": "Baking", "ctx": "She opens the oven.", "endings": ["Then", "Or"], "label": "1"}
    (tmp_path / "hs.jsonl").write_text(json.dumps(line))
    (question,) = read_task("hellaswag", tmp_path / "hs.jsonl").questions
    assert question == Question("7", "Baking: She opens the oven.", (" Then", " Or"), 1)
    # as published: rows of its two sources are numbered apart
    rows = [line | {"source_id": source} for source in ("wikihow~62", "activitynet~v_x")]
    (tmp_path / "hs2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = read_task("hellaswag", tmp_path / "hs2.jsonl").questions
    assert [question.id for question in both] == ["wikihow~62/7", "activitynet~v_x/7"]


def test_broken_files(tmp_path: Path) -> None:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    good = {"id": "a", "context": "x", "options": [" 1", " 2"], "answer": 0}
    empty, twins = good | {"id": "b", "options": [" 1", " "]}, good | {"id": "c", "options": ["1", "1"]}
    task = read_task("own", write("own.jsonl", "\n".join(map(json.dumps, (good, empty, twins)))))
    assert task.skipped == {"an empty option": 1, "two equal options": 1}
    for name, text, message in (
        ("twice.jsonl", f"{json.dumps(good)}\n{json.dumps(good)}", "the id 'a' comes twice"),
        ("cut.jsonl", '{"context": "x', r"cut.jsonl, line 1"),
        ("other.jsonl", '{"prompt": 1}', "columns prompt are those of no format"),
        ("empty.jsonl", "", "has no rows"),
        ("bad.jsonl", json.dumps(good | {"options": None}), "line 1: can't be read"),
        ("none.jsonl", json.dumps(good | {"answer": 5}), "no question that can be asked: 1 with no right answer"),
        ("short.csv", "a,b\n", "has no rows"),
        ("what.txt", "x", ".txt is not known"),
        ("cut.parquet", "x", "cut.parquet"),
    ):
        with pytest.raises(StageError, match=message):
            read_task("t", write(name, text))
    with pytest.raises(StageError, match=r"missing|does not exist"):
        read_task("t", tmp_path / "nowhere.csv")


def documents() -> list[Document]:
    texts = []
    for module in range(6):
        names = [f"work_{module}_{number}" for number in range(8)]
        code = "\n\n".join(f"def {name}(first, second=1):\n    return first" for name in names)
        docs = "\n\n".join(f"{name}\nDo the work of {name} with two numbers." for name in names)
        texts += [Document(f"m{module}/code", code, domain="code"), Document(f"m{module}/docs", docs, domain="docs")]
        words = " ".join(f"word{module}_{number}" for number in range(400))
        texts.append(Document(f"m{module}/readme", words, domain="readme"))
    return texts


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_tasks(name: str) -> None:
    """As many as asked, the right answer in every place, the same from the same seed, and true."""
    task = make_task(name, documents(), 30, seed=0)
    assert len(task.questions) >= 12 and not task.skipped
    assert len({question.answer for question in task.questions}) == len(task.questions[0].options)
    assert make_task(name, documents(), 30, seed=0) == task
    assert make_task(name, documents(), 30, seed=1).digest != task.digest
    for question in task.questions:
        right = question.options[question.answer]
        if name == "arithmetic":
            assert eval(question.context.removesuffix("=")) == int(right)
        elif name == "docstring":
            assert question.context.removeprefix("def ").partition("(")[0] in right
        elif name == "continuation":
            source = next(d for d in documents() if d.id == question.id.split("/", 1)[1].rsplit("/", 1)[0])
            assert question.context + right in source.text
    with pytest.raises(StageError, match="hold 0 questions for the task docstring"):
        make_task("docstring", [], 30, seed=0)


def test_prompts_by_hand() -> None:
    template = question_template()
    assert content_prompt(template, QUESTION, [OTHER]) == ("Question: 1 + 1?\nAnswer: 2\n\nQuestion: 2 + 2?\nAnswer:")
    assert letter_prompt(template, QUESTION, [1, 2, 0], [OTHER]) == (
        "Question: 1 + 1?\nA. 2\nB. 11\nC. 0\nAnswer: A\n\nQuestion: 2 + 2?\nA. 4\nB. 22\nC. 3\nAnswer:"
    )
    assert option_orders(3, 9) == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert choose_shots([QUESTION, OTHER], QUESTION, 1, 0) == [OTHER]
    with pytest.raises(StageError, match="2 shots need 3 questions"):
        choose_shots([QUESTION, OTHER], QUESTION, 2, 0)


def test_tokens_are_those_of_the_whole_text() -> None:
    tokenizer = train_tokenizer(["the mice ate the cheese " * 50], TokenizerConfig(vocab_size=300))
    texts = [("the ", "mice ate"), ("", "the"), ("the mi", "ce")]
    for (context, rest), (before, after) in zip(texts, split(tokenizer, texts), strict=True):
        assert before[0] == tokenizer.document_id
        assert [*before[1:], *after] == tokenizer.encode(context + rest)
        assert after


def scripted(monkeypatch: pytest.MonkeyPatch, score: Any) -> list[Sequence[Any]]:
    """Replaces the model by `score(context, continuation) -> log-probabilities`; gives the calls' pairs."""
    calls: list[Sequence[Any]] = []

    def fake(model: Any, pairs: Sequence[Any], **_: Any) -> list[Continuation]:
        calls.append(pairs)
        rows = [np.asarray(score(bytes(c[1:]).decode(), bytes(t).decode()), float) for c, t in pairs]
        return [Continuation(row, np.zeros(len(row))) for row in rows]

    monkeypatch.setattr(multiple_choice, "score_continuations", fake)
    return calls


class Bytes:
    """A tokenizer of bytes, its document token 0."""

    document_id = 0

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]


class Context:
    class config:  # noqa: N801
        max_position_embeddings = 500


def test_protocols_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that gives each byte -1, prefers long words a little, and always writes (B)."""

    def score(context: str, continuation: str) -> list[float]:
        if continuation.strip(" (\n") in "ABC" and "A. " in context:
            return [-0.1 if byte in " (\n" else -1.0 * (byte != "B") - 0.5 for byte in continuation]
        value = -1.0 if continuation == "22" else -1.2
        return [value + 0.5 * (context == "")] * len(continuation)

    scripted(monkeypatch, score)
    task = sound("t", [Question("q", "2 + 2?", ("3", "4!", "22"), 1)], "completion")
    (result,) = ask(Context(), Bytes(), task.questions, completion_template(), pool=task.questions, orders=3)  # type: ignore[arg-type]
    chosen = predictions(result, task.questions[0])
    assert set(chosen) == set(PROTOCOLS)
    assert chosen["likelihood"] == [0]  # one byte costs least
    assert chosen["per_byte"] == [2]  # a byte of "22" costs least
    assert chosen["per_token"] == [2]
    assert chosen["unconditional"] == [0]  # every byte was half cheaper without the question
    assert chosen["letter"] == [1, 2, 0]  # what stands at B in each order
    assert chosen["constrained"] == [1, 2, 0]


def test_too_long_is_counted_and_each_text_is_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, lambda context, continuation: [-1.0] * len(continuation))

    class Short:
        class config:  # noqa: N801
            max_position_embeddings = 40

    long = Question("long", "x" * 38, ("yes", "no"), 0)
    results = ask(Short(), Bytes(), [QUESTION, long], completion_template(), pool=[QUESTION, long])  # type: ignore[arg-type]
    assert results[0]["content"] is not None and results[1]["content"] is None and results[1]["letters"] is None
    pairs = [(tuple(context), tuple(rest)) for context, rest in calls[0]]
    assert len(set(pairs)) == len(pairs)
    assert predictions(results[1], long) == dict.fromkeys(PROTOCOLS)
