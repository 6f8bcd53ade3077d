"""`maquette predict`: what a run that was never trained will reach, written down before it is."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.reports import quantity
from maquette.scaling.fits.stored_fit import find_fit, load_fit
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.surface import Allocation
from maquette.scaling.predictions.prediction import FOLDER, WrittenPrediction, write_prediction
from maquette.stages import STAGES
from maquette.stages.composition import compose
from maquette.stages.config import TrainStage
from maquette.stages.family_settings import family_settings
from maquette.stages.law_config import PredictStage
from maquette.stages.planning import plan_job, resolve_recipe
from maquette.tracking import start_run
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
    told = {level: fit.predict(*at, compute=compute, form=config.form, level=level) for level in (0.5, 0.9)}
    prediction = write_prediction(
        WrittenPrediction(
            created="",
            params=at.params,
            tokens=at.tokens,
            compute=compute,
            convention=table.convention,
            loss=told[0.9].loss,
            interval50=(told[0.5].interval.low, told[0.5].interval.high),
            interval90=(told[0.9].interval.low, told[0.9].interval.high),
            form=form,
            reach=compute / fit.comparison.largest_budget,
            fit=folder.name,
            fit_digest=manifest.digest,
            runs=_runs(table),
            settings=settings,
            data=data,
            before=None,
        ),
        config.outputs,
    )
    _record(config, prediction)
    _tell(config, prediction, fit)
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
    found = read_record(job.folder)
    if found is not None and found.step > 0:
        raise StageError(
            f"The run {job.name} was begun at {found.started}: it is too late to predict it.",
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


def _composed(words: list[str]) -> TrainStage:
    settings = compose(STAGES["train"], words)
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
    if params is None:
        return fit.best(compute), compute
    return Allocation(params, compute / (fit.flops_per_product * params)), compute


def _runs(table: RunTable) -> list[dict[str, Any]]:
    fingerprints = table.frame.get("tags.fingerprint", [None] * len(table))
    return [
        {"name": name, "loss": float(loss), "fingerprint": fingerprint if isinstance(fingerprint, str) else None}
        for name, loss, fingerprint in zip(table.names, table.loss, fingerprints, strict=True)
    ]


def _record(config: PredictStage, prediction: WrittenPrediction) -> None:
    path = Path(config.outputs) / FOLDER / f"{prediction.id}.json"
    low, high = prediction.interval90
    with start_run(
        config.tracking, outputs=config.outputs, name=f"prediction-{prediction.id}", folder=path.parent,
        params={"fit": prediction.fit, "form": prediction.form, "settings": prediction.settings},
        tags={"kind": "prediction", "prediction.digest": prediction.digest, "digest.fit": prediction.fit_digest},
    ) as log:  # fmt: skip
        values = {
            "loss": prediction.loss, "low90": low, "high90": high, "low50": prediction.interval50[0],
            "high50": prediction.interval50[1], "N": prediction.params, "D": prediction.tokens, "C": prediction.compute,
            "reach": prediction.reach,
        }  # fmt: skip
        log.log_metrics({f"prediction/{name}": value for name, value in values.items()}, 0)
        log.log_artifact(path)


def _tell(config: PredictStage, prediction: WrittenPrediction, fit: SweepFit) -> None:
    if config.json:
        print(json.dumps({**prediction.content(), "id": prediction.id, "digest": prediction.digest}, indent=2))
        return
    low, high = prediction.interval90
    half_low, half_high = prediction.interval50
    lines = [
        f"prediction {prediction.id}, by the {prediction.form} form of {prediction.fit} ({len(prediction.runs)} runs)",
        f"  N {quantity(prediction.params)}, D {quantity(prediction.tokens)}, C {prediction.compute:.3g} FLOPs: "
        f"{prediction.reach:.3g} times the largest budget",
        f"  loss {prediction.loss:.4f} nats a token; 50%: {half_low:.4f} to {half_high:.4f}; "
        f"90%: {low:.4f} to {high:.4f}",
    ]
    for form in fit.comparison.fits:
        if form != prediction.form:
            other = fit.predict(prediction.params, prediction.tokens, compute=prediction.compute, form=form)
            lines.append(f"  the {form} form would say {other.loss:.4f}")
    Console().print("\n".join(lines), markup=False, highlight=False)
    if prediction.settings:
        outputs = "" if config.outputs == "outputs" else f" outputs={config.outputs}"
        say(f"Train it: maquette train prediction={prediction.id}{outputs}; then: maquette verify{outputs}")
