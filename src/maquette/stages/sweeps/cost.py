"""What a sweep will take on this machine: a speed for every job, measured in a few steps or known from earlier runs."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from maquette.artifacts.errors import MaquetteError
from maquette.stages.sweeps.forecast import Forecast
from maquette.tracking.environment import hardware_name
from maquette.training.record import FILE, FINISHED, read_record

_ALIKE = 0.1
"""Earlier runs count for sizes that differ by this share at most."""

_MEASURED = 3
"""Sizes of each kind of model that are measured: smallest, middle, largest."""


def seconds_of_jobs(
    forecasts: Sequence[Forecast], outputs: Path, measure: Callable[[Forecast], float] | None = None
) -> tuple[list[float], str]:
    """Expected seconds of each job in one process, and where the speeds come from, in words.

    `measure(forecast)` gives tokens a second; by default by training a few steps. A job whose model was trained on
    this machine before takes that run's speed; others are interpolated between sizes that are measured now.
    """
    known = _earlier_speeds(outputs)
    speeds: list[float | None] = [_look_up(known, forecast) for forecast in forecasts]
    missing = [forecast for forecast, speed in zip(forecasts, speeds, strict=True) if speed is None]
    measured = 0
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for kind in dict.fromkeys(forecast.kind for forecast in missing):
        alike = sorted((one for one in missing if one.kind == kind), key=lambda one: one.size)
        chosen = {alike[round(place * (len(alike) - 1) / (_MEASURED - 1))].size: None for place in range(_MEASURED)}
        points = []
        for size in chosen:
            # the longest job of that size: a small batch is slower, and belongs to the short ones
            found = max((one for one in alike if one.size == size), key=lambda one: one.tokens)
            try:
                points.append((math.log(size), math.log((measure or _measure)(found))))
            except MaquetteError:  # it can't be trained here, which its own job will say
                continue
        measured += len(points)
        if points:
            curves[kind] = ([x for x, _ in points], [y for _, y in points])
    seconds = []
    for forecast, speed in zip(forecasts, speeds, strict=True):
        if speed is None and forecast.kind in curves:
            speed = math.exp(float(np.interp(math.log(forecast.size), *curves[forecast.kind])))
        seconds.append(forecast.tokens / speed if speed else math.nan)
    earlier = len(forecasts) - len(missing)
    words = [f"speeds of earlier runs of {earlier} of the models here"] if earlier else []
    words += [f"speed measured now in a few steps of {measured} model{'s' if measured > 1 else ''}"] if measured else []
    return seconds, " and ".join(words) or "speed unknown"


def _measure(forecast: Forecast) -> float:
    from maquette.training.calibration import measure_speed

    return measure_speed(forecast.job)


def _earlier_speeds(outputs: Path) -> list[tuple[str, str, int, float]]:
    """(architecture, precision, N, tokens a second) of the runs that finished on this machine, newest last."""
    found = []
    for path in sorted((outputs / "runs").glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime):
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
            found.append((spec.architecture_kind, spec.precision, spec.size, record.tokens_per_second))
    return found


def _look_up(known: Sequence[tuple[str, str, int, float]], forecast: Forecast) -> float | None:
    for kind, precision, size, speed in reversed(known):
        if (
            kind == forecast.kind
            and precision == forecast.job.hardware.precision
            and abs(math.log(size / forecast.size)) < _ALIKE
        ):
            return speed
    return None
