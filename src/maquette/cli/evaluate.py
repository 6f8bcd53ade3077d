"""`maquette evaluate suite=embedded checkpoint=...`: what a model knows, by every protocol, with intervals; with
`runs=` what every model of a family knows; how often a reward model ranks pairs as people do.

Run the command again to find a finished evaluation, or to resume one that was killed.
"""

from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import EvaluateStage
from maquette.evaluation.preference_accuracy import evaluate_preferences
from maquette.evaluation.stored_evaluation import stored_evaluation
from maquette.evaluation.summary import show_evaluation
from maquette.model.hf import is_scalar, read_config
from maquette.model.loading import find_checkpoint, model_folder


def run(config: EvaluateStage) -> dict[str, Any]:
    """Evaluates one checkpoint, or with `runs` every run of a family, so that maquette fit predicts what a larger one
    scores; returns the JSON's content (of the last run)."""
    if config.runs is None:
        checkpoint = find_checkpoint(config.checkpoint, config.outputs)
        if config.suite.preferences or is_scalar(read_config(model_folder(checkpoint))):
            return evaluate_preferences(
                checkpoint, config.suite, config.protocol, outputs=config.outputs, tracking=config.tracking,
                force=config.force,
            )  # fmt: skip
        result = _evaluate(config, checkpoint)
        show_evaluation(result)
        return result
    from maquette.scaling.fits.recorded import recorded_runs

    table = recorded_runs(config.runs, config.outputs, config.tracking)
    if table.folders is None:
        raise StageError(f"{table.source} does not say where its runs are.", "Evaluate where they were trained.")
    results = [_evaluate(config, find_checkpoint(folder, config.outputs)) for folder in table.folders]
    where = "" if config.outputs == "outputs" else f" outputs={config.outputs}"
    say(f"{len(results)} runs evaluated. Fit the laws of their scores: maquette fit runs={config.runs}{where}")
    return results[-1]


def _evaluate(config: EvaluateStage, checkpoint: Path) -> dict[str, Any]:
    return stored_evaluation(
        checkpoint, config.suite, config.protocol, corpus=config.corpus, outputs=config.outputs,
        tracking=config.tracking, force=config.force,
    )  # fmt: skip
