"""An arena's battles rated: as they are, at equal style, and were all topics asked alike."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from maquette.evaluation.ratings.arena import UNNAMED, Battle, agreement_of_judges
from maquette.evaluation.ratings.ratings import ELO, Ratings, bradley_terry_ratings, topic_shares, topic_weights
from maquette.evaluation.ratings.style import style_covariates

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
