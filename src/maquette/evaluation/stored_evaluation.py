"""The evaluation of one checkpoint, found or made: `<outputs>/evaluations/<model>-<suite>-<fingerprint>/` with its
JSON, page and figures.

A finished one is found again, one that was killed resumes; of the same model, questions and protocol there is one.
"""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts.files import locked
from maquette.artifacts.progress import say
from maquette.evaluation.config import ProtocolConfig, SuiteConfig
from maquette.evaluation.leaderboard import read_evaluations
from maquette.evaluation.suite import build_suite, find_held_out, run_suite
from maquette.evaluation.summary import evaluation_identity, write_evaluation
from maquette.model.loading import load_checkpoint, model_name
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig
from maquette.training import read_record
from maquette.training.devices import threads_for

FOLDER = "evaluations"


def stored_evaluation(
    checkpoint: Path,
    asked: SuiteConfig,
    protocol: ProtocolConfig,
    *,
    corpus: str | None,
    outputs: str,
    tracking: TrackingConfig,
    force: bool = False,
) -> dict[str, Any]:
    """Evaluates the model in `checkpoint` where that is not done yet, and returns the JSON's content. Raises
    `StageError` where the questions can't be made or read."""
    held_out = find_held_out(corpus, outputs, checkpoint) if asked.needs_corpus else None
    suite = build_suite(asked, held_out, seed=protocol.seed)
    identity = evaluation_identity(checkpoint, suite, held_out, asked, protocol)
    identity["name"] = model_name(checkpoint)
    folder = Path(outputs) / FOLDER / f"{identity['name']}-{suite.name}-{identity['fingerprint'][:8]}"
    record = read_record(checkpoint) or read_record(checkpoint.parent)
    params = {key: identity[key] for key in ("checkpoint", "protocol")} | {"suite": dataclasses.asdict(asked)}
    tags = {"kind": "evaluation", "suite": suite.name, "evaluated_run": record.tracking_run if record else None}
    with locked(folder):
        if not force and (done := read_evaluations([folder])):
            say(f"evaluation {folder.name}: up to date")
            result = done[0]
        else:
            model, tokenizer = load_checkpoint(checkpoint)
            with (
                start_run(tracking, outputs=outputs, name=folder.name, folder=folder, params=params, tags=tags) as log,
                threads_for(model.config.hidden_size),
            ):
                results = run_suite(
                    model, tokenizer, suite, suite=asked, protocol=protocol, folder=folder, outputs=outputs, force=force
                )  # fmt: skip
                objective = record.spec.objective if record else None
                result = write_evaluation(folder, identity, suite, results, protocol, tokenizer.digest, objective, log)
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return result
