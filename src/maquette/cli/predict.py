"""`maquette predict`: what a run that was never trained will reach, written down before it is."""

import json
from pathlib import Path

from rich.console import Console

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.law_config import PredictStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.family import family_settings, plan_member
from maquette.recipe.run_spec import RunSpec
from maquette.scaling.fits.stored_fit import find_fit, load_fit
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.surface import Allocation
from maquette.scaling.predictions.commitment import register
from maquette.scaling.predictions.prediction import (
    WrittenPrediction,
    check_data,
    predict_run,
    record_prediction,
    write_prediction,
)


def run(config: PredictStage) -> WrittenPrediction:
    """Writes the prediction into `<outputs>/predictions/` and MLflow, and says how to train the run."""
    if config.compute is None and (config.size is None or config.tokens is None):
        raise ConfigError(
            "What is to be predicted?", "Give compute=1e14, or size=3m and tokens=60m (or size=3m and compute=1e14)."
        )
    if config.compute is not None and config.tokens is not None:
        raise ConfigError("tokens and compute are both given.", "Each sets the token budget: leave one of them out.")
    folder = find_fit(config.fit, config.outputs)
    fit, manifest = load_fit(folder)
    spec = _own_run(config, fit) if fit.table.folders is not None else None
    at, compute = _other_run(config, fit) if spec is None else fit.counted(spec)
    result = predict_run(
        fit, folder.name, at, compute, fit_digest=manifest.digest, form=config.form, spec=spec
    )  # fmt: skip
    prediction = write_prediction(result, config.outputs)
    record_prediction(prediction, config.outputs, config.tracking)
    if config.register is not None:
        register(prediction, Path(config.register))
        say(f"Commit {config.register} and push it before the run: verify will say which commit holds {prediction.id}")
    if config.json:
        print(json.dumps({**prediction.content(), "id": prediction.id, "digest": prediction.digest}, indent=2))
        return prediction
    others = [name for name in fit.forms if name != prediction.form]
    losses = {name: fit.predict(*at, compute=compute, form=name).loss for name in others}
    Console().print("\n".join(prediction.lines(losses)), markup=False, highlight=False)
    if spec is not None:
        outputs = "" if config.outputs == "outputs" else f" outputs={config.outputs}"
        say(f"Train it: maquette train prediction={prediction.id}{outputs}; then: maquette verify{outputs}")
    return prediction


def _own_run(config: PredictStage, fit: SweepFit) -> RunSpec:
    """A further member of the family that the fit rests on."""
    assert fit.table.folders is not None
    family = family_settings(fit.table.folders, config.outputs)
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
    here = compose(STAGES["train"], [f"outputs={config.outputs}"])
    assert isinstance(here, TrainStage)
    spec = plan_member(family, here, size=size, tokens=config.tokens, compute=config.compute, seed=config.seed)
    check_data(spec, fit.table)
    return spec


def _other_run(config: PredictStage, fit: SweepFit) -> tuple[Allocation, float]:
    """A run of another program: N and D as they are given, or the best for the compute."""
    params = None if config.size is None else float(parse_quantity(config.size, "size"))
    if config.tokens is not None:
        assert params is not None
        tokens = float(parse_quantity(config.tokens, "tokens"))
        return Allocation(params, tokens), fit.flops_per_product * params * tokens
    compute = float(parse_quantity(str(config.compute), "compute"))
    return fit.allocation(params, None, compute), compute
