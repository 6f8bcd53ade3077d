"""What an evaluation says in the end: every score with its protocol, its interval and its spread over protocols; what
tells it from others, its numbers for the tracker, and what it shows at the terminal.
"""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from maquette import __version__
from maquette.artifacts.files import digest, file_digest, listed
from maquette.artifacts.progress import say
from maquette.artifacts.reading import write_sealed
from maquette.evaluation.baselines import ALL
from maquette.evaluation.config import FREE_PROTOCOLS, PROTOCOLS, ProtocolConfig, SuiteConfig
from maquette.evaluation.figures import PROTOCOL_NAMES, evaluation_figures
from maquette.evaluation.leaderboard import FILE
from maquette.evaluation.likelihood import NOT_A_LANGUAGE_MODEL, PER_BYTE_ONLY, summarize
from maquette.evaluation.multiple_choice import predictions
from maquette.evaluation.question_files import QUESTION
from maquette.evaluation.questions import FREE, QuestionSet
from maquette.evaluation.suite import HeldOut, Suite, SuiteResults
from maquette.model.loading import model_folder
from maquette.recipe.objectives import entry_of
from maquette.reports import quantity, write_page
from maquette.reports.tables import p_value
from maquette.statistics import bootstrap_mean, detectable_difference, holm
from maquette.tracking import RunLog

HEADLINE = {"completion": "per_byte", QUESTION: "letter", FREE: "exact_match"}
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
        kinds = FREE_PROTOCOLS if task.template == FREE else [one for one in PROTOCOLS if one in protocol.protocols]
        for kind in kinds:
            right = [
                [float(option == question.answer) for option in options]
                for row, question in zip(chosen, task.questions, strict=True)
                if (options := row.get(kind)) is not None
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
    rows = []
    for task, shots in dict.fromkeys((row["task"], row["shots"]) for row in scores):
        own = [row for row in scores if (row["task"], row["shots"]) == (task, shots)]
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
        options = predictions(result, question).get(protocol)
        if options is not None:
            answers[question.id] = float(np.mean([option == question.answer for option in options]))
    return answers


def right_answers(tasks: Sequence[QuestionSet], results: SuiteResults, protocol: ProtocolConfig) -> dict[str, Any]:
    """Of every task, bits per byte of the right answer given its question: the mean over the `questions` whose prompt
    fitted, with its interval. It tells models apart where accuracy does not yet (Bhagia et al. 2024)."""
    rows = {}
    for task in tasks:
        values = np.array(
            [
                -content["log_probs"][question.answer]
                / (math.log(2) * max(1, len(question.options[question.answer].encode("utf-8", "surrogatepass"))))
                for question, result in zip(task.questions, results.answers[task.name, protocol.shots[0]], strict=True)
                if (content := result["content"]) is not None
            ]
        )
        if len(values) > 1:
            low, high = bootstrap_mean(values, **_interval_options(protocol)).interval
            rows[task.name] = {
                "bits_per_byte": float(values.mean()), "low": low, "high": high, "questions": len(values)
            }  # fmt: skip
    return rows


def against_chance(
    headline: Mapping[str, Mapping[str, Any]], items: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Of every task's headline score: the one-sided p-value for guessing (`p_value`; `adjusted` for as many tasks as
    there are, Holm 1979), and `detectable`, the difference between two models like this one that so many questions show
    in four cases of five where their answers are independent (of paired answers smaller ones are seen)."""
    rows = {}
    for task, row in headline.items():
        right = np.array(list(items[task].values()))
        if len(right) < 2:
            continue
        error = float(right.std(ddof=1)) / len(right) ** 0.5
        beyond = float(right.mean()) - row["chance"]
        # the spread of guessing where every answer is right, or every one wrong
        by_chance = error or math.sqrt(row["chance"] * (1 - row["chance"]) / len(right))
        p_value = float(norm.sf(beyond / by_chance)) if by_chance else float(beyond <= 0)
        rows[task] = {"p_value": p_value, "detectable": detectable_difference(math.sqrt(2) * error)}
    adjusted = holm([row["p_value"] for row in rows.values()])
    return {task: row | {"adjusted": float(p)} for (task, row), p in zip(rows.items(), adjusted, strict=True)}


def write_evaluation(
    folder: Path,
    identity: Mapping[str, Any],
    suite: Suite,
    results: SuiteResults,
    protocol: ProtocolConfig,
    tokenizer_digest: str,
    objective: str | None,
    log: RunLog,
) -> dict[str, Any]:
    """Writes evaluation.json, the figures and index.html, hands them to the tracker, and returns the JSON's content.
    `objective`: of the run that is evaluated, where it is known."""
    result = {
        **identity,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "maquette_version": __version__,
        **_summary(suite.tasks, results, protocol, tokenizer_digest, objective),
    }
    facts = {**result, "names": PROTOCOL_NAMES, "spread": spread(result["scores"])}
    page = write_page(folder, "evaluation.html.j2", facts, evaluation_figures(result))
    write_sealed(folder / FILE, result)
    log.log_metrics(evaluation_metrics(result), step=0)
    for path in (page, folder / FILE, folder / "figures"):
        if path.exists():
            log.log_artifact(path)
    return result


def _summary(
    tasks: Sequence[QuestionSet],
    results: SuiteResults,
    protocol: ProtocolConfig,
    tokenizer_digest: str,
    objective: str | None,
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
        "power": against_chance(headline, items),
        "mean_accuracy": float(np.mean([row["accuracy"] for row in headline.values()])) if headline else None,
        "scores": rows,
        "answers": right_answers(tasks, results, protocol),
        "likelihood": likelihood,
        "contamination": {name: dataclasses.asdict(test) for name, test in results.contamination.items()},
        "skipped": {task.name: dict(task.skipped) for task in tasks if task.skipped},
        "notes": notes,
        "items": items,
    }


def evaluation_identity(
    checkpoint: Path, suite: Suite, held_out: HeldOut | None, asked: SuiteConfig, protocol: ProtocolConfig
) -> dict[str, Any]:
    """What makes two evaluations the same, and (`comparable`) what makes their scores comparable."""
    weights = model_folder(checkpoint)
    how = dataclasses.asdict(protocol)
    del how["batch_size_tokens"]
    tasks = {task.name: task.digest for task in suite.tasks}
    question = {
        "protocol": how, "tasks": tasks, "stride": asked.stride, "documents": suite.documents_digest,
        "contamination": asked.contamination,
    }  # fmt: skip
    if any(task.template == FREE for task in suite.tasks):
        question["free_form"] = asked.free_form
    digests = {
        "model": digest({file.name: file_digest(file) for file in listed(weights, "*.safetensors")}),
        "tokenizer": file_digest(weights / "tokenizer.json"),
        "tasks": tasks,
        "corpus": held_out.digest if held_out else None,
    }
    return {
        "checkpoint": str(checkpoint),
        "suite": {"name": suite.name, **dataclasses.asdict(asked)},
        "protocol": how,
        "comparable": digest(question),
        "fingerprint": digest({"asked": question, "model": digests["model"], "tokenizer": digests["tokenizer"]}),
        "digests": digests,
    }


def evaluation_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies, bits per byte and perplexities by the names that the tracker has for them."""
    metrics = {f"evaluation/{name}": row["accuracy"] for name, row in result["headline"].items()}
    metrics |= {
        f"evaluation/{row['task']}/{row['protocol']}/{row['shots']}-shot": row["accuracy"] for row in result["scores"]
    }
    metrics |= {f"evaluation/{name}/bits_per_byte": row["bits_per_byte"] for name, row in result["answers"].items()}
    if result["mean_accuracy"] is not None:
        metrics["evaluation/mean_accuracy"] = result["mean_accuracy"]
    for domain, row in result["likelihood"].items():
        plain = "".join(sign if sign.isalnum() or sign in "._- " else "_" for sign in domain)
        metrics[f"evaluation/bits_per_byte/{plain}"] = row["bits_per_byte"]["value"]
        metrics[f"evaluation/perplexity/{plain}"] = row["perplexity"]["value"]
    return metrics


def show_evaluation(result: Mapping[str, Any]) -> None:
    """Tables, contamination and notes at the terminal."""
    console = Console()
    if result["scores"]:
        too_long = ["too long"] if any(row["too_long"] for row in result["scores"]) else []
        table = Table("task", "protocol", title=f"{result['name']}: accuracy in percent", title_justify="left")
        for heading in ("%", "interval", "by order", "asked", *too_long):
            table.add_column(heading, justify="right", no_wrap=True)
        before = ""
        for row in result["scores"]:
            task = row["task"] if row["shots"] == 0 else f"{row['task']}, {row['shots']} shots"
            orders = f"{100 * row['least']:.1f}-{100 * row['most']:.1f}" if row["least"] < row["most"] else ""
            table.add_row(
                task if task != before else "", PROTOCOL_NAMES[row["protocol"]], f"{100 * row['accuracy']:.1f}",
                f"{100 * row['low']:.1f}-{100 * row['high']:.1f}" if math.isfinite(row["low"]) else "too few", orders,
                str(row["questions"]), *([str(row["too_long"] or "")] if too_long else []),
            )  # fmt: skip
            before = task
        console.print(table)
    for task, row in result.get("power", {}).items():
        beyond = "above guessing" if row["adjusted"] < 0.05 else "not above guessing"
        console.print(
            f"{task}: {beyond} (p {p_value(row['adjusted'])}, Holm's over {len(result['power'])} tasks); two such "
            f"models must differ by {100 * row['detectable']:.1f} points to be told apart",
            markup=False, highlight=False,
        )  # fmt: skip
    for task, row in result.get("answers", {}).items():
        console.print(
            f"{task}: {row['bits_per_byte']:.3f} bits per byte of the right answer "
            f"({row['low']:.3f} to {row['high']:.3f})", markup=False, highlight=False,
        )  # fmt: skip
    for domain, row in result["likelihood"].items():
        rate = row["bits_per_byte"]
        console.print(
            f"{domain}: {rate['value']:.3f} bits per byte ({rate['low']:.3f} to {rate['high']:.3f}), "
            f"perplexity {quantity(row['perplexity']['value'])} by token",
            markup=False, highlight=False,
        )  # fmt: skip
    for name, test in result["contamination"].items():
        console.print(f"{name}: contamination p-value {test['p_value']:.4f}", markup=False)
    for note in result["notes"]:
        say(note)
