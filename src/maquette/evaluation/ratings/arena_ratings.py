"""An arena's battles rated: as they are, at equal style, and were all topics asked alike; with a page."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.figure import COLORS, new_figure, save_figure
from maquette.artifacts.page import Fact, Page, Picture
from maquette.evaluation.ratings.arena import UNNAMED, Battle, agreement_of_judges
from maquette.evaluation.ratings.ratings import ELO, Ratings, bradley_terry_ratings, topic_shares, topic_weights
from maquette.evaluation.ratings.style import style_covariates

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


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Writes index.html and the figure (PNG and SVG) into `folder`; returns the page's path."""
    figure = ratings_figure(result)
    save_figure(figure, folder / "figures" / "ratings")
    page = Page(
        f"Ratings: {result['name']}",
        eyebrow="Maquette ratings",
        lead="Bradley-Terry strengths by maximum likelihood on Elo's scale, around 1000; a tie is half a win for each.",
        footer=f"File `{result['file']}` ({result['digest'][:12]}), seed {result['seed']}.",
    )
    page.section("Who is ahead")
    page.facts(
        [
            Fact("battles", f"{result['battles']:,}", f"{result['ties']:,} of them ties"),
            Fact("models", str(len(result["ratings"][RAW]["models"]))),
            Fact("left out", f"{sum(result['skipped'].values()):,}", "rows that can't count, by reason below"),
        ]
    )
    page.pictures(Picture(figure, f"Ratings with intervals of {result['level']:.0%}"))
    for name, ratings in result["ratings"].items():
        page.table(
            ["model", "Elo", "interval", "rank", "ranks", "battles"],
            [
                [row["model"], (row["elo"], f"{row['elo']:.0f}"), f"{row['elo_low']:.0f} to {row['elo_high']:.0f}",
                 row["rank"], f"{row['rank_low']} to {row['rank_high']}", row["battles"]]
                for row in ratings["models"]
            ],
            caption=f"Battles {name}. Models whose ranks overlap are not told apart."
            if name == RAW
            else f"The same battles, {name}.",
        )  # fmt: skip
        for warning in ratings["warnings"]:
            page.text(warning)
    _add_style(page, result)
    _add_topics(page, result)
    _add_judges(page, result)
    if result["skipped"]:
        page.section("Left out")
        page.table(["reason", "rows"], [[why, count] for why, count in result["skipped"].items()])
    return page.write(folder / "index.html")


def _add_style(page: Page, result: Mapping[str, Any]) -> None:
    if STYLED not in result["ratings"]:
        return
    page.section("What style is worth")
    page.text("Log-odds of winning for one standard deviation more of a feature, all models being equal.")
    page.table(
        ["feature", "log-odds", "interval"],
        [
            [name, (one["value"], f"{one['value']:+.3f}"), f"{one['low']:+.3f} to {one['high']:+.3f}"]
            for name, one in result["ratings"][STYLED]["coefficients"].items()
        ],
    )


def _add_topics(page: Page, result: Mapping[str, Any]) -> None:
    if not result["topics"]:
        return
    total = sum(result["topic_shares"].values())
    page.section("What was asked")
    page.text("An arena's users are not everybody: **the mix of their prompts is part of the rating.**")
    page.table(
        ["topic", "share of battles", "share when re-weighted"],
        [
            [name, (share, f"{share:.1%}"), f"{result['topic_shares'][name] / total:.1%}"]
            for name, share in result["topics"].items()
        ],
    )


def _add_judges(page: Page, result: Mapping[str, Any]) -> None:
    if not result["judges"]:
        return
    page.section("Who judged")
    page.table(["judge", "battles"], [[name, count] for name, count in result["judges"].items()])
    if result["agreement"]:
        page.table(
            ["judges", "alike", "by chance", "Cohen's kappa", "cases"],
            [
                [" and ".join(one["judges"]), (one["raw"], f"{one['raw']:.1%}"), f"{one['by_chance']:.1%}",
                 (one["corrected"], f"{one['corrected']:.3f}"), one["cases"]]
                for one in result["agreement"]
            ],
            caption="How often two judges say the same of the same battle, and what is left when chance is taken away.",
        )  # fmt: skip


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
