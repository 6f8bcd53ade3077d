"""`maquette evaluate suite=embedded checkpoint=...`: what a model knows, in every way of asking, with intervals.

Typing the same line again finds a finished evaluation, or goes on with one that was killed.
"""

import dataclasses
import datetime
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette import __version__
from maquette.artifacts.files import digest, file_digest, locked, write_json
from maquette.artifacts.progress import progress, say
from maquette.cli.command_line.model_config import EvaluateStage
from maquette.evaluation.figures import PROTOCOL_NAMES, evaluation_figures
from maquette.evaluation.suites.leaderboard import FILE, read_evaluations
from maquette.evaluation.suites.runner import count_work, run_suite
from maquette.evaluation.suites.suite import HeldOut, Suite, build_suite, find_held_out
from maquette.evaluation.suites.summary import spread, summarise
from maquette.model.loading import EXPORTED, find_checkpoint, load_checkpoint, model_folder
from maquette.reports import write_page
from maquette.tracking import start_run
from maquette.training import read_record


def run(config: EvaluateStage) -> dict[str, Any]:
    """Evaluates one checkpoint; writes evaluation.json, index.html and figures, and returns the JSON's content."""
    checkpoint = find_checkpoint(config.checkpoint, config.outputs)
    held_out = find_held_out(config.corpus, config.outputs, checkpoint) if config.suite.needs_corpus else None
    suite = build_suite(config.suite, held_out, seed=config.protocol.seed)
    identity = _identity(config, checkpoint, suite, held_out)
    name = checkpoint.parent.name if checkpoint.name == EXPORTED else checkpoint.name
    folder = Path(config.outputs) / "evaluations" / f"{name}-{suite.name}-{identity['fingerprint'][:8]}"
    with locked(folder):
        if not config.force and (done := read_evaluations([folder])):
            say(f"evaluation {folder.name}: nothing to do, already done")
            _show(done[0], folder)
            return done[0]
        if config.force:
            (folder / "journal.jsonl").unlink(missing_ok=True)
        result = _evaluate(config, checkpoint, suite, identity | {"name": name}, folder)
    _show(result, folder)
    return result


def _evaluate(
    config: EvaluateStage, checkpoint: Path, suite: Suite, identity: dict[str, Any], folder: Path
) -> dict[str, Any]:
    model, tokenizer = load_checkpoint(checkpoint)
    record = read_record(checkpoint) or read_record(checkpoint.parent)
    params = {
        "checkpoint": str(checkpoint),
        "suite": dataclasses.asdict(config.suite),
        "protocol": identity["protocol"],
    }
    tags = {"kind": "evaluation", "suite": suite.name, "evaluated_run": record.tracking_run if record else None}
    with start_run(
        config.tracking, outputs=config.outputs, name=folder.name, folder=folder, params=params, tags=tags
    ) as log:
        total = count_work(suite.tasks, suite.documents, config.suite, config.protocol)
        with progress("evaluating", total, unit="questions and documents") as advance:
            results = run_suite(
                model, tokenizer, suite.tasks, suite.documents, suite=config.suite, protocol=config.protocol,
                folder=folder, advance=advance,
            )  # fmt: skip
        found = summarise(
            suite.tasks,
            results,
            config.protocol,
            tokenizer_digest=tokenizer.digest,
            objective=record.spec.objective if record else None,
        )
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        result = {**identity, "created": created, "maquette_version": __version__, **found}
        facts = {**result, "names": PROTOCOL_NAMES, "spread": spread(result["scores"])}
        page = write_page(folder, "evaluation.html.j2", facts, evaluation_figures(result))
        write_json(folder / FILE, result)
        log.log_metrics(_metrics(result), step=0)
        for path in (page, folder / FILE, folder / "figures"):
            if path.exists():
                log.log_artifact(path)
    return result


def _identity(config: EvaluateStage, checkpoint: Path, suite: Suite, held_out: HeldOut | None) -> dict[str, Any]:
    """What makes two evaluations the same, and (`comparable`) what makes their scores comparable."""
    weights = model_folder(checkpoint)
    protocol = dataclasses.asdict(config.protocol)
    del protocol["batch_size_tokens"]
    tasks = {task.name: task.digest for task in suite.tasks}
    asked = {
        "protocol": protocol, "tasks": tasks, "stride": config.suite.stride, "documents": suite.documents_digest,
        "contamination": config.suite.contamination,
    }  # fmt: skip
    digests = {
        "model": digest({file.name: file_digest(file) for file in sorted(weights.glob("*.safetensors"))}),
        "tokenizer": file_digest(weights / "tokenizer.json"),
        "tasks": tasks,
        "corpus": held_out.digest if held_out else None,
    }
    return {
        "checkpoint": str(checkpoint),
        "suite": {"name": suite.name, **dataclasses.asdict(config.suite)},
        "protocol": protocol,
        "comparable": digest(asked),
        "fingerprint": digest({"asked": asked, "model": digests["model"], "tokenizer": digests["tokenizer"]}),
        "digests": digests,
    }


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    found = {f"evaluation/{name}": row["accuracy"] for name, row in result["headline"].items()}
    found |= {
        f"evaluation/{row['task']}/{row['protocol']}/{row['shots']}-shot": row["accuracy"] for row in result["scores"]
    }
    if result["mean_accuracy"] is not None:
        found["evaluation/mean_accuracy"] = result["mean_accuracy"]
    for domain, row in result["likelihood"].items():
        plain = "".join(sign if sign.isalnum() or sign in "._- " else "_" for sign in domain)
        found[f"evaluation/bits_per_byte/{plain}"] = row["bits_per_byte"]["value"]
        found[f"evaluation/perplexity/{plain}"] = row["perplexity"]["value"]
    return found


def _show(result: dict[str, Any], folder: Path) -> None:
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
    for domain, row in result["likelihood"].items():
        rate = row["bits_per_byte"]
        console.print(
            f"{domain}: {rate['value']:.3f} bits per byte ({rate['low']:.3f} to {rate['high']:.3f}), "
            f"perplexity {row['perplexity']['value']:.2f} by token",
            markup=False, highlight=False,
        )  # fmt: skip
    for name, test in result["contamination"].items():
        console.print(f"{name}: contamination p-value {test['p_value']:.4f}", markup=False)
    for note in result["notes"]:
        say(note)
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
