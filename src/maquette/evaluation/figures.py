"""The figures of evaluations, ratings and comparisons: scores with their intervals, a row each."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from maquette.evaluation.baselines import ALL
from maquette.reports.figures import COLORS, draw_intervals, name_rows, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROTOCOL_NAMES = {
    "likelihood": "likelihood", "per_byte": "per byte", "per_token": "per token", "unconditional": "less unconditional",
    "letter": "letter, likelihood", "constrained": "letter, constrained", "exact_match": "exact match",
    "judged": "judge",
}  # fmt: skip


def evaluation_figures(result: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What there is to see of an evaluation (`summarise`), by the name of its file."""
    figures = {}
    if result["scores"]:
        figures["protocols"] = protocol_figure(result["scores"], result["protocol"]["level"])
    if result["likelihood"]:
        figures["bits_per_byte"] = likelihood_figure(result["likelihood"])
        figures["calibration"] = calibration_figure(result["likelihood"][ALL])
    return figures


def protocol_figure(scores: Sequence[Mapping[str, Any]], level: float) -> "Figure":
    """A panel for each task and number of shots, a point with its interval for each protocol."""
    panels = list(dict.fromkeys((row["task"], row["shots"]) for row in scores))
    kinds = [kind for kind in PROTOCOL_NAMES if any(row["protocol"] == kind for row in scores)]
    figure, grid = new_figure(1, len(panels), width=3.6, height=1.1 + 0.3 * len(kinds))
    axes = [grid] if len(panels) == 1 else list(grid)
    for panel, (task, shots) in zip(axes, panels, strict=True):
        own = [row for row in scores if (row["task"], row["shots"]) == (task, shots)]
        for row in own:
            place = kinds.index(row["protocol"])
            panel.plot([row["least"], row["most"]], [place, place], color=COLORS[3], linewidth=6, alpha=0.35)
            draw_intervals(panel, [place], [(row["accuracy"], row["low"], row["high"])], COLORS[0])
        panel.axvline(own[0]["chance"], color="#777777", linestyle="--", linewidth=1)
        panel.set_title(task if shots == 0 else f"{task}, {shots} shots", fontsize=10)
        name_rows(panel, [PROTOCOL_NAMES[kind] for kind in kinds])
        panel.set_xlim(0, 1)
        panel.set_xticks([0, 0.5, 1])
        panel.set_xlabel(f"accuracy, {level:.0%} interval; band: orders", fontsize=9)
    return figure


def likelihood_figure(likelihood: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Bits per byte of each domain, with intervals."""
    rates = [row["bits_per_byte"] for row in likelihood.values()]
    figure, axes = new_figure(width=4.8, height=0.9 + 0.42 * len(rates))
    points = [(rate["value"], rate["low"], rate["high"]) for rate in rates]
    draw_intervals(axes, range(len(points)), points, COLORS[0], markersize=6)
    name_rows(axes, ["all" if name == ALL else name for name in likelihood])
    axes.set_xlabel("bits per byte")
    return figure


def calibration_figure(row: Mapping[str, Any]) -> "Figure":
    """Reliability: of each bin of confidence, token accuracy; size by count."""
    figure, axes = new_figure(width=3.8, height=3.4)
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1)
    total = sum(count for count, _, _ in row["bins"])
    for count, sure, right in row["bins"]:
        if count:
            axes.scatter(sure / count, right / count, s=20 + 300 * count / total, color=COLORS[0], alpha=0.7)
    axes.set_xlabel("probability of the likeliest next token")
    axes.set_ylabel("how often it comes")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return figure


def ratings_figure(result: Mapping[str, Any]) -> "Figure":
    """A point with its interval for each model and way of rating (`rate`); at most the forty strongest."""
    ways: Mapping[str, Any] = result["ratings"]
    names = [row["model"] for row in next(iter(ways.values()))["models"]][:40]
    figure, axes = new_figure(width=6.4, height=1.1 + 0.2 * len(names) * max(1.4, 0.8 * len(ways)))
    for number, (way, ratings) in enumerate(ways.items()):
        rows = {row["model"]: (row["elo"], row["elo_low"], row["elo_high"]) for row in ratings["models"]}
        places = [place + 0.22 * (number - (len(ways) - 1) / 2) for place in range(len(names))]
        draw_intervals(axes, places, [rows[name] for name in names], COLORS[number], markersize=4.5, label=way)
    name_rows(axes, names)
    axes.set_xlabel(f"Elo points, {result['level']:.0%} intervals")
    if len(ways) > 1:
        axes.legend(fontsize=8)
    return figure


def controlled_intervals(result: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Of each model whose length-controlled win rate can be told, in per cent, its normal interval of the result's
    level."""
    reach = NormalDist().inv_cdf((1 + result["level"]) / 2)
    return {
        row["model"]: (
            max(0.0, row["controlled"] - reach * row["controlled_error"]),
            min(100.0, row["controlled"] + reach * row["controlled_error"]),
        )
        for row in result["models"]
        if row["controlled"] is not None
    }


def win_rate_figure(result: Mapping[str, Any], called: Mapping[str, str]) -> "Figure":
    """A row for each model: the raw rate and the length-controlled one, with intervals of the same level.

    `called`: the models' names in the figure."""
    rows = result["models"]
    figure, axes = new_figure(width=6.4, height=1.6 + 0.5 * len(rows))
    places = range(len(rows))
    points = [(row["win_rate"], row["low"], row["high"]) for row in rows]
    draw_intervals(axes, [place - 0.1 for place in places], points, COLORS[0], markersize=6, label="raw")
    known = [(place + 0.1, row) for place, row in zip(places, rows, strict=True) if row["controlled"] is not None]
    if known:
        controlled = controlled_intervals(result)
        points = [(row["controlled"], *controlled[row["model"]]) for _, row in known]
        draw_intervals(axes, [place for place, _ in known], points, COLORS[1], markersize=5, label="length-controlled")
    if result["gold"] is not None:
        gold = [result["gold"]["win_rates"][row["model"]] for row in rows]
        axes.plot(gold, places, "D", color=COLORS[3], markersize=4, label="by gold")
    axes.axvline(50, color="#777777", linestyle="--", linewidth=1)
    axes.set_xlim(0, 100)
    name_rows(axes, [called[row["model"]] for row in rows])
    axes.set_xlabel(f"win rate (%), {result['level']:.0%} intervals")
    axes.set_title(f"against {called[result['baseline']]}", fontsize=10)
    axes.legend(fontsize=8)
    return figure
