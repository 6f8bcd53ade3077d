"""`maquette annotate`: pairs of answers, sampled or given, and who prefers which; a preference file with its report."""

from pathlib import Path
from typing import Any

from maquette.artifacts.files import file_digest
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import AnnotateStage
from maquette.feedback.annotators.custom import CallableAnnotator
from maquette.feedback.config import PREFERENCES
from maquette.model.loading import find_checkpoint, find_reward_model, weights_digest


def run(config: AnnotateStage) -> Path:
    """Makes the artifact with `preferences.jsonl`, or finds it made; returns its folder.

    Raises `StageError` where a model or file is missing or damaged, or nothing could be decided."""
    if config.feedback.kind == "callable":
        CallableAnnotator(config.feedback.callable)  # raises where it can't be imported, before anything is sampled
    policy = None if config.given is not None else find_checkpoint(config.checkpoint, config.outputs)
    identity = config.identity()

    def make(folder: Path) -> dict[str, Any]:
        from maquette.feedback.annotation import annotate, pairs_of_file
        from maquette.feedback.choosing import choose_pairs
        from maquette.feedback.policies import sample_pairs

        pairs = pairs_of_file(str(config.given)) if policy is None else sample_pairs(policy, config.prompts, **sampling)
        pairs = choose_pairs(pairs, config.labels, config.choose, config.rewards, config.outputs, seed=config.seed)
        return annotate(
            pairs, config.feedback, folder, config.outputs, repeats=config.repeats, before=config.add,
            judges=config.beside(),
        )  # fmt: skip

    def record(folder: Path) -> None:
        from maquette.feedback.annotation import record_annotation

        record_annotation(folder, identity, config.feedback.kind, config.outputs, config.tracking)

    names = ("count", "first", "answers", "max_completion_length", "temperature", "seed")
    sampling = {name: getattr(config, name) for name in names}
    root, kind = Path(config.outputs) / "artifacts", config.feedback.kind
    folder = build(
        "preferences", root, name=config.name, label=kind, config=identity, inputs=_inputs(config, policy),
        make=make, made=record, force=config.force, say=say,
    )  # fmt: skip
    say(f"{folder / PREFERENCES}; report: {folder / 'report.md'}")
    return folder


def _inputs(config: AnnotateStage, policy: Path | None) -> dict[str, str]:
    """Digests of the models and files that the labels come from."""
    models = {"policy": policy, "annotator": config.feedback.annotator_folder(config.outputs)}
    choosing = [find_reward_model(one, config.outputs, key="rewards") for one in config.rewards]
    models |= {f"chooses{place}": folder for place, folder in enumerate(choosing)}
    files = {"given": config.given, "prompts": config.prompts.path, "labels": config.feedback.path}
    files |= {f"add{number}": path for number, path in enumerate(config.add)}
    digests = {name: file_digest(path) for name, path in files.items() if path is not None}
    return digests | {name: weights_digest(folder) for name, folder in models.items() if folder is not None}
