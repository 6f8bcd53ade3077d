"""What a study found, as a page, a Markdown table and figures."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.page import Page, Picture
from maquette.feedback.overoptimisation import OveroptimisationCurve
from maquette.feedback.study.figures import Course, draw_bars, draw_frontier, draw_length, draw_overoptimisation
from maquette.feedback.study.measurement import Measurement, Point, PolicyResult, read_measurement

CAPTIONS = {
    "gold": "Gold reward per answer, sampled and greedy, with 95% intervals.",
    "frontier": "What each policy is worth, and what it was optimised for, over how far it has moved.",
    "overoptimisation": "Gold and learned reward gained over how far a policy has moved, one colour a reward model; "
    "lines through gold are the curves of Gao et al. 2022 with 90% bands.",
    "length": "Where labels like length, longer answers win by the reward model learned from them, and lose by gold.",
}


def write_study(
    folder: Path,
    measurement: Measurement,
    figures: Sequence[str],
    *,
    title: str,
    courses: Mapping[str, Course],
    commands: Mapping[str, str],
) -> dict[str, Any]:
    """Writes results.json, report.md, index.html and figures/ into `folder`; returns the manifest's facts.

    `figures`: names of `CAPTIONS`. `courses`: runs as they went, for the figure of over-optimisation.
    """
    measurement.save(folder / "results.json")
    curves: dict[str, OveroptimisationCurve] = {}
    pictures: dict[str, Path] = {}
    for name in figures:
        path = folder / "figures" / name
        if name == "overoptimisation":
            pictures[name], curves = draw_overoptimisation(courses, measurement, path)
        else:
            draw = {"gold": draw_bars, "frontier": draw_frontier, "length": draw_length}[name]
            pictures[name] = draw(measurement, path)
    fits = {name: _fit_facts(curve) for name, curve in curves.items()}
    if fits:
        write_json(folder / "curves.json", fits)
    write_text(folder / "report.md", _markdown(measurement, pictures, fits, title))
    _page(measurement, pictures, fits, title, commands).write(folder / "index.html")
    return {
        "reference": measurement.reference,
        "prompts": measurement.prompts,
        "gold": {one.name: one.scores["gold"].value for one in measurement.policies},
        "win_rate": {one.name: one.wins["gold"].value for one in measurement.policies},
        "kl": {one.name: one.kl for one in measurement.policies},
    }


def add_study(page: Page, folder: Path) -> None:
    """The study that `write_study` wrote, as sections of another page."""
    curves = folder / "curves.json"
    pictures = {name: path for name in CAPTIONS if (path := folder / "figures" / f"{name}.png").exists()}
    measurement = read_measurement(folder / "results.json")
    fits = json.loads(curves.read_text(encoding="utf-8")) if curves.exists() else {}
    _sections(page, measurement, pictures, fits, lead=_lead(measurement))


_COURSE = ("kl", "gold", "reward", "words")


def validations_of(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A policy as it went, from its run's curves: step, kl, gold, reward and words at each validation."""
    found = [f"validation/{name}" for name in _COURSE]
    return [
        {"step": row["step"], **{name: row[key] for name, key in zip(_COURSE, found, strict=True)}}
        for row in history
        if all(key in row for key in found)
    ]


def course_of(history: Sequence[Mapping[str, Any]]) -> Course:
    """A policy's course from its run's curves: (divergence, gold reward, learned reward) at each validation."""
    return [(row["kl"], row["gold"], row["reward"]) for row in validations_of(history)]


def table(measurement: Measurement) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows, a row for each policy and one for the best of the best-of-n."""
    learned = [name for name in measurement.policies[0].scores if name != "gold"]
    columns = [
        "policy", "gold, T = 1", "gold, greedy", f"wins against {measurement.reference} by gold (%)",
        "the same, greedy (%)",
        *(f"{name}, T = 1" for name in learned), "KL (nats)", "words", "ended (%)", "training FLOPs", "seconds",
    ]  # fmt: skip
    rows = [[*_cells(one, measurement.reference, learned)] for one in measurement.policies]
    for curve in measurement.best_of_n:
        place = max(range(len(curve.n)), key=lambda index: curve.scores["gold"][index])
        row: list[Any] = [
            f"best of {curve.n[place]} by {curve.reward}",
            round(curve.scores["gold"][place], 3),
            "",
            "",
            "",
        ]
        row += [round(curve.scores[name][place], 3) for name in learned]
        rows.append([*row, round(curve.kl[place], 2), round(curve.words[place], 1), "", 0, ""])
    return columns, rows


def _cells(one: PolicyResult, reference: str, learned: Sequence[str]) -> list[Any]:
    return [
        one.name,
        _interval(one.scores["gold"]),
        _interval(one.greedy["gold"]),
        *(_interval(wins["gold"], 100, 1) if one.name != reference else "" for wins in (one.wins, one.greedy_wins)),
        *(round(one.scores[name].value, 3) for name in learned),
        round(one.kl, 2),
        round(one.words, 1),
        round(100 * one.ended, 1),
        (one.flops, f"{one.flops:.2g}") if one.flops else "",
        round(one.seconds) if one.seconds else "",
    ]


def _interval(point: Point, scale: float = 1.0, digits: int = 3) -> tuple[float, str]:
    value, low, high = (scale * number for number in dataclasses.astuple(point))
    return value, f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _fit_facts(curve: OveroptimisationCurve) -> dict[str, Any]:
    return {
        "kind": curve.kind,
        "alpha": curve.alpha,
        "alpha_interval": curve.alpha_interval,
        "beta": curve.beta,
        "beta_interval": curve.beta_interval,
        "peak": curve.peak,
        "peak_interval": curve.peak_interval,
    }


def _fit_rows(fits: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    def shown(value: float | None, interval: Any) -> str:
        if value is None:
            return "does not turn"
        return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")

    return [
        [name, *(shown(fit[key], fit[f"{key}_interval"]) for key in ("alpha", "beta", "peak"))]
        for name, fit in fits.items()
    ]


_FIT_COLUMNS = ["curve", "alpha", "beta", "peak at d = √KL"]


def _markdown(
    measurement: Measurement, pictures: Mapping[str, Path], fits: Mapping[str, Mapping[str, Any]], title: str
) -> str:
    columns, rows = table(measurement)
    lines = [f"# {title}", "", f"{measurement.prompts:,} held-out prompts; 95% intervals, paired by prompt.", ""]
    lines += _markdown_table(columns, rows)
    if fits:
        lines += ["", "R(d) = d (alpha - beta log d) for RL, d (alpha - beta d) for best-of-n; 90% intervals.", ""]
        lines += _markdown_table(_FIT_COLUMNS, _fit_rows(fits))
    for name in pictures:
        lines += ["", f"![{CAPTIONS[name]}](figures/{name}.png)"]
    return "\n".join(lines) + "\n"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def cell(value: Any) -> str:
        return str(value[1]) if isinstance(value, tuple) else str(value)

    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows]


def _page(
    measurement: Measurement,
    pictures: Mapping[str, Path],
    fits: Mapping[str, Mapping[str, Any]],
    title: str,
    commands: Mapping[str, str],
) -> Page:
    page = Page(title, lead=_lead(measurement))
    _sections(page, measurement, pictures, fits)
    page.section("Again")
    for why, command in commands.items():
        page.text(why)
        page.code(command)
    return page


def _sections(
    page: Page,
    measurement: Measurement,
    pictures: Mapping[str, Path],
    fits: Mapping[str, Mapping[str, Any]],
    lead: str = "",
) -> None:
    page.section("What alignment bought")
    if lead:
        page.text(lead)
    columns, rows = table(measurement)
    page.table(columns, rows, caption=f"{measurement.prompts:,} held-out prompts; 95% intervals, paired by prompt")
    for name, path in pictures.items():
        page.pictures(Picture(path, CAPTIONS[name]))
    if fits:
        page.table(_FIT_COLUMNS, _fit_rows(fits), caption="R(d) = d (alpha − beta log d) for RL, d (alpha − beta d) "
                   "for best-of-n; 90% intervals")  # fmt: skip
    page.section("Side by side")
    page.table(
        ["instruction", *(one.name for one in measurement.policies)],
        [
            [text, *(one.answers[place] for one in measurement.policies)]
            for place, text in enumerate(measurement.instructions)
        ],
        caption="Greedy answers to held-out prompts",
    )


def _lead(measurement: Measurement) -> str:
    rivals = [one for one in measurement.policies if one.name != measurement.reference]
    best = max(rivals or measurement.policies, key=lambda one: one.scores["gold"].value)
    start = measurement.policy(measurement.reference).scores["gold"].value
    return (
        f"From gold reward {start:.3f} ({measurement.reference}) to {best.scores['gold'].value:.3f} ({best.name}), "
        f"which wins {100 * best.wins['gold'].value:.0f}% of {measurement.prompts:,} held-out prompts."
    )
