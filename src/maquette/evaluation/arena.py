"""Files of battles, as arenas keep them: who met whom on which prompt, and who won in whose eyes; and their ratings: as
they are, at equal style, and were all topics asked alike.

A row has `model_a`, `model_b` and `winner` (`model_a`, `model_b`, a name of either, or `tie`; in Kaggle's files three
columns instead, `winner_model_a`, `winner_model_b` and `winner_tie`). It may have `answer_a` and `answer_b` (texts, for
control of style; also `response_a`, and as in LMArena's files `conversation_a`, whose completions are the answer),
`topic`, `judge`, and `prompt` (text or id, by which judges of the same case are known). JSONL, JSON, CSV or Parquet. A
row that can't count is left out, and counted by its reason; columns that nothing reads are named.
"""

import contextlib
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.artifacts.reading import CHECKSUM, short, unsealed
from maquette.corpus.sources.files import plain_name
from maquette.corpus.sources.row_files import JSON_SUFFIXES, read_rows, row_files
from maquette.data.row_messages import is_bookkeeping
from maquette.evaluation.judges import Agreement, agreement
from maquette.evaluation.ratings import ELO, Ratings, bradley_terry_ratings, topic_shares, topic_weights
from maquette.reports import terminal_table

REQUIRED = ("model_a", "model_b", "winner")
_ONE_OF = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}
_ANSWERS = ("answer", "response", "conversation")
_READ = {*REQUIRED, *_ONE_OF, *(f"{name}_{side}" for name in _ANSWERS for side in "ab"), "topic", "judge", "prompt"}
_OURS = {"messages", "at", CHECKSUM}
_TELLING = ("id", "question_id", "uuid", "at", "tstamp", "timestamp", *(f"{name}_a" for name in _ANSWERS))
"""Columns by which rows that are alike are one battle told twice; without them they may be many."""
CHANGED = "Put back the line from a copy; remove its checksum, if the change was meant."
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
    unread: dict[str, None] = {}
    seen: set[str] = set()
    files = row_files(path, "battles")
    lines = all(plain_name(file).endswith(JSON_SUFFIXES) for file in files)
    for place, given in read_rows(files, "battles"):
        # A table that was made of the arena's file has every value as text.
        row = unsealed(given, place, hint=CHANGED) if lines else given
        if any(name in row for name in _TELLING):
            if (content := digest(row)) in seen:
                skipped["the content of a row before"] += 1
                continue
            seen.add(content)
        row = {**row, "winner": _one_of(row)} if "winner" not in row and row.keys() >= _ONE_OF.keys() else row
        unread |= dict.fromkeys(name for name in row if name not in _READ | _OURS and not is_bookkeeping(str(name)))
        if missing := [name for name in REQUIRED if name not in row]:
            raise StageError(f"{place} has no {missing[0]}.", f"A row has {', '.join(REQUIRED)}.")
        battle = _battle(row)
        if isinstance(battle, str):
            skipped[battle] += 1
        else:
            battles.append(battle)
    if unread:
        say(f"{path}: columns not read: {short(', '.join(map(str, unread)))}")
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
            # by the order of names: a label must mean the same in every case
            vote = "tie" if battle.tied else "first" if battle.winner == low else "second"
            votes.setdefault(battle.judge, {})[battle.prompt, low, high] = vote
    agreements = {}
    for first, second in combinations(sorted(votes), 2):
        if shared := sorted(votes[first].keys() & votes[second].keys()):
            labels = [[votes[judge][case] for case in shared] for judge in (first, second)]
            agreements[first, second] = agreement(*labels)
    return agreements


def _battle(row: Mapping[str, Any]) -> Battle | str:
    """The battle of a row, or why it does not count."""
    first, second, winner = (_text(row.get(name)) for name in REQUIRED)
    if not first or not second:
        return "a model that is not named"
    if first == second:
        return "a model that meets itself"
    kind = next((name for name in _ANSWERS if all(row.get(f"{name}_{side}") is not None for side in "ab")), None)
    answers = [_answer(row[f"{kind}_{side}"]) for side in "ab"] if kind else []
    if kind and not all(answers):
        return "an empty answer"
    tied = winner.lower().startswith("tie") or winner.lower() in ("bothbad", "both_bad")
    if winner in ("model_b", second):
        first, second = second, first
        answers.reverse()
    elif not tied and winner not in ("model_a", first):
        return "a winner that is neither of the two" if winner else "no verdict"
    return Battle(
        first, second, tied, (answers[0], answers[1]) if kind else None,
        _text(row.get("topic")) or UNNAMED, _text(row.get("judge")), _text(row.get("prompt")) or _asked(row),
    )  # fmt: skip


def _one_of(row: Mapping[str, Any]) -> str:
    """The winner of a row that has a column for each outcome; none where not exactly one of them is marked."""
    marked = [name for column, name in _ONE_OF.items() if _text(row[column]).lower() in ("1", "1.0", "true")]
    return marked[0] if len(marked) == 1 else ""


def _turns(value: Any) -> list[Any]:
    """The turns of a conversation, or Kaggle's list of texts; a CSV cell holds either as JSON. Other texts are one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    return value if isinstance(value, list) else [value]


def _answer(value: Any) -> str:
    """What the model said in all turns."""
    texts = [
        _content(turn) if isinstance(turn, Mapping) else _text(turn)
        for turn in _turns(value)
        if not isinstance(turn, Mapping) or turn.get("role") == "assistant"
    ]
    return "\n\n".join(filter(None, texts))


def _content(turn: Mapping[str, Any]) -> str:
    """The text of a turn, which newer files hold in parts."""
    content = turn.get("content")
    if not isinstance(content, list):
        return _text(content)
    return "\n\n".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))


def _asked(row: Mapping[str, Any]) -> str:
    """What the user said in the conversation."""
    turns = [turn for turn in _turns(row.get("conversation_a")) if isinstance(turn, Mapping)]
    return "\n\n".join(_content(turn) for turn in turns if turn.get("role") == "user")


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


RAW, STYLED, REWEIGHTED = "as they are", "at equal style", "topics re-weighted"
"""The ways in which the same battles are rated."""


def rate(
    battles: Sequence[Battle],
    *,
    shares: Mapping[str, float] | None = None,
    bootstrap: int = 200,
    level: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """Ratings of the battles in every way that the file allows, as plain values.

    Style is controlled where all battles have both completions; topics are re-weighted (to `shares`, by default all
    alike) where there are two or more. Raises `ConfigError` where groups never met, or a topic has no share."""
    winners, losers = [one.winner for one in battles], [one.loser for one in battles]
    ties, topics = [one.tied for one in battles], [one.topic for one in battles]
    mix = topic_shares(topics)

    def rated(**more: Any) -> Ratings:
        return bradley_terry_ratings(winners, losers, ties=ties, bootstrap=bootstrap, level=level, seed=seed, **more)

    all_ratings = {RAW: rated()}
    texts = [one.answers for one in battles if one.answers is not None]
    if len(texts) == len(battles):
        covariates = style_covariates([first for first, _ in texts], [second for _, second in texts])
        if covariates:
            all_ratings[STYLED] = rated(covariates=covariates)
    if len(mix) > 1 or shares:
        all_ratings[REWEIGHTED] = rated(weights=topic_weights(topics, shares))
    return {
        "battles": len(battles),
        "ties": sum(ties),
        "level": level,
        "bootstrap": bootstrap,
        "seed": seed,
        "ratings": {name: plain(ratings) for name, ratings in all_ratings.items()},
        "topics": mix if set(mix) != {UNNAMED} else {},
        "topic_shares": dict(shares) if shares else {name: 1 / len(mix) for name in mix},
        "judges": dict(Counter(one.judge for one in battles if one.judge)),
        "agreement": [
            {"judges": list(pair), **dataclasses.asdict(one)} for pair, one in agreement_of_judges(battles).items()
        ],
    }


def plain(ratings: Ratings) -> dict[str, Any]:
    """Ratings as they stand in a JSON file: log-odds, and Elo points around 1000."""
    return {
        "models": [
            {
                "model": str(name), "elo": ratings.elo(name), "strength": strength,
                "elo_low": 1000 + ELO * ratings.intervals[name].low,
                "elo_high": 1000 + ELO * ratings.intervals[name].high,
                "rank": ratings.rank_intervals[name].rank, "rank_low": ratings.rank_intervals[name].low,
                "rank_high": ratings.rank_intervals[name].high, "battles": ratings.battles[name],
            }
            for name, strength in ratings.strengths.items()
        ],
        "coefficients": {
            name: {"value": value} | ratings.coefficient_intervals[name]._asdict()
            for name, value in ratings.coefficients.items()
        },
        "warnings": list(ratings.warnings),
    }  # fmt: skip


_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


def style(text: str) -> dict[str, int]:
    """Counts in a text: `length` in characters, items of `lists`, `headings`, `bold` runs (Markdown)."""
    return {
        "length": len(text),
        "lists": len(_LIST_ITEM.findall(text)),
        "headings": len(_HEADING.findall(text)),
        "bold": len(_BOLD.findall(text)),
    }


def style_covariates(winners: Sequence[str], losers: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """For `bradley_terry_ratings(..., covariates=...)`: the winning completion's features less the losing one's, (n,)
    each.

    A feature that no battle differs in is left out: it has no effect that could be estimated.
    """
    if len(winners) != len(losers):
        raise ConfigError(f"{len(winners)} winning and {len(losers)} losing completions.", "Give both of each battle.")
    covariates = {}
    for name in style(""):
        first, second = (np.array([style(text)[name] for text in texts], float) for texts in (winners, losers))
        total = first + second
        difference = np.divide(first - second, total, out=np.zeros(len(total)), where=total > 0)
        spread = float(np.sqrt(np.mean(difference**2))) if len(difference) else 0.0
        if spread > 0:
            covariates[name] = difference / spread
    return covariates


def show_ratings(result: Mapping[str, Any]) -> None:
    """The ratings at the terminal, in every way."""
    ways = list(result["ratings"])
    others = [{row["model"]: row["elo"] for row in result["ratings"][way]["models"]} for way in ways[1:]]
    rows = [
        (
            row["model"], (row["elo"], f"{row['elo']:.0f}"), f"{row['elo_low']:.0f}-{row['elo_high']:.0f}",
            f"{row['rank_low']}-{row['rank_high']}", *(f"{other[row['model']]:.0f}" for other in others),
            row["battles"],
        )
        for row in result["ratings"][RAW]["models"]
    ]  # fmt: skip
    head = ("model", "Elo", "interval", "ranks", *(f"Elo {way}" for way in ways[1:]), "battles")
    Console().print(terminal_table(head, rows, f"{result['battles']:,} battles, {result['ties']:,} ties"))
    for one in result["agreement"]:
        say(
            f"{' and '.join(one['judges'])}: alike on {one['raw']:.1%} of {one['cases']:,} battles, "
            f"kappa {one['corrected']:.3f}"
        )
    for warning in result["ratings"][RAW]["warnings"]:
        say(warning)
