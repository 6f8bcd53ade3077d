"""`maquette demo`: small models, the law they obey, a prediction for one of ten times their compute, and the verdict.

The law and the prediction are on disk before the predicted model's first step. A page tells it all.
"""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.cli import fit, predict, tokens, train, verify
from maquette.cli.command_line.config import DemoStage
from maquette.cli.command_line.functions import sweep
from maquette.cli.command_line.law_config import FitStage, PredictStage, VerifyStage
from maquette.cli.command_line.recipe_numbers import curve_of
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.family import sweep_words
from maquette.cli.planning.predicted import predicted_here
from maquette.evaluation.baselines import stored_baselines
from maquette.scaling.predictions.demo_page import DemoPage
from maquette.scaling.predictions.prediction import find_written
from maquette.text import Tokenizer


def run(config: DemoStage) -> Path:
    """Makes what is not made yet, and returns the page, `<outputs>/demo/index.html`."""
    page = make(config).write(force=config.force)
    say(f"Open {page.absolute().as_uri()}")
    return page


def make(config: DemoStage) -> DemoPage:
    """The demo without its page: makes what is not made yet. Raises `StageError` where a run failed."""
    config.validate()
    data = tokens.make_tokens(config)
    # Of the small models only the end is looked at.
    family = sweep(STAGES["train"], [*sweep_words(config), "callbacks.samples.prompts=[]", "num_validations=2"])
    if family.exit_code:
        raise StageError(f"Runs of the sweep {family.name} failed; they are named above.", "The same command goes on.")
    shared: dict[str, Any] = {"outputs": config.outputs, "tracking": config.tracking}
    question = FitStage(runs=family.name, force=config.force, **shared)
    law = fit.run(question)
    compute = config.reach * max(parse_quantity(budget, "sweep.budgets") for budget in config.sweep.budgets)
    prediction = find_written(config.outputs, read_manifest(law).digest, compute)
    if prediction is None:  # the size that the recipe expects to be best: the minima of so small a sweep scatter
        size = curve_of(config, compute, Tokenizer.load(data.tokenizer).vocab_size, count=3).sizes[1]
        prediction = predict.run(PredictStage(fit=str(law), size=f"{size}", compute=f"{compute:g}", **shared))
    record = train.run(dataclasses.replace(predicted_here(prediction, config), force=False), data)
    (verdict,) = verify.run(VerifyStage(prediction=prediction.id, **shared))
    fit.question(question).remember(law)  # other things were recorded since
    baselines = stored_baselines(
        record, data, config.mixture, validation_tokens=config.data.validation_tokens, outputs=config.outputs,
        force=config.force,
    )  # fmt: skip
    return DemoPage(config.outputs, config.tracking, config.seed, record, data, baselines, law, verdict)
