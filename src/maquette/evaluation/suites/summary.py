"""What an evaluation says in the end: every score with its protocol, its interval and its spread over protocols."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maquette.evaluation.baselines import ALL
from maquette.evaluation.config import PROTOCOLS, ProtocolConfig
from maquette.evaluation.likelihood import NOT_A_LANGUAGE_MODEL, PER_BYTE_ONLY, summarize
from maquette.evaluation.questions.multiple_choice import predictions
from maquette.evaluation.questions.questions import QuestionSet
from maquette.evaluation.questions.readers import QUESTION
from maquette.evaluation.suites.runner import Judged
from maquette.recipe.objectives import entry_of
from maquette.statistics import bootstrap_mean

HEADLINE = {"completion": "per_byte", QUESTION: "letter"}
"""The protocol whose score stands for a task, by its template: what the benchmarks' authors report."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Accuracy of one task by one protocol, over `questions` asked; `too_long` prompts did not fit the context.

    `low`, `high`: interval over questions. `least`, `most`: accuracy in the worst and the best order of the options.
    """

    task: str
    shots: int
    protocol: str
    accuracy: float
    low: float
    high: float
    least: float
    most: float
    questions: int
    too_long: int
    chance: float


def scores(tasks: Sequence[QuestionSet], judged: Judged, protocol: ProtocolConfig) -> list[Score]:
    """Every task, number of shots and protocol for which some prompt fitted."""
    found = []
    for (name, shots), results in judged.answers.items():
        task = next(task for task in tasks if task.name == name)
        chosen = [predictions(result, q) for result, q in zip(results, task.questions, strict=True)]
        for kind in (kind for kind in PROTOCOLS if kind in protocol.protocols):
            right = [
                [float(option == question.answer) for option in options]
                for row, question in zip(chosen, task.questions, strict=True)
                if (options := row[kind]) is not None
            ]
            if not right:
                continue
            means = np.array([np.mean(row) for row in right])
            orders = [float(np.mean([row[turn % len(row)] for row in right])) for turn in range(max(map(len, right)))]
            low = high = math.nan
            if len(means) > 1:
                interval = bootstrap_mean(
                    means, resamples=protocol.resamples, level=protocol.level, seed=protocol.seed
                ).interval
                low, high = interval
            found.append(
                Score(
                    name, shots, kind, float(means.mean()), low, high, min(orders), max(orders), len(right),
                    len(results) - len(right), task.chance,
                )
            )  # fmt: skip
    return found


def spread(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By task and shots: the least and the greatest accuracy over protocols, and how many questions these answered."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in scores:
        found.setdefault((row["task"], row["shots"]), []).append(row)
    rows = []
    for (task, shots), own in found.items():
        least, most = (choose(row["accuracy"] for row in own) for choose in (min, max))
        asked = sorted({row["questions"] for row in own})
        words = f"{asked[0]:,}" if len(asked) == 1 else f"{asked[0]:,} to {asked[-1]:,}"
        rows.append({"task": task, "shots": shots, "least": least, "most": most, "spread": most - least,
                     "questions": words})  # fmt: skip
    return rows


def correct_by_question(task: QuestionSet, judged: Judged, shots: int, protocol: str) -> dict[str, float]:
    """Share of the orders in which each question was answered right: what paired comparisons need."""
    found = {}
    for question, result in zip(task.questions, judged.answers[task.name, shots], strict=True):
        options = predictions(result, question)[protocol]
        if options is not None:
            found[question.id] = float(np.mean([option == question.answer for option in options]))
    return found


def summarise(
    tasks: Sequence[QuestionSet],
    judged: Judged,
    protocol: ProtocolConfig,
    *,
    tokenizer_digest: str,
    objective: str | None = None,
) -> dict[str, Any]:
    """The content of evaluation.json, as far as it is about scores."""
    rows = scores(tasks, judged, protocol)
    headline, items = {}, {}
    for task in tasks:
        own = [row for row in rows if row.task == task.name and row.shots == protocol.shots[0]]
        wanted = HEADLINE.get(task.template, "likelihood")
        if own:
            best = next((row for row in own if row.protocol == wanted), own[0])
            headline[task.name] = dataclasses.asdict(best)
            items[task.name] = correct_by_question(task, judged, best.shots, best.protocol)
    likelihood = _likelihoods(judged, protocol)
    notes = [PER_BYTE_ONLY.format(digest=tokenizer_digest[:8])] if likelihood else []
    if likelihood and objective and not entry_of(objective).calibrated:
        error = likelihood[ALL]["calibration_error"]
        notes.insert(0, NOT_A_LANGUAGE_MODEL.format(objective=objective, error=error))
    return {
        "headline": headline,
        "mean_accuracy": float(np.mean([row["accuracy"] for row in headline.values()])) if headline else None,
        "scores": [dataclasses.asdict(row) for row in rows],
        "likelihood": likelihood,
        "contamination": {name: dataclasses.asdict(test) for name, test in judged.contamination.items()},
        "skipped": {task.name: dict(task.skipped) for task in tasks if task.skipped},
        "notes": notes,
        "items": items,
    }


def _likelihoods(judged: Judged, protocol: ProtocolConfig) -> dict[str, dict[str, Any]]:
    """By domain, and of all documents together."""
    by_domain: dict[str, list[Any]] = {}
    for document in judged.likelihoods:
        by_domain.setdefault(document.domain, []).append(document)
    if judged.likelihoods:
        by_domain[ALL] = judged.likelihoods
    options: Mapping[str, Any] = {
        "resamples": protocol.resamples, "level": protocol.level, "seed": protocol.seed
    }  # fmt: skip
    return {name: dataclasses.asdict(summarize(rows, **options)) for name, rows in by_domain.items()}
