"""`maquette evaluate suite=embedded checkpoint=...`: what a model knows, by every protocol, with intervals.

Run the command again to find a finished evaluation, or to resume one that was killed.
"""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from maquette import __version__
from maquette.artifacts.files import locked
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import write_sealed
from maquette.cli.command_line.model_config import EvaluateStage
from maquette.evaluation.figures import PROTOCOL_NAMES, evaluation_figures
from maquette.evaluation.leaderboard import FILE, read_evaluations
from maquette.evaluation.suite import Suite, build_suite, count_work, find_held_out, run_suite
from maquette.evaluation.summary import evaluation_identity, evaluation_metrics, show_evaluation, spread, summarise
from maquette.model.loading import EXPORTED, find_checkpoint, load_checkpoint
from maquette.reports import write_page
from maquette.tracking import start_run
from maquette.training import read_record


def run(config: EvaluateStage) -> dict[str, Any]:
    """Evaluates one checkpoint; writes evaluation.json, index.html and figures, and returns the JSON's content."""
    checkpoint = find_checkpoint(config.checkpoint, config.outputs)
    held_out = find_held_out(config.corpus, config.outputs, checkpoint) if config.suite.needs_corpus else None
    suite = build_suite(config.suite, held_out, seed=config.protocol.seed)
    identity = evaluation_identity(checkpoint, suite, held_out, config.suite, config.protocol)
    name = checkpoint.parent.name if checkpoint.name == EXPORTED else checkpoint.name
    folder = Path(config.outputs) / "evaluations" / f"{name}-{suite.name}-{identity['fingerprint'][:8]}"
    with locked(folder):
        if not config.force and (done := read_evaluations([folder])):
            say(f"evaluation {folder.name}: up to date")
            result = done[0]
        else:
            if config.force:
                (folder / "journal.jsonl").unlink(missing_ok=True)
            result = _evaluate(config, checkpoint, suite, identity | {"name": name}, folder)
    show_evaluation(result)
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return result


def _evaluate(
    config: EvaluateStage, checkpoint: Path, suite: Suite, identity: dict[str, Any], folder: Path
) -> dict[str, Any]:
    model, tokenizer = load_checkpoint(checkpoint)
    record = read_record(checkpoint) or read_record(checkpoint.parent)
    params = {key: identity[key] for key in ("checkpoint", "protocol")} | {"suite": dataclasses.asdict(config.suite)}
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
        summary = summarise(
            suite.tasks, results, config.protocol, tokenizer_digest=tokenizer.digest,
            objective=record.spec.objective if record else None,
        )  # fmt: skip
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        result = {**identity, "created": created, "maquette_version": __version__, **summary}
        facts = {**result, "names": PROTOCOL_NAMES, "spread": spread(result["scores"])}
        page = write_page(folder, "evaluation.html.j2", facts, evaluation_figures(result))
        write_sealed(folder / FILE, result)
        log.log_metrics(evaluation_metrics(result), step=0)
        for path in (page, folder / FILE, folder / "figures"):
            if path.exists():
                log.log_artifact(path)
    return result
