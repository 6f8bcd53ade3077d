"""What a sweep will take on this machine: a speed for every job, known from earlier runs or measured in a few steps.

What was measured stays in `<outputs>/speeds.json`, so that a line with --show can say what it would cost.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from maquette.artifacts.errors import MaquetteError
from maquette.artifacts.files import listed, read_json, write_json
from maquette.artifacts.run_file import FILE as RUN_FILE
from maquette.artifacts.run_file import FINISHED
from maquette.cli.sweeps.forecast import PlannedJob
from maquette.tracking.environment import hardware_name
from maquette.training.record import read_record

FILE = "speeds.json"

_ALIKE = 0.1
"""Earlier runs count for sizes that differ by this share at most."""

_MEASURED = 3
"""Sizes of each kind of model that are measured: smallest, middle, largest."""

_KEPT = 200
"""Speeds, newest last."""

Speed = tuple[str, str, int, float]
"""Architecture, precision, N, tokens a second."""


def seconds_of_jobs(
    forecasts: Sequence[PlannedJob],
    outputs: Path,
    measure: Callable[[PlannedJob], float] | None = None,
    *,
    dry: bool = False,
) -> tuple[list[float], str]:
    """Expected seconds of each job in one process, and where the speeds come from, in words.

    `measure(forecast)` gives tokens a second; by default by training a few steps. A job whose model was trained on
    this machine before takes that run's speed; others are interpolated between sizes that are measured now. `dry`:
    nothing is measured, and what was measured last stands for all sizes of a kind.
    """
    known = [*_measured_before(outputs), *_earlier_speeds(outputs)]
    speeds: list[float | None] = [_look_up(known, forecast) for forecast in forecasts]
    missing = [forecast for forecast, speed in zip(forecasts, speeds, strict=True) if speed is None]
    curves: dict[tuple[str, str], dict[int, float]] = {}
    measured: list[Speed] = []
    for kind, precision in dict.fromkeys((one.kind, one.precision) for one in missing):
        alike = [one for one in missing if (one.kind, one.precision) == (kind, precision)]
        curve = {size: speed for k, p, size, speed in known if (k, p) == (kind, precision)} if dry else {}
        for forecast in () if dry else _chosen(alike):
            if forecast.job is None and measure is None:
                continue
            try:
                curve[forecast.size] = (measure or _measure)(forecast)
            except MaquetteError:  # it can't be trained here, which its own job will say
                continue
        measured += [(kind, precision, size, speed) for size, speed in curve.items()]
        curves[kind, precision] = curve
    if measured and not dry:
        rows = [*(read_json(outputs / FILE) or []), *([hardware_name(), *one] for one in measured)]
        write_json(outputs / FILE, rows[-_KEPT:])
    seconds = []
    for forecast, speed in zip(forecasts, speeds, strict=True):
        speed = speed or _between(curves[forecast.kind, forecast.precision], forecast.size)
        seconds.append(forecast.tokens / speed if speed else math.nan)
    return seconds, _source(len(forecasts) - len(missing), len(measured), dry)


def _source(earlier: int, measured: int, dry: bool) -> str:
    sources = [f"speeds of earlier runs of {earlier} of the models here"] if earlier else []
    if measured and dry:
        sources.append("the speed last measured on this machine")
    elif measured:
        sources.append(f"speed measured now in a few steps of {measured} model{'s' if measured > 1 else ''}")
    return " and ".join(sources) or "speed unknown"


def _chosen(alike: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Of the smallest, a middle and the largest size the longest job: a small batch is slower, and belongs to the short
    ones."""
    sizes = sorted({one.size for one in alike})
    chosen = dict.fromkeys(sizes[round(place * (len(sizes) - 1) / (_MEASURED - 1))] for place in range(_MEASURED))
    return [max((one for one in alike if one.size == size), key=lambda one: one.tokens) for size in chosen]


def _between(curve: dict[int, float], size: int) -> float | None:
    """Interpolated between the sizes of a curve, in logarithms; beyond its ends the nearest."""
    points = sorted((math.log(at), math.log(speed)) for at, speed in curve.items())
    if not points:
        return None
    x = min(max(math.log(size), points[0][0]), points[-1][0])
    for (left, low), (right, high) in itertools.pairwise(points):
        if left <= x <= right:
            return math.exp(low + (high - low) * (x - left) / (right - left))
    return math.exp(points[-1][1])


def _measure(forecast: PlannedJob) -> float:
    from maquette.training.machine import measure_speed

    assert forecast.job is not None
    return measure_speed(forecast.job)


def _measured_before(outputs: Path) -> list[Speed]:
    rows = read_json(outputs / FILE) or []
    return [(kind, precision, size, speed) for hardware, kind, precision, size, speed in rows
            if hardware == hardware_name()]  # fmt: skip


def _earlier_speeds(outputs: Path) -> list[Speed]:
    """Of the runs that finished on this machine, newest last."""
    speeds = []
    for path in sorted(listed(outputs / "runs", f"*/{RUN_FILE}"), key=lambda path: path.stat().st_mtime):
        try:
            record = read_record(path.parent)
        except MaquetteError:
            continue  # a damaged record is its own run's trouble
        if (
            record is not None
            and record.status == FINISHED
            and record.hardware == hardware_name()
            and record.tokens_per_second
        ):
            spec = record.spec
            speeds.append((spec.architecture_kind, spec.precision, spec.size, record.tokens_per_second))
    return speeds


def _look_up(known: Sequence[Speed], forecast: PlannedJob) -> float | None:
    for kind, precision, size, speed in reversed(known):
        alike = kind == forecast.kind and precision == forecast.precision
        if alike and abs(math.log(size / forecast.size)) < _ALIKE:
            return speed
    return None
