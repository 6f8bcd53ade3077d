"""`maquette predict`: what a run that was never trained will reach, written down before it is."""

from pathlib import Path

from maquette.artifacts.progress import say
from maquette.cli.command_line.law_config import PredictStage
from maquette.cli.planning.family import plan_member
from maquette.scaling.fits.stored_fit import find_fit, load_fit
from maquette.scaling.predictions.commitment import register
from maquette.scaling.predictions.prediction import (
    WrittenPrediction,
    predict_run,
    record_prediction,
    show_prediction,
    write_prediction,
)


def run(config: PredictStage) -> WrittenPrediction:
    """Writes the prediction into `<outputs>/predictions/` and MLflow, and says how to train the run."""
    config.require_run()
    folder = find_fit(config.fit, config.outputs)
    fit, manifest = load_fit(folder)
    asked = {"size": config.size, "tokens": config.tokens, "compute": config.compute}
    spec = None if fit.table.folders is None else plan_member(fit, config.outputs, seed=config.seed, **asked)
    at, compute = fit.run_of(**asked) if spec is None else fit.counted(spec)
    result = predict_run(
        fit, folder.name, at, compute, fit_digest=manifest.digest, form=config.form, spec=spec
    )  # fmt: skip
    prediction = write_prediction(result, config.outputs)
    record_prediction(prediction, config.outputs, config.tracking)
    if config.register is not None:
        register(prediction, Path(config.register))
        say(f"Commit {config.register} and push it before the run: verify will say which commit holds {prediction.id}")
    show_prediction(prediction, fit, as_json=config.json)
    if spec is not None and not config.json:
        outputs = "" if config.outputs == "outputs" else f" outputs={config.outputs}"
        say(f"Train it: maquette train prediction={prediction.id}{outputs}; then: maquette verify{outputs}")
    return prediction
