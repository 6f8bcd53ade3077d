"""Files of battles: what counts, what is skipped and why; ratings of them in every way; agreement of judges."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli import ratings
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.evaluation.arena import RAW, REWEIGHTED, STYLED, Battle, agreement_of_judges, rate, read_battles


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(first: str, second: str, winner: str, **more: Any) -> dict[str, Any]:
    return {"model_a": first, "model_b": second, "winner": winner, **more}


def simulated(count: int) -> list[dict[str, Any]]:
    """Three models of equal skill: who writes more wins more, and c wins on poems, of which there are few."""
    numbers = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        a, b = (str(one) for one in numbers.choice(["a", "b", "c"], 2, replace=False))
        sizes = [int(numbers.integers(10, 40) * (2 if name == "a" else 1)) for name in (a, b)]
        poem = numbers.random() < 0.2
        odds = 2 * (sizes[0] - sizes[1]) / sum(sizes) + poem * 1.5 * ((a == "c") - (b == "c"))
        won = numbers.random() < 1 / (1 + np.exp(-odds))
        rows.append(
            row(a, b, a if won else b, answer_a="x" * sizes[0], answer_b="x" * sizes[1],
                topic="poems" if poem else "code")
        )  # fmt: skip
    return rows


def test_every_row_is_a_battle_or_counted(tmp_path: Path) -> None:
    rows = [
        row("a", "b", "model_b"), row("a", "b", "a"), row("a", "b", "tie (bothbad)"), row("a", "a", "tie"),
        row("a", "b", "c"), row("a", "b", ""), row("", "b", "b"), row("a", "b", "a", answer_a="", answer_b="x"),
        row("a", "b", "a", answer_a="long", answer_b="x", topic="code", judge="ann", prompt=7),
    ]  # fmt: skip
    battles, skipped = read_battles(write(tmp_path / "arena.jsonl", rows))
    assert battles[0] == Battle("b", "a", False) and battles[1] == Battle("a", "b", False)
    assert battles[2].tied and battles[3] == Battle("a", "b", False, ("long", "x"), "code", "ann", "7")
    assert skipped == {
        "a model that meets itself": 1, "a winner that is neither of the two": 1, "no verdict": 1,
        "a model that is not named": 1, "an empty answer": 1,
    }  # fmt: skip


def test_a_battle_told_twice_counts_once(tmp_path: Path) -> None:
    """Rows that nothing tells apart may be many battles."""
    parts = [{"type": "text", "text": "hello"}, {"type": "text", "text": "you"}]
    talk = {f"conversation_{side}": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": parts}]
            for side in "ab"}  # fmt: skip
    rows = [row("a", "b", "a", id=1), row("a", "b", "a", id=1), row("a", "b", "a", id=2), *[row("a", "b", "a")] * 2,
            *[row("a", "b", "b", **talk)] * 3]  # fmt: skip
    battles, skipped = read_battles(write(tmp_path / "arena.jsonl", rows))
    assert len(battles) == 5 and skipped == {"the content of a row before": 3}
    assert battles[-1].answers == ("hello\n\nyou", "hello\n\nyou") and battles[-1].prompt == "hi"


def test_style_that_decides_every_battle_has_ratings(tmp_path: Path) -> None:
    rows = [row("a", "b", "a", answer_a="xx" * number, answer_b="x") for number in range(1, 4)]
    battles, _ = read_battles(
        write(tmp_path / "arena.jsonl", [*rows, row("b", "a", "b", answer_a="xxxx", answer_b="x")])
    )
    result = rate(battles)
    assert all(np.isfinite(one["elo"]) for way in result["ratings"].values() for one in way["models"])


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    import pandas as pd

    rows = [row("a", "b", "model_b", topic="code"), row("b", "a", "tie", topic="")]
    expected = read_battles(write(tmp_path / "arena.jsonl", rows))
    pd.DataFrame(rows).to_csv(tmp_path / "arena.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "arena.parquet")
    assert read_battles(tmp_path / "arena.csv") == expected
    assert read_battles(tmp_path / "arena.parquet") == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"model_a": "a"\n', "line 1"),
        ("a.jsonl", '{"model_a": "a", "model_b": "b"}\n', "line 1 has no winner"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", "", "no rows"),
        ("a.csv", "", "no rows"),
        ("a.csv", "model_a,winner\na,b\n", "row 1 has no model_b"),
        ("a.csv", "model_a,model_b,winner\na,a,tie\n", "1 with a model that meets itself"),
        ("a.parquet", "nonsense", "is damaged"),
        ("a.txt", "x", "is not known"),
    ],
)
def test_a_broken_file_is_told_in_a_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(StageError, match=words):
        read_battles(tmp_path / name)
    with pytest.raises(StageError, match=r"missing|does not exist"):
        read_battles(tmp_path / f"other-{name}" if name != "a.txt" else tmp_path / "b.csv")


def test_style_and_topics_are_taken_out(tmp_path: Path) -> None:
    battles, _ = read_battles(write(tmp_path / "arena.jsonl", simulated(4000)))
    result = rate(battles, shares={"code": 1.0, "poems": 1.0}, bootstrap=40)
    elo = {
        way: {one["model"]: one["elo"] for one in ratings["models"]} for way, ratings in result["ratings"].items()
    }  # fmt: skip
    assert elo[RAW]["a"] > elo[RAW]["b"] + 60  # a is only longer
    assert abs(elo[STYLED]["a"] - elo[STYLED]["b"]) < 30
    assert elo[REWEIGHTED]["c"] > elo[RAW]["c"] + 20  # half the prompts are poems now
    assert result["topics"] == pytest.approx({"code": 0.8, "poems": 0.2}, abs=0.03)
    length = result["ratings"][STYLED]["coefficients"]["length"]
    assert 0 < length["low"] < length["value"] < length["high"]
    with pytest.raises(ConfigError, match="poems"):
        rate(battles, shares={"code": 1.0})


def test_judges_of_the_same_battles_are_compared() -> None:
    """Four cases, whichever model stands first: alike on three."""
    ann = [Battle("a", "b", False, judge="ann", prompt=str(i)) for i in range(3)]
    bob = [Battle("a", "b", False, judge="bob", prompt="0"), Battle("b", "a", False, judge="bob", prompt="1")]
    bob.append(Battle("b", "a", True, judge="bob", prompt="9"))
    bob.append(Battle("a", "b", False, judge="bob", prompt="2"))
    result = agreement_of_judges([*ann, *bob])["ann", "bob"]
    assert (result.raw, result.cases) == (pytest.approx(2 / 3), 3)
    assert agreement_of_judges(ann) == {}


def test_the_stage_writes_a_page_and_refuses_strangers(tmp_path: Path) -> None:
    rows = [*simulated(60), row("a", "a", "tie")]
    path = write(tmp_path / "arena.jsonl", rows)
    words = [f"outputs='{tmp_path}'", "tracking=none", "bootstrap=20", f"battles='{path}'"]
    result = ratings.run(compose(STAGES["ratings"], [*words, "topics.code=3", "topics.poems=1"]))  # type: ignore[arg-type]
    [folder] = (path for path in (tmp_path / "ratings").iterdir() if path.is_dir())
    assert json.loads((folder / "ratings.json").read_text()) == result
    page = (folder / "index.html").read_text()
    assert "a model that meets itself" in page and "75.0%" in page and "What style is worth" in page
    assert (folder / "figures" / "ratings.png").stat().st_size > 5000
    write(path, [row("a", "b", "a"), row("x", "y", "tie")])
    with pytest.raises(ConfigError, match=r"\[a, b\]; \[x, y\]"):
        ratings.run(compose(STAGES["ratings"], words))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nothing to rate"):
        ratings.run(compose(STAGES["ratings"], words[:-1]))  # type: ignore[arg-type]


def test_files_of_the_large_arenas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LMArena's list of battles with conversations, and Kaggle's table with a column for each outcome."""

    def conversation(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "hi"}, {"role": "assistant", "content": text}]

    rows = [
        row(
            "a",
            "b",
            "model_b",
            question_id="q",
            conversation_a=conversation("yo"),
            conversation_b=conversation("hello"),
            anony=True,
        ),
        row(
            "a",
            "b",
            "tie (bothbad)",
            conversation_a=conversation("yo"),
            conversation_b=conversation("hello"),
            tstamp=1.0,
        ),
    ]
    (tmp_path / "battles.json").write_text(json.dumps(rows))
    first, second = read_battles(tmp_path / "battles.json")[0]
    assert first == Battle("b", "a", False, ("hello", "yo"), prompt="hi") and second.tied
    assert "columns not read: anony" in "".join(capsys.readouterr())
    head = "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"
    cells = '"[""hi"",""more""]","[""yo"",""yes""]","[""hello"", null]"'
    body = [f"7,a,b,{cells},{won}" for won in ("1,0,0", "0,1,0", "0,0,1", "0,0,0", "1,1,0")]
    (tmp_path / "train.csv").write_text("\n".join([head, *body]), encoding="utf-8-sig")
    battles, skipped = read_battles(tmp_path / "train.csv")
    assert [(one.winner, one.tied) for one in battles] == [("a", False), ("b", False), ("a", True)]
    assert battles[1].answers == ("hello", "yo\n\nyes") and battles[0].prompt == '["hi","more"]'
    assert skipped == {"no verdict": 2}
