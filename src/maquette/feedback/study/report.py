"""What a study found, as a page, a Markdown table and figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from maquette.artifacts.files import write_text
from maquette.artifacts.reading import load_sealed, write_sealed
from maquette.feedback.config import CAPTIONS
from maquette.feedback.early_warning import SIGNALS, watched_runs
from maquette.feedback.overoptimisation import OveroptimisationCurve
from maquette.feedback.study.diversity import SAMPLES, PolicyDiversity
from maquette.feedback.study.figures import (
    ValidationCurve,
    draw_bars,
    draw_frontier,
    draw_length,
    draw_overoptimisation,
    draw_signals,
)
from maquette.feedback.study.measurement import BestOfN, Measurement, PolicyResult, read_measurement
from maquette.reports import render, write_page
from maquette.statistics import IntervalEstimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """A study as pages and tables show it: `pictures` by name, the facts of the `curves` of over-optimisation, and what
    policies keep of the rest: `elsewhere`, by policy and measure a value with its interval."""

    measurement: Measurement
    pictures: "Mapping[str, Figure | Path]"
    curves: Mapping[str, Mapping[str, Any]]
    elsewhere: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)
    captions: ClassVar[Mapping[str, str]] = CAPTIONS

    @property
    def lead(self) -> str:
        """What was gained, in a sentence."""
        measurement = self.measurement
        rivals = [one for one in measurement.policies if one.name != measurement.reference]
        best = max(rivals or measurement.policies, key=lambda one: one.scores["gold"].value)
        start = measurement.policy(measurement.reference).scores["gold"].value
        if best.scores["gold"].value <= start:
            return f"No policy has more gold reward than {measurement.reference}, {start:.3f} a completion."
        return (
            f"From gold reward {start:.3f} ({measurement.reference}) to {best.scores['gold'].value:.3f} ({best.name}), "
            f"which wins {100 * best.wins['gold'].value:.0f}% of {measurement.prompts:,} held-out prompts."
        )

    @property
    def table(self) -> tuple[list[str], list[list[Any]]]:
        """What policies are worth: columns and rows, a row for each and one for the best of the best-of-n."""
        reference = self.measurement.reference
        columns = [
            "policy", "gold, T = 1", "gold, greedy", f"wins against {reference} by gold (%)", "the same, greedy (%)",
        ]  # fmt: skip
        rows: list[list[Any]] = [
            [
                one.name, _interval(one.scores["gold"]), _interval(one.greedy["gold"]),
                *(_interval(wins["gold"], 100, 1) if one.name != reference else ""
                  for wins in (one.wins, one.greedy_wins)),
            ]
            for one in self.measurement.policies
        ]  # fmt: skip
        rows += [[name, _fixed(curve.scores["gold"][place]), "", "", ""] for name, curve, place in self._best]
        return columns, rows

    @property
    def price_table(self) -> tuple[list[str], list[list[Any]]]:
        """How far policies went for it, and what it took: columns and rows as those of `table`."""
        learned = [name for name in self.measurement.policies[0].scores if name != "gold"]
        columns = [
            "policy", *(f"{name}, T = 1" for name in learned), "KL (nats)", "words", "ended (%)", "training FLOPs",
            "seconds",
        ]  # fmt: skip
        rows = [_price(one, learned) for one in self.measurement.policies]
        for name, curve, place in self._best:
            scores = [_fixed(curve.scores[key][place]) for key in learned]
            rows.append([name, *scores, round(curve.kl[place], 2), round(curve.words[place], 1), "", 0, ""])
        return columns, rows

    @property
    def _best(self) -> list[tuple[str, BestOfN, int]]:
        """Of each curve of best-of-n the place with the most gold, and what it is called."""
        curves = self.measurement.best_of_n
        places = [max(range(len(one.n)), key=one.scores["gold"].__getitem__) for one in curves]
        return [
            (f"best of {one.n[place]} by {one.reward}", one, place) for one, place in zip(curves, places, strict=True)
        ]

    @property
    def diversity_table(self) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows, a row for each policy whose diversity was measured."""
        columns = [
            "policy", "entropy (nats)", f"different of {SAMPLES} (%)", "distinct bigrams (%)", "calibration error (%)",
        ]  # fmt: skip
        rows = [[one.name, *_rounded(one.diversity)] for one in self.measurement.policies if one.diversity is not None]
        return columns, rows

    @property
    def elsewhere_table(self) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows, a row for each policy that was evaluated."""
        columns = list(dict.fromkeys(name for values in self.elsewhere.values() for name in values))
        rows = [
            [policy, *(_interval(IntervalEstimate(*values[name])) if name in values else "" for name in columns)]
            for policy, values in self.elsewhere.items()
        ]
        return ["policy", *columns], rows

    @property
    def curve_table(self) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows, a row for each curve."""

        def shown(value: float | None, interval: Any) -> str:
            if value is None:
                return "does not turn"
            return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")

        rows = [
            [name, *(shown(fit[key], fit[f"{key}_interval"]) for key in ("alpha", "beta", "peak"))]
            for name, fit in self.curves.items()
        ]
        return ["curve", "alpha", "beta", "peak at d = √KL"], rows


def write_study(
    folder: Path,
    measurement: Measurement,
    figures: Sequence[str],
    *,
    title: str,
    validations: Mapping[str, Sequence[Mapping[str, Any]]],
    commands: Mapping[str, str],
    evaluations: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Writes results.json, report.md, index.html and figures/ into `folder`; returns the manifest's facts.

    `figures`: names of `CAPTIONS`. `validations`: of runs, for the figures of over-optimisation and of its signals.
    `evaluations`: evaluation.json of a policy, for what it keeps of the rest.
    """
    measurement.save(folder / "results.json")
    curves: dict[str, OveroptimisationCurve] = {}
    pictures: dict[str, Figure] = {}
    for name in figures:
        if name == "overoptimisation":
            by_policy = {policy: validation_curve(rows) for policy, rows in validations.items()}
            pictures[name], curves = draw_overoptimisation(by_policy, measurement)
        elif name == "signals":
            rows = [{"seed": 0, "policy": policy, **row} for policy, part in validations.items() for row in part]
            pictures[name] = draw_signals(watched_runs(rows))
        else:
            draw = {"gold": draw_bars, "frontier": draw_frontier, "length": draw_length}[name]
            pictures[name] = draw(measurement)
    fits = {name: _fit_facts(curve) for name, curve in curves.items()}
    if fits:
        write_sealed(folder / _FITS, fits)
    elsewhere = {name: _elsewhere(one) for name, one in evaluations.items()}
    if elsewhere:
        write_sealed(folder / _ELSEWHERE, elsewhere)
    shown = {"study": StudyReport(measurement, pictures, fits, elsewhere), "title": title, "commands": commands}
    write_text(folder / "report.md", render("study.md.j2", shown))
    write_page(folder, "study.html.j2", shown, pictures)
    return {
        "reference": measurement.reference,
        "prompts": measurement.prompts,
        "gold": {one.name: one.scores["gold"].value for one in measurement.policies},
        "win_rate": {one.name: one.wins["gold"].value for one in measurement.policies},
        "kl": {one.name: one.kl for one in measurement.policies},
    }


def read_study(folder: Path) -> StudyReport:
    """The study that `write_study` wrote."""
    curves, elsewhere = folder / _FITS, folder / _ELSEWHERE
    return StudyReport(
        read_measurement(folder / "results.json"),
        {name: path for name in CAPTIONS if (path := folder / "figures" / f"{name}.png").exists()},
        load_sealed(curves) if curves.exists() else {},
        load_sealed(elsewhere) if elsewhere.exists() else {},
    )


_FITS, _ELSEWHERE = "fits.json", "elsewhere.json"
"""Beside the validations, which are in `tables.CURVES`."""


def _elsewhere(evaluation: Mapping[str, Any]) -> dict[str, list[float]]:
    """Accuracy in each task, and bits per byte of all held-out text: a value with its interval."""
    values = {name: [row["accuracy"], row["low"], row["high"]] for name, row in evaluation["headline"].items()}
    if text := evaluation["likelihood"].get("all"):
        values["bits per byte"] = list(text["bits_per_byte"].values())
    return values


_COURSE = ("kl", "gold", "reward", "words")


def validations_of(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A policy's validations, from its run's curves: step, kl, gold, reward and words at each validation, and what
    signals of over-optimisation are made from (None where a run has none, and before its first step)."""
    columns = [f"validation/{name}" for name in _COURSE]
    return [
        {"step": row["step"], **{name: row[key] for name, key in zip(_COURSE, columns, strict=True)}}
        | {key: row.get(key) for key in SIGNALS.values()}
        for row in history
        if all(key in row for key in columns)
    ]


def validation_curve(validations: Sequence[Mapping[str, Any]]) -> ValidationCurve:
    """A policy's curve from its validations: (KL divergence, gold reward, learned reward) at each."""
    return [(row["kl"], row["gold"], row["reward"]) for row in validations]


def _rounded(one: PolicyDiversity) -> list[Any]:
    shares = (one.distinct, one.distinct_words, one.calibration_error)
    return [round(one.entropy, 2), *("" if share is None else round(100 * share, 1) for share in shares)]


def _price(one: PolicyResult, learned: Sequence[str]) -> list[Any]:
    return [
        one.name,
        *(_fixed(one.scores[name].value) for name in learned),
        round(one.kl, 2),
        round(one.words, 1),
        round(100 * one.ended, 1),
        (one.flops, f"{one.flops:.2g}") if one.flops else "",
        round(one.seconds) if one.seconds else "",
    ]


def _fixed(value: float) -> tuple[float, str]:
    return value, f"{value:.3f}"


def _interval(point: IntervalEstimate, scale: float = 1.0, digits: int = 3) -> tuple[float, str]:
    value, low, high = (scale * number for number in dataclasses.astuple(point))
    return value, f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _fit_facts(curve: OveroptimisationCurve) -> dict[str, Any]:
    names = ("kind", "alpha", "alpha_interval", "beta", "beta_interval", "peak", "peak_interval")
    return {name: getattr(curve, name) for name in names}
