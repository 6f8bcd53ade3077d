"""Answers in a model's own words: read from published files, extracted, matched, judged, and summed up as scores."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.evaluation import free_form
from maquette.evaluation.config import ProtocolConfig, SuiteConfig
from maquette.evaluation.free_form import ask_freely, extracted, is_match, normalized
from maquette.evaluation.question_files import read_task
from maquette.evaluation.questions import FREE, Question
from maquette.evaluation.suite import build_suite, run_suite
from maquette.evaluation.summary import against_chance, evaluation_identity, scores
from maquette.feedback.comparison import Comparison, Judgement
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.generation import Generation
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

TOKENIZER = train_tokenizer([], TokenizerConfig(kind="byte"))
MODEL = LanguageModel(
    TransformerConfig(
        TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=96
    ),
    seed=0,
).eval()


def read(folder: Path, *rows: dict[str, Any]) -> tuple[Question, ...]:
    (folder / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = read_task("task", folder / "task.jsonl")
    assert task.template == FREE and task.chance == 0.0
    return task.questions


def test_published_files_are_read(tmp_path: Path) -> None:
    (gsm,) = read(tmp_path, {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"})
    assert gsm == Question("0", "Two and two?", ("4",), 0)
    (trivia,) = read(tmp_path, {"question": "Who?", "answer": {"value": "Ada", "aliases": ["Lovelace", "Ada"]}})
    assert trivia.options == ("Ada", "Lovelace")
    (squad,) = read(tmp_path, {"context": "Ada wrote.", "question": "Who?", "answers": {"text": ["Ada"]}, "id": "x"})
    assert (squad.id, squad.context, squad.options) == ("x", "Ada wrote.\nWho?", ("Ada",))
    assert read(tmp_path, {"context": "One, two,", "answers": ["three", "3"]})[0].options == ("three", "3")
    with pytest.raises(StageError, match="a place among options, and there are none"):
        read(tmp_path, {"question": "Which?", "answer": "B"})


def test_answers_are_normalized_as_squad_does_and_numbers_stay_whole() -> None:
    assert normalized("The  Cat's hat.") == "cats hat"
    assert [normalized(text) for text in ("-3.5", "$1,234,567.", "4.0")] == ["-3.5", "1234567", "4.0"]
    assert extracted("so 3, then -4.", r"-?\d+") == "-4"
    assert extracted("x = 7 and x = 8;", r"x = (\d)") == "8" and extracted("none", r"\d") == ""
    question = Question("1", "?", ("1,024", "two to the ten"), 0)
    assert is_match("It is 1024.", question, r"[\d,]+") and not is_match("It is 1024.", question, None)
    assert is_match("Two to the ten!", question, None) and not is_match("", question, r"\d+")
    with pytest.raises(ConfigError, match=r"suite\.answer_pattern=\( is not a regular expression"):
        SuiteConfig(answer_pattern="(").validate()


def test_what_is_written_is_marked_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(model: Any, prompts: list[Any], **options: Any) -> list[Generation]:
        assert options["max_tokens"] == 8 and options["stop"] == ["\n"]
        return [Generation(tuple(prompt), (), (), f" {number}", "stop") for number, prompt in enumerate(prompts)]

    class Judge:
        name = "prefers a zero"

        def judge(self, comparisons: list[Comparison]) -> list[Judgement]:
            assert comparisons[0].first == "0" and comparisons[0].second == "1"
            return [Judgement(1.0 if one.first == "0" else None) for one in comparisons]

    monkeypatch.setattr(free_form, "generate", written)
    questions = [Question(str(n), "x" * (100 if n == 2 else 5), ("1",), 0) for n in range(3)]
    results = ask_freely(
        MODEL, TOKENIZER, questions, ProtocolConfig().question, pool=questions,
        suite=SuiteConfig(answer_tokens=8), judge=Judge(),
    )  # fmt: skip
    marks = [{"exact_match": False, "judged": True}, {"exact_match": True, "judged": None}, None]
    assert [result["marks"] for result in results] == marks and results[2]["written"] is None
    assert results[0]["content"]["log_probs"][0] < 0


def test_from_a_file_to_scores(tmp_path: Path) -> None:
    with torch.no_grad():
        rows = [{"question": f"{n}+{n}=?", "answer": str(2 * n)} for n in range(6)]
        (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked = SuiteConfig("mine", [], files={"sums": str(tmp_path / "sums.jsonl")}, likelihood=False, answer_tokens=4)
        suite = build_suite(asked, None)
        protocol = ProtocolConfig(resamples=50)
        judge = {"kind": "callable", "callable": "maquette.evaluation.free_form:normalized"}
        assert evaluation_identity_of(tmp_path, suite, asked) != evaluation_identity_of(
            tmp_path, suite, SuiteConfig("mine", [], files=asked.files, likelihood=False, judge=judge)
        )
        results = run_suite(MODEL, TOKENIZER, suite, suite=asked, protocol=protocol, folder=tmp_path)
    (row,) = scores(suite.tasks, results, protocol)
    assert (row["protocol"], row["questions"], row["chance"]) == ("exact_match", 6, 0.0)


def evaluation_identity_of(folder: Path, suite: Any, asked: SuiteConfig) -> str:
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return str(evaluation_identity(folder, suite, None, asked, ProtocolConfig())["comparable"])


def test_what_is_more_than_guessing() -> None:
    items = {"good": {str(n): float(n % 4 < 3) for n in range(100)}, "guess": {str(n): n % 2 * 1.0 for n in range(100)}}
    power = against_chance({name: {"chance": 0.5} for name in items}, items)
    assert power["good"]["adjusted"] == pytest.approx(2 * power["good"]["p_value"]) and power["good"]["adjusted"] < 1e-4
    assert power["guess"]["adjusted"] == power["guess"]["p_value"] == pytest.approx(0.5)
    # two models of accuracy 0.5 on 100 questions: (1.96 + 0.84) sqrt(2 * 0.25 / 99)
    assert power["guess"]["detectable"] == pytest.approx(2.8016 * (0.5 / 99) ** 0.5, rel=1e-3)
