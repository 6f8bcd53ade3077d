"""`maquette annotate`: pairs of answers, sampled or given, and who prefers which; a preference file with its report."""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts.files import file_digest
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import AnnotateStage
from maquette.feedback.annotation import FILE, annotate, annotator_metrics, pairs_of_file
from maquette.feedback.annotators.custom import CallableAnnotator
from maquette.feedback.building import annotator_folder
from maquette.feedback.comparison import Comparison
from maquette.feedback.policies import pairs_of, sample_many
from maquette.feedback.prompts import open_prompts
from maquette.model.loading import find_checkpoint, load_checkpoint, weights_digest
from maquette.tracking import start_run


def run(config: AnnotateStage) -> Path:
    """Makes the artifact with `preferences.jsonl`, or finds it made; returns its folder.

    Raises `StageError` where a model or file is missing or damaged, or nothing could be decided."""
    if config.feedback.kind == "callable":
        CallableAnnotator(config.feedback.callable)  # raises where it can't be imported, before anything is sampled
    inputs = _inputs(config)
    made: list[dict[str, Any]] = []

    def make(folder: Path) -> dict[str, Any]:
        pairs = pairs_of_file(config.given) if config.given is not None else _sampled(config)
        facts = annotate(pairs, config.feedback, folder, config.outputs, repeats=config.repeats, before=config.add)
        made.append(facts)
        return facts

    folder = build(
        "preferences",
        Path(config.outputs) / "artifacts",
        name=config.name,
        label=config.feedback.kind,
        config=_identity(config),
        inputs=inputs,
        make=make,
        force=config.force,
        say=say,
    )
    for facts in made:
        with start_run(
            config.tracking, outputs=Path(config.outputs), name=f"annotate-{config.feedback.kind}", folder=folder,
            params=_identity(config), tags={"kind": "annotate"},
        ) as log:  # fmt: skip
            log.log_metrics(annotator_metrics(facts["annotators"][0]), 0)
            log.log_artifact(folder / "figures")
    say(f"{folder / FILE}; report: {folder / 'report.md'}")
    return folder


def _sampled(config: AnnotateStage) -> list[Comparison]:
    model, tokenizer = load_checkpoint(find_checkpoint(config.checkpoint, config.outputs))
    source = open_prompts(
        config.prompts, tokenizer, longest=max(1, model.config.max_position_embeddings - config.max_completion_length)
    )
    prompts = [source[number] for number in range(config.first, config.first + config.count)]
    answers = sample_many(
        model, tokenizer, prompts, config.answers, max_tokens=config.max_completion_length,
        temperature=config.temperature,
        seed=config.seed,
    )  # fmt: skip
    return pairs_of(answers)


def _inputs(config: AnnotateStage) -> dict[str, str]:
    """Digests of the models and files that the labels come from."""
    models = {"policy": None if config.given is not None else find_checkpoint(config.checkpoint, config.outputs)}
    models["annotator"] = annotator_folder(config.feedback, config.outputs)
    files = {"given": config.given, "prompts": config.prompts.path, "labels": config.feedback.path}
    files |= {f"add{number}": path for number, path in enumerate(config.add)}
    digests = {name: file_digest(path) for name, path in files.items() if path is not None}
    return digests | {name: weights_digest(folder) for name, folder in models.items() if folder is not None}


def _identity(config: AnnotateStage) -> dict[str, Any]:
    """The settings that decide what is preferred, not where files lie."""
    settings = dataclasses.asdict(config)
    for key in ("outputs", "force", "tracking", "name", "checkpoint", "given", "add"):
        del settings[key]
    del settings["prompts"]["path"]
    return settings | {"feedback": config.feedback.identity("checkpoint", "path")}
