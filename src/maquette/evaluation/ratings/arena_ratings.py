"""An arena's battles rated: as they are, at equal style, and were all topics asked alike."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maquette.evaluation.ratings.arena import UNNAMED, Battle, agreement_of_judges
from maquette.evaluation.ratings.ratings import ELO, Ratings, bradley_terry_ratings, topic_shares, topic_weights
from maquette.evaluation.ratings.style import style_covariates
from maquette.reports.figures import COLORS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

    Style is controlled where all battles have both answers; topics are re-weighted (to `shares`, by default all alike)
    where there are two or more. Raises `ConfigError` where groups never met, or a topic has no share.
    """
    winners, losers = [one.winner for one in battles], [one.loser for one in battles]
    ties, topics = [one.tied for one in battles], [one.topic for one in battles]
    mix = topic_shares(topics)

    def rated(**more: Any) -> Ratings:
        return bradley_terry_ratings(
            winners, losers, ties=ties, bootstrap=bootstrap, level=level, seed=seed, **more
        )  # fmt: skip

    found = {RAW: rated()}
    texts = [one.answers for one in battles if one.answers is not None]
    if len(texts) == len(battles):
        covariates = style_covariates([first for first, _ in texts], [second for _, second in texts])
        if covariates:
            found[STYLED] = rated(covariates=covariates)
    if len(mix) > 1 or shares:
        found[REWEIGHTED] = rated(weights=topic_weights(topics, shares))
    return {
        "battles": len(battles),
        "ties": sum(ties),
        "level": level,
        "bootstrap": bootstrap,
        "seed": seed,
        "ratings": {name: plain(ratings) for name, ratings in found.items()},
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


def ratings_figure(result: Mapping[str, Any]) -> "Figure":
    """A point with its interval for each model and way of rating; at most the forty strongest."""
    names = [row["model"] for row in result["ratings"][RAW]["models"]][:40]
    ways = list(result["ratings"])
    figure, axes = new_figure(width=6.4, height=1.1 + 0.2 * len(names) * max(1.4, 0.8 * len(ways)))
    for number, way in enumerate(ways):
        rows = {row["model"]: row for row in result["ratings"][way]["models"]}
        places = [place + 0.22 * (number - (len(ways) - 1) / 2) for place in range(len(names))]
        for place, name in zip(places, names, strict=True):
            axes.plot([rows[name]["elo_low"], rows[name]["elo_high"]], [place] * 2, color=COLORS[number], linewidth=1.6)
        axes.plot([rows[name]["elo"] for name in names], places, "o", color=COLORS[number], markersize=4.5, label=way)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"Elo points, {result['level']:.0%} intervals")
    if len(ways) > 1:
        axes.legend(fontsize=8)
    return figure
