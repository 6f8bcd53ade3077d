"""`maquette predict`: what a run that was never trained will reach, written down before it is."""

import json
from pathlib import Path

from rich.console import Console

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.law_config import PredictStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.family_settings import family_settings
from maquette.cli.planning.pretraining import plan_job, resolve_recipe
from maquette.scaling.fits.stored_fit import find_fit, load_fit
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.surface import Allocation
from maquette.scaling.predictions.prediction import WrittenPrediction, record_prediction, write_prediction
from maquette.training import read_record

_ROUNDS = 5


def run(config: PredictStage) -> WrittenPrediction:
    """Writes the prediction into `<outputs>/predictions/` and MLflow, and says how to train the run."""
    _check(config)
    folder = find_fit(config.fit, config.outputs)
    fit, manifest = load_fit(folder)
    table = fit.table
    if "folder" in table.frame.columns and table.frame["folder"].notna().all():
        at, compute, settings, data = _own_run(config, fit)
    else:
        at, compute = _other_run(config, fit)
        settings, data = [], {}
    form = config.form or fit.form
    forecasts = {level: fit.predict(*at, compute=compute, form=config.form, level=level) for level in (0.5, 0.9)}
    prediction = write_prediction(
        WrittenPrediction(
            created="",
            params=at.params,
            tokens=at.tokens,
            compute=compute,
            convention=table.convention,
            loss=forecasts[0.9].loss,
            interval50=(forecasts[0.5].interval.low, forecasts[0.5].interval.high),
            interval90=(forecasts[0.9].interval.low, forecasts[0.9].interval.high),
            form=form,
            reach=compute / fit.comparison.largest_budget,
            fit=folder.name,
            fit_digest=manifest.digest,
            runs=table.identities(),
            settings=settings,
            data=data,
            before=None,
        ),
        config.outputs,
    )
    record_prediction(prediction, config.outputs, config.tracking)
    if config.json:
        print(json.dumps({**prediction.content(), "id": prediction.id, "digest": prediction.digest}, indent=2))
        return prediction
    others = {
        name: fit.predict(*at, compute=compute, form=name).loss for name in fit.comparison.fits if name != form
    }  # fmt: skip
    Console().print("\n".join(prediction.lines(others)), markup=False, highlight=False)
    if prediction.settings:
        outputs = "" if config.outputs == "outputs" else f" outputs={config.outputs}"
        say(f"Train it: maquette train prediction={prediction.id}{outputs}; then: maquette verify{outputs}")
    return prediction


def _check(config: PredictStage) -> None:
    if config.compute is None and (config.size is None or config.tokens is None):
        raise ConfigError(
            "What is to be predicted?", "Give compute=1e14, or size=3m and tokens=60m (or size=3m and compute=1e14)."
        )
    if config.compute is not None and config.tokens is not None:
        raise ConfigError("tokens and compute are both given.", "Each sets the token budget: leave one of them out.")


def _own_run(config: PredictStage, fit: SweepFit) -> tuple[Allocation, float, list[str], dict[str, str]]:
    """A further member of the family that the fit rests on: N and D as the recipe has them, FLOPs as the fit counts."""
    family = family_settings([Path(str(folder)) for folder in fit.table.frame["folder"]], config.outputs)
    for note in family.notes:
        say(note)
    size = config.size
    if size is None:
        if fit.table.convention != "exact":
            raise ConfigError(
                "A fit in Kaplan's convention knows the best core, not the best size.",
                "Give size= as well as compute=.",
            )
        size = str(round(fit.best(float(parse_quantity(str(config.compute), "compute"))).params))
    seed = [] if config.seed is None else [f"seed={config.seed}"]
    base = [*(text for text in family.overrides if not (seed and text.startswith("seed="))), *seed, f"size={size}"]
    amount = [f"tokens={config.tokens}"] if config.tokens is not None else [f"compute={config.compute}"]
    for _ in range(_ROUNDS):  # batch and steps follow the tokens: until both stay
        settings = [*base, *amount]
        train = _composed([*settings, f"outputs={config.outputs}"])
        recipe = resolve_recipe(train, family.data)
        if amount == [f"tokens={recipe.tokens}"]:
            break
        amount = [f"tokens={recipe.tokens}"]
    job = plan_job(train, recipe, family.data)
    record = read_record(job.folder)
    if record is not None and record.step > 0:
        raise StageError(
            f"The run {job.name} was begun at {record.started}: it is too late to predict it.",
            "Predict another one, for instance with seed=1.",
        )
    data = job.spec.digests
    for name, digest in data.items():
        digests = set(fit.table.frame.get(f"tags.digest.{name}", ()))
        if digests and digests != {digest}:
            raise StageError(
                f"The {name} on this machine are not those of the fit's runs.", "Make them from the same source."
            )
    exact = fit.table.convention == "exact"
    params = recipe.size if exact else recipe.parameters.core
    compute = recipe.compute if exact else recipe.kaplan_compute
    return Allocation(float(params), float(recipe.tokens)), float(compute), settings, data


def _composed(overrides: list[str]) -> TrainStage:
    settings = compose(STAGES["train"], overrides)
    assert isinstance(settings, TrainStage)
    return settings


def _other_run(config: PredictStage, fit: SweepFit) -> tuple[Allocation, float]:
    """A run of another program: N and D as they are given, or the best for the compute."""
    params = None if config.size is None else float(parse_quantity(config.size, "size"))
    if config.tokens is not None:
        assert params is not None
        tokens = float(parse_quantity(config.tokens, "tokens"))
        return Allocation(params, tokens), fit.flops_per_product * params * tokens
    compute = float(parse_quantity(str(config.compute), "compute"))
    return fit.allocation(params, None, compute), compute
