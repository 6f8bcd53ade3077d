"""The verdict on a prediction, and the record over all: how often the intervals held, how large the errors were."""

import dataclasses
import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.manifest import digest_of_files, recall, remember
from maquette.reports import render
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.reports.tables import compute_words, span
from maquette.scaling.predictions.commitment import commitment, utc_time
from maquette.scaling.predictions.prediction import WrittenPrediction
from maquette.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.5, 0.9)

FOLDER = "verdicts"
"""Of the outputs, where the record over all predictions lies."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run as the verdict needs it: N with and without the head, D. `started` in ISO 8601; `prediction`: the
    digest that it was linked to; `data`: digests of what it read. `kinds`: its loss by kind of token; `tasks`: what it
    scored, by task and then by the digest of the questions and the way they were asked."""

    name: str
    params: float
    core: float
    tokens: float
    loss: float
    started: str
    prediction: str | None
    data: dict[str, str]
    kinds: dict[str, float] = dataclasses.field(default_factory=dict)
    tasks: dict[str, dict[str, dict[str, float]]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PartVerdict:
    """On another predicted number of the same run: the loss of a kind of token, what it scored on a task. `noise`: the
    prediction said that nothing would be seen of it at this size."""

    name: str
    predicted: float
    interval90: tuple[float, float]
    observed: float
    noise: bool = False

    @property
    def inside(self) -> bool:
        low, high = self.interval90
        return low <= self.observed <= high

    @property
    def words(self) -> str:
        """In a sentence."""
        place = "inside" if self.inside else "outside"
        noise = "; said to be noise at this size" if self.noise else ""
        return (
            f"{self.name}: predicted {self.predicted:.4f} (90%: {span(self.interval90, 4)}), observed "
            f"{self.observed:.4f}, {place}{noise}."
        )


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`error`: observed less predicted loss in nats; `relative`: relative error,
    (observed - predicted) / predicted. `inside`: by level, whether the interval held. `commitment`: which commit holds
    the prediction, in a sentence; empty where none does. `parts`: on what else it says of the run; `not_evaluated`:
    tasks that the run was not asked yet."""

    prediction: WrittenPrediction
    run: str
    loss: float
    error: float
    relative: float
    inside: dict[float, bool]
    commitment: str = ""
    parts: tuple[PartVerdict, ...] = ()
    not_evaluated: tuple[str, ...] = ()

    @property
    def in_compute(self) -> str:
        """The error in compute: "as much as 1.36 times the compute"."""
        return compute_words(self.relative, self.prediction.slope)

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        low, high = self.prediction.interval90
        place = (
            "inside its 50% interval"
            if self.inside[0.5]
            else "outside its 50% interval, inside its 90% interval"
            if self.inside[0.9]
            else f"outside its 90% interval, {'below' if self.loss < low else 'above'} it"
        )
        return (
            f"Predicted {self.prediction.loss:.4f} (90%: {low:.4f} to {high:.4f}), observed {self.loss:.4f}: "
            f"{self.error:+.4f} nats ({self.relative:+.2%}, {self.in_compute}), {place}."
        )

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "prediction": self.prediction.id,
            "run": self.run,
            "predicted": self.prediction.loss,
            "interval50": list(self.prediction.interval50),
            "interval90": list(self.prediction.interval90),
            "observed": self.loss,
            "error_nats": self.error,
            "error_percent": 100 * self.relative,
            "inside50": self.inside[0.5],
            "inside90": self.inside[0.9],
            "reach": self.prediction.reach,
            "form": self.prediction.form,
            "commitment": self.commitment,
            "parts": [{**dataclasses.asdict(part), "inside": part.inside} for part in self.parts],
            "not_evaluated": list(self.not_evaluated),
        }


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """Over all predictions: those that are decided; what there is against runs that claim to decide one, and what is
    wrong with the chain, in words; and those that wait for their run."""

    verdicts: list[Verdict]
    refused: list[str]
    waiting: list[WrittenPrediction]

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "verdicts": [verdict.facts() for verdict in self.verdicts],
            "calibration": calibration(self.verdicts),
            "refused": self.refused,
            "waiting": [one.id for one in self.waiting],
        }


def verify_all(predictions: Sequence[WrittenPrediction], runs: Sequence[Outcome], broken: Sequence[str]) -> Verdicts:
    """The verdicts by `runs`. `broken`: what is wrong with the predictions' chain."""
    verdicts = Verdicts([], list(broken), [])
    for prediction in predictions:
        claimants = [run for run in runs if run.prediction is not None and run.prediction[:8] == prediction.id]
        reasons = {run.name: refusal(prediction, run) for run in claimants}
        deciding = [run for run in claimants if not reasons[run.name]]
        if deciding:
            verdicts.verdicts.append(judge(prediction, deciding[0]))
        elif claimants:
            verdicts.refused.extend(f"{prediction.id}: {reason}" for reason in reasons.values())
        else:
            verdicts.waiting.append(prediction)
    return verdicts


def refusal(prediction: WrittenPrediction, run: Outcome) -> str:
    """Why a run can't decide a prediction; empty where it can."""
    # A run notes its beginning in whole seconds.
    if utc_time(run.started) < utc_time(prediction.created).replace(microsecond=0):
        return f"the run {run.name} began at {run.started}, before the prediction was written ({prediction.created})"
    if run.prediction != prediction.digest:
        linked = (run.prediction or "none")[:8]
        return f"the run {run.name} was trained for another prediction ({linked}, not {prediction.id})"
    for name, expected, actual in (
        ("parameters", prediction.params, run.core if prediction.convention == "kaplan" else run.params),
        ("tokens", prediction.tokens, run.tokens),
    ):
        if not np.isclose(expected, actual, rtol=1e-9):
            return f"the run {run.name} has {actual:,.0f} {name}, the prediction {expected:,.0f}"
    for name, digest in prediction.data.items():
        if run.data.get(name) != digest:
            return f"the run {run.name} read other {name} ({str(run.data.get(name))[:8]}, not {digest[:8]})"
    if not np.isfinite(run.loss):
        return f"the run {run.name} has no loss"
    return ""


def judge(prediction: WrittenPrediction, run: Outcome) -> Verdict:
    """The verdict by a run that `refusal` has nothing against."""
    inside = {level: Interval(*prediction.interval(level)).contains(run.loss) for level in LEVELS}
    held = commitment(prediction.digest)
    asked = {
        task: run.tasks[task][row["digest"]]
        for task, row in prediction.tasks.items()
        if row["digest"] in run.tasks.get(task, {})
    }
    return Verdict(
        prediction, run.name, run.loss, run.loss - prediction.loss, run.loss / prediction.loss - 1, inside,
        held.words(run.started) if held else "", tuple(_parts(prediction, run, asked)),
        tuple(task for task in prediction.tasks if task not in asked),
    )  # fmt: skip


def _parts(
    prediction: WrittenPrediction, run: Outcome, asked: Mapping[str, Mapping[str, float]]
) -> Iterator[PartVerdict]:
    for kind, row in prediction.kinds.items():
        if kind in run.kinds:
            yield PartVerdict(f"{kind} tokens", row["loss"], _ends(row), run.kinds[kind])
    for task, scores in asked.items():
        for measure, words in (("bits_per_byte", "bits per byte of the right answer"), ("accuracy", "accuracy")):
            row = prediction.tasks[task]
            expected, noise = row[measure], row["noise"][measure]
            yield PartVerdict(f"{task}, {words}", expected["value"], _ends(expected), scores[measure], noise)


def _ends(row: Mapping[str, Any]) -> tuple[float, float]:
    low, high = row["interval90"]
    return float(low), float(high)


def calibration(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The record: of all verdicts, and by reach (rounded to half decades)."""
    rows = []
    groups: dict[float, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(float(f"{10 ** (round(2 * np.log10(max(verdict.prediction.reach, 1))) / 2):.2g}"), []).append(
            verdict
        )
    for reach, here in sorted(groups.items()):
        rows.append({"reach": reach, **_shares(here)})
    return {"all": _shares(list(verdicts)), "by_reach": rows}


def _shares(verdicts: list[Verdict]) -> dict[str, Any]:
    if not verdicts:
        return {"verdicts": 0}
    errors = np.array([verdict.relative for verdict in verdicts])
    return {
        "verdicts": len(verdicts),
        "inside50": float(np.mean([verdict.inside[0.5] for verdict in verdicts])),
        "inside90": float(np.mean([verdict.inside[0.9] for verdict in verdicts])),
        "mean_error_percent": 100 * float(errors.mean()),
        "mean_absolute_error_percent": 100 * float(np.abs(errors).mean()),
        "largest_error_percent": 100 * float(errors[np.argmax(np.abs(errors))]),
    }


def tell(verdicts: Verdicts, shown: Sequence[Verdict]) -> None:
    """At the terminal the verdicts `shown`, and what there is to say of all."""
    console = Console()
    for verdict in shown:
        console.print(f"prediction {verdict.prediction.id}, run {verdict.run}", markup=False, highlight=False)
        console.print(f"  {verdict.words}", markup=False, highlight=False)
        for part in verdict.parts:
            console.print(f"  {part.words}", markup=False, highlight=False)
        if verdict.not_evaluated:
            tasks = ", ".join(verdict.not_evaluated)
            console.print(
                f"  not asked yet: {tasks}. Evaluate it as the family was: maquette evaluate checkpoint={verdict.run}",
                markup=False, highlight=False,
            )  # fmt: skip
        if verdict.commitment:
            console.print(f"  {verdict.commitment}", markup=False, highlight=False)
    for words in verdicts.refused:
        console.print(f"not counted: {words}", markup=False, highlight=False, style="yellow")
    for one in verdicts.waiting:
        console.print(f"prediction {one.id} waits for its run: maquette train prediction={one.id}", markup=False)
    if verdicts.verdicts:
        count = len(verdicts.verdicts)
        held = [np.mean([verdict.inside[level] for verdict in verdicts.verdicts]) for level in (0.5, 0.9)]
        errors = [abs(verdict.relative) for verdict in verdicts.verdicts]
        console.print(
            f"{count} verdict{'s' if count > 1 else ''}: {held[0]:.0%} inside 50%, {held[1]:.0%} inside 90%; "
            f"mean absolute error {np.mean(errors):.2%}", markup=False, highlight=False,
        )  # fmt: skip


def write_verdicts(verdicts: Verdicts, folder: Path) -> None:
    """The record as JSON, figure and page, unless they say so already."""
    facts, marker = verdicts.facts(), folder / ".written.json"
    sources = {"predictions": [one.digest for one in verdicts.waiting], **facts}
    if recall(marker, sources) == digest_of_files(folder, "[!.]*"):
        return
    write_json(folder / "verdicts.json", facts)
    figure = calibration_figure(verdicts.verdicts) if verdicts.verdicts else None
    if figure is not None:
        save_figure(figure, folder / "calibration")
    page = {
        "record": facts["calibration"], "verdicts": verdicts.verdicts, "refused": verdicts.refused,
        "waiting": verdicts.waiting, "figures": {"calibration": figure},
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_text(folder / "index.html", render("calibration.html.j2", page))
    remember(marker, sources, digest_of_files(folder, "[!.]*"))


def calibration_figure(verdicts: Sequence[Verdict]) -> "Figure":
    """Left every verdict with its intervals; right the errors by reach, where there are several."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.prediction.created)
    reaches = [verdict.prediction.reach for verdict in ordered]
    panels = 1 if min(reaches) == max(reaches) else 2
    figure, axes = new_figure(1, panels, width=5.4, height=max(3.2 if panels > 1 else 2.2, 0.35 * len(verdicts) + 1.6))
    left, *right = np.atleast_1d(axes)
    for place, verdict in enumerate(ordered):
        one = verdict.prediction
        for level, width in ((0.9, 3), (0.5, 8)):
            ends = [100 * (end / one.loss - 1) for end in one.interval(level)]
            left.plot(ends, [place, place], color=COLORS[0], lw=width, alpha=0.35, solid_capstyle="butt")
        color = COLORS[2] if verdict.inside[0.9] else COLORS[1]
        left.plot(100 * (verdict.loss / one.loss - 1), place, "o", color=color, mec="white")
    left.axvline(0, color="black", lw=0.8)
    left.set_yticks(range(len(ordered)), [f"{v.prediction.id} ({v.prediction.reach:.3g}x)" for v in ordered])
    left.set_ylim(-0.7, len(ordered) - 0.3)
    left.invert_yaxis()
    left.set(xlabel="relative error of the prediction (%)", title="Verdicts with 50% and 90% intervals")
    for axes in right:
        colors = [COLORS[2] if verdict.inside[0.9] else COLORS[1] for verdict in ordered]
        axes.scatter(reaches, [100 * verdict.relative for verdict in ordered], c=colors)
        axes.axhline(0, color="black", lw=0.8)
        axes.set(xscale="log", xlabel="reach (compute over the fit's largest budget)", ylabel="relative error (%)")
        axes.set_title("Errors by reach (green: inside 90%)")
    return figure
