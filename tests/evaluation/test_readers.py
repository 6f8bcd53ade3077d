"""Question files of others: every format as it is published, and what is not certain is refused and shown."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import StageError
from maquette.evaluation.question_files import read_task
from maquette.evaluation.questions import Question, QuestionSet


def lines(path: Path, *rows: Any) -> QuestionSet:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_task("exam", path)


def table(path: Path, *rows: list[str], mark: str = "") -> QuestionSet:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(mark)
        csv.writer(file).writerows(rows)
    return read_task("exam", path)


OPTIONS = ("Trout", "Owl", "Oak", "Iron")
FISH = ["Which is a fish?", *OPTIONS]


@pytest.mark.parametrize(
    ("head", "row"),
    [
        (["id", "prompt", *"ABCD", "answer"], ["0", *FISH, "A"]),  # a science exam on Kaggle
        (["Question", *"ABCD", "Answer"], [*FISH, "A"]),
        (["", "Question", *"ABCD", "Answer", "Subject"], ["0", *FISH, "A", "biology"]),  # MMMLU
        (["question", "subject", *"ABCD", "answer"], [FISH[0], "biology", *OPTIONS, "A"]),
        (["answer", "question", *"ABCD"], ["A", *FISH]),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_heads_of_csv_files(tmp_path: Path, head: list[str], row: list[str], mark: str) -> None:
    task = table(tmp_path / "exam.csv", head, row, mark=mark)
    (one,) = task.questions
    assert (one.context, one.options, one.answer) == (FISH[0], OPTIONS, 0)
    assert task.template == "question" and (one.subject == "biology") == ("biology" in row)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([["Frage", *"ABCD", "Antwort"], [*FISH, "A"]], "of no format that is known. The row is FRAGE"),
        ([["loesung", "frage", *"ABCD"], ["A", *FISH]], "of no format that is known"),
        ([["nr", "item", "o1", "o2", "key"], ["1", "Fish?", "Trout", "Owl", "A"]], "The row is nr: 1, item: Fish?"),
        ([["question;A;B;answer"], ["Fish?;Trout;Owl;A"]], "of no format that is known"),
        ([["question", "passage", "A", "B", "answer"], ["Why?", "Long ago", "x", "y", "A"]], "'passage' is not a key"),
        ([["question", *"ABD", "answer"], ["Fish?", *OPTIONS[:3], "A"]], "of no format that is known"),
        ([["question", "A", "B", "answer"], ["Fish?", "Trout", "or", "Owl", "A"]], "row 1 has 5 cells, the first"),
        ([["question", "A", "A", "answer"], ["Fish?", "Trout", "Owl", "A"]], "names a column twice"),
        ([["question", "Question", "A", "B", "answer"], ["x", "y", "Trout", "Owl", "A"]], "two columns question"),
    ],
)  # fmt: skip
def test_a_csv_file_that_is_not_certain_is_refused(tmp_path: Path, rows: list[list[str]], reason: str) -> None:
    with pytest.raises(StageError) as caught:
        table(tmp_path / "exam.csv", *rows)
    reason = reason.replace("FRAGE", "frage: Which is a fish?, A: Trout")
    assert str(caught.value).startswith(str(tmp_path / "exam.csv")) and reason in str(caught.value)


def test_a_question_about_letters_is_no_head(tmp_path: Path) -> None:
    task = table(tmp_path / "exam.csv", ["Which letter is first?", "B", "A", "D", "C", "B"], [*FISH, "A"])
    assert [(one.options, one.answer) for one in task.questions] == [(("B", "A", "D", "C"), 1), (OPTIONS, 0)]


@pytest.mark.parametrize("name", ["exam.csv", "exam.jsonl"])
def test_answers_that_count_from_1(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    head = ["question", *"ABCD", "answer"]
    rows = [[f"Which is {number}?", *OPTIONS, str(number)] for number in (1, 2, 4)]
    if name.endswith("csv"):
        task = table(tmp_path / name, head, *rows)
    else:
        task = lines(tmp_path / name, *({"question": q, "choices": o, "answer": int(a)} for q, *o, a in rows))
    assert [one.answer for one in task.questions] == [0, 1, 3] and not task.skipped
    assert "the answers count from 1" in "".join(capsys.readouterr())
    assert [one.answer for one in table(tmp_path / "zero.csv", head, *rows[:2], [*FISH, "0"]).questions] == [1, 2, 0]


def test_answers_that_may_mean_two_things(tmp_path: Path) -> None:
    head = ["question", *"ABCD", "answer"]
    with pytest.raises(StageError, match=r"exam\.csv: answer 4 may be an option's place or its text"):
        table(tmp_path / "exam.csv", head, ["2 + 2?", "3", "4", "5", "6", "4"], ["1 + 2?", "3", "4", "5", "6", "3"])
    with pytest.raises(StageError, match=r"row 2: answer 5 of 4 options"):
        table(tmp_path / "exam.csv", head, [*FISH, "4"], ["Else?", *OPTIONS, "5"])


def test_published_formats(tmp_path: Path) -> None:
    pro = {"question_id": 7, "question": "Fish?", "options": ["Owl", "Trout"], "answer": "B", "answer_index": 1}
    pro |= {"cot_content": "", "category": "biology", "src": "x"}
    assert lines(tmp_path / "a.jsonl", pro).questions == (Question("0", "Fish?", ("Owl", "Trout"), 1),)
    with pytest.raises(StageError, match="answer B is not the option of answer_index 0"):
        lines(tmp_path / "a.jsonl", pro | {"answer_index": 0})
    choices = {"text": ["warmth", "ice"], "label": ["A", "B"]}
    book = {"id": "7-9", "question_stem": "The sun gives", "choices": choices, "answerKey": "A", "fact1": "x"}
    task = lines(tmp_path / "b.jsonl", book)
    assert task.template == "completion"
    assert task.questions == (Question("7-9", "The sun gives", (" warmth", " ice"), 0),)
    gap = {"sentence": "Ann thanked Bea because _ had helped.", "option1": "Ann", "option2": "Bea", "answer": "2"}
    rows = [gap | {"qID": "q1"}, gap | {"qID": "q2", "sentence": "_ thanked Bea.", "answer": ""}]
    task = lines(tmp_path / "c.jsonl", *rows)
    assert task.questions == (Question("q1", "Ann thanked Bea because", (" Ann had helped.", " Bea had helped."), 1),)
    assert task.skipped == {"no right answer": 1}


def test_published_formats_with_two_solutions_passages_and_targets(tmp_path: Path) -> None:
    piqa = {"goal": "Keep bread fresh.", "sol1": "Freeze it.", "sol2": "Wet it.", "label": 0}
    task = lines(tmp_path / "piqa.jsonl", piqa, piqa | {"label": -1})  # -1: of its test, whose answers are kept back
    assert (task.template, task.skipped) == ("question", {"no right answer": 1})
    assert task.questions == (Question("0", "Keep bread fresh.", ("Freeze it.", "Wet it."), 0),)
    sciq = {"question": "What makes food?", "distractor3": "stem", "distractor1": "root", "distractor2": "bark",
            "correct_answer": "leaf", "support": " Leaves make it."}  # fmt: skip
    task = lines(tmp_path / "sciq.jsonl", sciq, sciq | {"support": ""})
    prompt, options = "Question: What makes food?\nAnswer:", (" bark", " leaf", " root", " stem")
    assert task.template == "completion"
    assert task.questions == (
        Question("0", f"Leaves make it.\n{prompt}", options, 1), Question("1", prompt, options, 1)
    )  # fmt: skip
    truthful = {"question": "What is a hen?", "mc2_targets": {"choices": ["x"], "labels": [1]}}
    targets = {"choices": ["A bird", "A star", "A bear"], "labels": [1, 0, 0]}
    for value in (targets, json.dumps(targets)):
        task = lines(tmp_path / "truthful.jsonl", truthful | {"mc1_targets": value})
        options = (" A bear", " A bird", " A star")
        assert task.questions == (Question("0", "Question: What is a hen?\nAnswer:", options, 1),)
    with pytest.raises(StageError, match=r"line 1: can't be read \(ValueError: mc1_targets must have a label"):
        lines(tmp_path / "truthful.jsonl", truthful | {"mc1_targets": targets | {"labels": [1, 1, 0]}})


@pytest.mark.parametrize(
    ("given", "answer"),
    [({"answer": True}, 1), ({"answer": False}, 0), ({"answer": "no"}, 0), ({"label": 1, "idx": 7}, 1)],
)
def test_yes_or_no_of_a_passage(tmp_path: Path, given: dict[str, Any], answer: int) -> None:
    row = {"question": "is a hen a bird", "passage": "Hens lay eggs.", "title": "Hen"}
    task = lines(tmp_path / "boolq.jsonl", row | given)
    prompt = "Hens lay eggs.\nQuestion: is a hen a bird?\nAnswer:"
    assert task.questions == (Question(str(given.get("idx", 0)), prompt, (" no", " yes"), answer),)
    with pytest.raises(StageError, match="the answer must be true or false, got a wing"):
        lines(tmp_path / "boolq.jsonl", row | {"answer": "a wing"})


@pytest.mark.parametrize("target", [1, "1", " Trout"])
def test_samples_of_the_harness(tmp_path: Path, target: Any) -> None:
    row = {"doc_id": 3, "doc": {"q": "Fish?"}, "target": target, "resps": [], "filtered_resps": [], "acc": 1.0}
    pairs = [["Fish?\nAnswer:", " Owl"], ["Fish?\nAnswer:", " Trout"]]
    for arguments in (pairs, {f"gen_args_{n}": {"arg_0": a, "arg_1": b} for n, (a, b) in enumerate(pairs)}):
        task = lines(tmp_path / "samples_x.jsonl", row | {"arguments": arguments})
        assert task.template == "completion"
        assert task.questions == (Question("3", "Fish?\nAnswer:", (" Owl", " Trout"), 1),)
    with pytest.raises(StageError, match="not the continuations of one context"):
        lines(tmp_path / "samples_x.jsonl", row | {"arguments": [["a", " x"], ["b", " x"]]})
