"""`maquette evaluate suite=embedded checkpoint=...`: what a model knows, by every protocol, with intervals; how often
a reward model ranks pairs as people do.

Run the command again to find a finished evaluation, or to resume one that was killed.
"""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts.files import locked
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import EvaluateStage
from maquette.evaluation.leaderboard import read_evaluations
from maquette.evaluation.preference_accuracy import evaluate_preferences
from maquette.evaluation.suite import build_suite, find_held_out, run_suite
from maquette.evaluation.summary import evaluation_identity, show_evaluation, write_evaluation
from maquette.model.hf import is_scalar, read_config
from maquette.model.loading import EXPORTED, find_checkpoint, load_checkpoint, model_folder
from maquette.tracking import start_run
from maquette.training import read_record


def run(config: EvaluateStage) -> dict[str, Any]:
    """Evaluates one checkpoint; writes evaluation.json, index.html and figures, and returns the JSON's content."""
    checkpoint = find_checkpoint(config.checkpoint, config.outputs)
    name = checkpoint.parent.name if checkpoint.name == EXPORTED else checkpoint.name
    if config.suite.preferences or is_scalar(read_config(model_folder(checkpoint))):
        return evaluate_preferences(
            checkpoint, name, config.suite, config.protocol, outputs=config.outputs, tracking=config.tracking,
            force=config.force,
        )  # fmt: skip
    held_out = find_held_out(config.corpus, config.outputs, checkpoint) if config.suite.needs_corpus else None
    suite = build_suite(config.suite, held_out, seed=config.protocol.seed)
    identity = evaluation_identity(checkpoint, suite, held_out, config.suite, config.protocol)
    identity["name"] = name
    folder = Path(config.outputs) / "evaluations" / f"{identity['name']}-{suite.name}-{identity['fingerprint'][:8]}"
    record = read_record(checkpoint) or read_record(checkpoint.parent)
    params = {key: identity[key] for key in ("checkpoint", "protocol")} | {"suite": dataclasses.asdict(config.suite)}
    tags = {"kind": "evaluation", "suite": suite.name, "evaluated_run": record.tracking_run if record else None}
    with locked(folder):
        if not config.force and (done := read_evaluations([folder])):
            say(f"evaluation {folder.name}: up to date")
            result = done[0]
        else:
            model, tokenizer = load_checkpoint(checkpoint)
            with start_run(
                config.tracking, outputs=config.outputs, name=folder.name, folder=folder, params=params, tags=tags
            ) as log:
                results = run_suite(
                    model, tokenizer, suite, suite=config.suite, protocol=config.protocol, folder=folder,
                    force=config.force,
                )  # fmt: skip
                objective = record.spec.objective if record else None
                result = write_evaluation(
                    folder, identity, suite, results, config.protocol, tokenizer.digest, objective, log
                )
    show_evaluation(result)
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return result
