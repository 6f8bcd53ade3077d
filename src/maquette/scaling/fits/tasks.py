"""What the runs of a table scored on questions: read from their evaluations, and the laws of every task.

`maquette evaluate runs=<sweep>` leaves an `evaluation.json` for each run. Scores compare only where the same questions
were asked in the same way, so each task carries the digest of both.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.files import digest, listed
from maquette.artifacts.progress import say
from maquette.artifacts.reading import load_sealed
from maquette.reports.tables import span
from maquette.scaling.fits.table import RunTable, complete_column
from maquette.scaling.laws.downstream import ExpectedScore, TaskForecast, TaskLaw, fit_task
from maquette.scaling.laws.forecast import Forecast
from maquette.scaling.laws.runs import LawError

FILES = "*/evaluation.json"

_COLUMNS = ("bits_per_byte", "accuracy", "questions", "chance", "digest")

Scores = dict[str, dict[str, Any]]
"""By task: what stands in `_COLUMNS`."""


def read_scores(outputs: Path | str, runs: set[str]) -> dict[str, list[Scores]]:
    """What the evaluations in these outputs say of the runs with these names, the newest first."""
    scores: dict[str, list[tuple[str, Scores]]] = {}
    for path in listed(Path(outputs) / "evaluations", FILES):
        if not any(path.parent.name.startswith(f"{name}-") for name in runs):
            continue
        result = load_sealed(path, hint="Evaluate again with force=true.")
        if result["name"] not in runs:
            continue
        if "answers" not in result:
            say(f"{path.parent.name}: has no bits per byte of the right answers: evaluate again with force=true")
            continue
        scores.setdefault(result["name"], []).append((result["created"], _scores(result)))
    return {name: [one for _, one in sorted(own, key=_created, reverse=True)] for name, own in scores.items()}


def _created(pair: tuple[str, Scores]) -> str:
    return pair[0]


def _scores(result: Mapping[str, Any]) -> Scores:
    tasks = {}
    for name, row in result["headline"].items():
        if name in result["answers"]:
            asked = {"questions": result["digests"]["tasks"][name], "protocol": result["protocol"]}
            values = (result["answers"][name]["bits_per_byte"], row["accuracy"], row["questions"], row["chance"])
            tasks[name] = dict(zip(_COLUMNS, (*values, digest(asked)), strict=True))
    return tasks


def with_tasks(table: RunTable, outputs: Path | str) -> RunTable:
    """The table with columns `tasks/<task>/bits_per_byte`, `accuracy`, `questions`, `chance` and `digest`, where its
    runs were evaluated; of a task that was asked in several ways the one that most runs have."""
    known = read_scores(outputs, set(table.names))
    columns: dict[str, list[Any]] = {}
    for task in sorted({task for own in known.values() for scores in own for task in scores}):
        ways: dict[str, dict[str, dict[str, Any]]] = {}
        for run, own in known.items():
            for scores in own:
                if task in scores:
                    ways.setdefault(scores[task]["digest"], {}).setdefault(run, scores[task])
        chosen = max(ways.values(), key=len)
        for column in _COLUMNS:
            columns[f"tasks/{task}/{column}"] = [chosen.get(run, {}).get(column) for run in table.names]
    if not columns:
        return table
    import pandas as pd

    asked = pd.DataFrame(columns, index=table.frame.index)
    return dataclasses.replace(table, frame=pd.concat([table.frame, asked], axis=1))


def fit_tasks(table: RunTable) -> tuple[dict[str, TaskLaw], dict[str, str]]:
    """The laws of every task that runs of the table were evaluated on; and why there is none of the others."""
    laws, missing = {}, {}
    names = [str(name).split("/", 1)[1].rsplit("/", 1)[0] for name in table.frame.columns if _is_bits(str(name))]
    for task in names:
        evaluated = table.take(table.frame[f"tasks/{task}/bits_per_byte"].notna().to_numpy())
        columns = [complete_column(evaluated.frame, f"tasks/{task}/{name}") for name in _COLUMNS[:4]]
        bits, accuracy, questions, chance = columns
        if bits is None or accuracy is None or questions is None or chance is None:
            missing[task] = f"The runs lack one of tasks/{task}/{', '.join(_COLUMNS[:4])}."
            continue
        try:
            laws[task] = fit_task(
                evaluated.params, evaluated.tokens, evaluated.compute, evaluated.loss, bits, accuracy,
                chance=float(np.mean(chance)), questions=int(questions.min()), budgets=evaluated.budget,
                seeds=evaluated.seed,
            )  # fmt: skip
        except LawError as error:
            missing[task] = str(error)
    return laws, missing


def _is_bits(name: str) -> bool:
    return name.startswith("tasks/") and name.endswith("/bits_per_byte")


def task_digest(table: RunTable, task: str) -> str:
    """Of the questions and the way they were asked; empty where the table does not say."""
    column = table.frame.get(f"tasks/{task}/digest")
    return next((text for text in map(str, column if column is not None else ()) if len(text) == 64), "")


def predicted_tasks(
    table: RunTable, laws: Mapping[str, TaskLaw], at: tuple[float, float, float], loss: Forecast
) -> dict[str, dict[str, Any]]:
    """What a run of N, D and FLOPs `at` is expected to score, by task, as plain values; `loss`: what it is expected to
    lose."""
    return {
        task: {
            "questions": law.questions, "chance": law.chance, "digest": task_digest(table, task),
            **_facts(law.predict(*at, loss)),
        }
        for task, law in laws.items()
    }  # fmt: skip


def _facts(forecast: TaskForecast) -> dict[str, Any]:
    return {
        "bits_per_byte": _plain(forecast.bits_per_byte), "accuracy": _plain(forecast.accuracy),
        "two_steps": {
            "bits_per_byte": _plain(forecast.two_step_bits), "accuracy": _plain(forecast.two_step_accuracy)
        },
        "smallest_effect": {"accuracy": forecast.effect, "bits_per_byte": forecast.bits_effect},
        "noise": {"accuracy": forecast.accuracy_is_noise, "bits_per_byte": forecast.bits_are_noise},
    }  # fmt: skip


def _plain(expected: ExpectedScore) -> dict[str, Any]:
    ends = {f"interval{level * 100:.0f}": list(ends) for level, ends in expected.intervals.items()}
    return {"value": expected.value, **ends}


def task_words(task: str, row: Mapping[str, Any]) -> list[str]:
    """What is expected of a task, in a sentence each: `row` as of `predicted_tasks`."""
    bits, accuracy, two = row["bits_per_byte"], row["accuracy"], row["two_steps"]
    low, high = (f"{100 * end:.0f}" for end in accuracy["interval90"])
    words = [
        f"{task}: {bits['value']:.3f} bits per byte of the right answer (90%: {span(bits['interval90'], 3)}; two steps "
        f"through the loss: {two['bits_per_byte']['value']:.3f})",
        f"{task}: accuracy {accuracy['value']:.1%} (90%: {low} to {high}%; two steps: {two['accuracy']['value']:.1%}; "
        f"guessing {row['chance']:.0%})",
    ]
    effect = row["smallest_effect"]
    if row["noise"]["accuracy"]:
        words[1] += (
            f": noise at this size, since {row['questions']} questions show no less than {effect['accuracy']:.1%} "
            "above guessing"
        )
    if row["noise"]["bits_per_byte"]:
        words[0] += f": noise at this size, since runs differ by {effect['bits_per_byte']:.1%} without a reason"
    return words
