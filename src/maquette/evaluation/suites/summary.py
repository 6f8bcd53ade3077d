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
from maquette.evaluation.suites.runner import SuiteResults
from maquette.recipe.objectives import entry_of
from maquette.statistics import bootstrap_mean

HEADLINE = {"completion": "per_byte", QUESTION: "letter"}
"""The protocol whose score stands for a task, by its template: what the benchmarks' authors report."""


def scores(tasks: Sequence[QuestionSet], results: SuiteResults, protocol: ProtocolConfig) -> list[dict[str, Any]]:
    """Accuracy of every task, number of shots and protocol, over the `questions` whose prompt fitted the context (of
    `too_long` it did not).

    `low`, `high`: interval over questions. `least`, `most`: accuracy in the worst and the best order of the options.
    """
    rows = []
    for (name, shots), answers in results.answers.items():
        task = next(task for task in tasks if task.name == name)
        chosen = [predictions(result, q) for result, q in zip(answers, task.questions, strict=True)]
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
                low, high = bootstrap_mean(means, **_interval_options(protocol)).interval
            rows.append({
                "task": name, "shots": shots, "protocol": kind, "accuracy": float(means.mean()), "low": low,
                "high": high, "least": min(orders), "most": max(orders), "questions": len(right),
                "too_long": len(answers) - len(right), "chance": task.chance,
            })  # fmt: skip
    return rows


def _interval_options(protocol: ProtocolConfig) -> dict[str, Any]:
    return {"resamples": protocol.resamples, "level": protocol.level, "seed": protocol.seed}


def spread(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By task and shots: the least and the greatest accuracy over protocols, and how many questions these answered."""
    by_run: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in scores:
        by_run.setdefault((row["task"], row["shots"]), []).append(row)
    rows = []
    for (task, shots), own in by_run.items():
        least, most = (choose(row["accuracy"] for row in own) for choose in (min, max))
        asked = sorted({row["questions"] for row in own})
        words = f"{asked[0]:,}" if len(asked) == 1 else f"{asked[0]:,} to {asked[-1]:,}"
        rows.append({"task": task, "shots": shots, "least": least, "most": most, "spread": most - least,
                     "questions": words})  # fmt: skip
    return rows


def correct_by_question(task: QuestionSet, results: SuiteResults, shots: int, protocol: str) -> dict[str, float]:
    """Share of the orders in which each question was answered right: what paired comparisons need."""
    answers = {}
    for question, result in zip(task.questions, results.answers[task.name, shots], strict=True):
        options = predictions(result, question)[protocol]
        if options is not None:
            answers[question.id] = float(np.mean([option == question.answer for option in options]))
    return answers


def summarise(
    tasks: Sequence[QuestionSet],
    results: SuiteResults,
    protocol: ProtocolConfig,
    *,
    tokenizer_digest: str,
    objective: str | None = None,
) -> dict[str, Any]:
    """The content of evaluation.json, as far as it is about scores."""
    rows = scores(tasks, results, protocol)
    headline, items = {}, {}
    for task in tasks:
        own = [row for row in rows if row["task"] == task.name and row["shots"] == protocol.shots[0]]
        if own:
            headliner = HEADLINE.get(task.template, "likelihood")
            best = next((row for row in own if row["protocol"] == headliner), own[0])
            headline[task.name] = best
            items[task.name] = correct_by_question(task, results, best["shots"], best["protocol"])
    by_domain: dict[str, list[Any]] = {}
    for document in results.likelihoods:
        by_domain.setdefault(document.domain, []).append(document)
    if results.likelihoods:
        by_domain[ALL] = results.likelihoods
    likelihood = {
        name: dataclasses.asdict(summarize(own, **_interval_options(protocol))) for name, own in by_domain.items()
    }
    notes = [PER_BYTE_ONLY.format(digest=tokenizer_digest[:8])] if likelihood else []
    if likelihood and objective and not entry_of(objective).calibrated:
        error = likelihood[ALL]["calibration_error"]
        notes.insert(0, NOT_A_LANGUAGE_MODEL.format(objective=objective, error=error))
    return {
        "headline": headline,
        "mean_accuracy": float(np.mean([row["accuracy"] for row in headline.values()])) if headline else None,
        "scores": rows,
        "likelihood": likelihood,
        "contamination": {name: dataclasses.asdict(test) for name, test in results.contamination.items()},
        "skipped": {task.name: dict(task.skipped) for task in tasks if task.skipped},
        "notes": notes,
        "items": items,
    }
