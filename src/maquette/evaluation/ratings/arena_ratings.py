"""An arena's battles rated: as they are, at equal style, and were all topics asked alike."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from maquette.artifacts import ConfigError
from maquette.artifacts.progress import say
from maquette.evaluation.ratings.arena import UNNAMED, Battle, agreement_of_judges
from maquette.evaluation.ratings.ratings import ELO, Ratings, bradley_terry_ratings, topic_shares, topic_weights
from maquette.reports import terminal_table

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
        return bradley_terry_ratings(
            winners, losers, ties=ties, bootstrap=bootstrap, level=level, seed=seed, **more
        )  # fmt: skip

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
            name: {"value": value, "low": ratings.coefficient_intervals[name].low,
                   "high": ratings.coefficient_intervals[name].high}
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
