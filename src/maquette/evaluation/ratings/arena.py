"""Files of battles, as arenas keep them: who met whom on which prompt, and who won in whose eyes.

A row has `model_a`, `model_b` and `winner` (`model_a`, `model_b`, a name of either, or `tie`). It may have `answer_a`
and `answer_b` (texts, for control of style), `topic`, `judge`, and `prompt` (text or id, by which judges of the same
case are known). JSONL, CSV or Parquet. A row that can't count is left out, and counted by its reason.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.evaluation.comparisons.judges import Agreement, agreement
from maquette.evaluation.row_files import read_rows

REQUIRED = ("model_a", "model_b", "winner")
UNNAMED = "none given"
"""The topic of a battle that names none."""


@dataclass(frozen=True)
class Battle:
    """`winner` beat `loser`, or was `tied` with it. `answers`: the winner's and the loser's, where the row has both."""

    winner: str
    loser: str
    tied: bool
    answers: tuple[str, str] | None = None
    topic: str = UNNAMED
    judge: str = ""
    prompt: str = ""


def read_battles(path: Path | str) -> tuple[list[Battle], dict[str, int]]:
    """The battles of a file, and how many rows were left out, by reason.

    Raises `StageError` where the file is missing or damaged (with its line), lacks a column, or has no battle at all.
    """
    battles, skipped = [], Counter[str]()
    for place, row in read_rows(path, "battles", REQUIRED):
        if missing := [name for name in REQUIRED if name not in row]:
            raise StageError(f"{place} has no {missing[0]}.", f"A row has {', '.join(REQUIRED)}.")
        battle = _battle(row)
        if isinstance(battle, str):
            skipped[battle] += 1
        else:
            battles.append(battle)
    if not battles:
        reasons = ", ".join(f"{count:,} with {why}" for why, count in skipped.items()) or "it has no rows"
        raise StageError(f"{path} has no battle that counts: {reasons}.", f"A row has {', '.join(REQUIRED)}.")
    return battles, dict(skipped)


def agreement_of_judges(battles: Iterable[Battle]) -> dict[tuple[str, str], Agreement]:
    """How far each two judges agree on the battles (same prompt, same two models) that both of them judged."""
    votes: dict[str, dict[tuple[str, str, str], str]] = {}
    for battle in battles:
        if battle.judge and battle.prompt:
            low, high = sorted((battle.winner, battle.loser))
            votes.setdefault(battle.judge, {})[battle.prompt, low, high] = "tie" if battle.tied else battle.winner
    agreements = {}
    for first, second in combinations(sorted(votes), 2):
        if shared := sorted(votes[first].keys() & votes[second].keys()):
            # "the first by name" and "the second": a label must mean the same in every case
            labels = [[_place(votes[judge][case], case) for case in shared] for judge in (first, second)]
            agreements[first, second] = agreement(*labels)
    return agreements


def _place(vote: str, case: tuple[str, str, str]) -> str:
    return vote if vote == "tie" else "first" if vote == case[1] else "second"


def _battle(row: Mapping[str, Any]) -> Battle | str:
    """The battle of a row, or why it does not count."""
    first, second, winner = (_text(row.get(name)) for name in REQUIRED)
    if not first or not second:
        return "a model that is not named"
    if first == second:
        return "a model that meets itself"
    answers = [_text(row.get(name)) for name in ("answer_a", "answer_b")]
    known = row.get("answer_a") is not None and row.get("answer_b") is not None
    if known and not all(answers):
        return "an empty answer"
    tied = winner.lower().startswith("tie")
    if winner in ("model_b", second):
        first, second = second, first
        answers.reverse()
    elif not tied and winner not in ("model_a", first):
        return "a winner that is neither of the two" if winner else "no verdict"
    return Battle(
        first, second, tied, (answers[0], answers[1]) if known else None,
        _text(row.get("topic")) or UNNAMED, _text(row.get("judge")), _text(row.get("prompt")),
    )  # fmt: skip


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
