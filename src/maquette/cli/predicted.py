"""`maquette train prediction=<id>`: exactly the run that was predicted, or none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.settings import walk
from maquette.recipe.run_spec import RunSpec
from maquette.scaling.predictions.prediction import WrittenPrediction, find_prediction


def expand(stage: Any, overrides: Sequence[str], config_folder: Path | None = None) -> list[str]:
    """The words of a `train` line with the prediction's settings put before them.

    Raises `ConfigError` where a word contradicts the prediction, or the prediction is not of a run of this program.
    """
    from maquette.cli.composition import compose_expanded
    from maquette.cli.family_settings import is_elsewhere
    from maquette.cli.overrides import parse_overrides

    parsed = parse_overrides(overrides)
    given = {override.key_or_group: override for override in parsed}
    if "prediction" not in given or given["prediction"].value() is None:
        return list(overrides)
    outputs = str(given["outputs"].value()) if "outputs" in given else "outputs"
    prediction = find_prediction(str(given["prediction"].value()), outputs)
    if not prediction.settings:
        raise ConfigError(
            f"The prediction {prediction.id} rests on runs of another program: there is nothing to train by.",
            "Predict from a fit of your own sweep.",
        )
    rest = [text for text, override in zip(overrides, parsed, strict=True) if override.key_or_group != "prediction"]
    base = [*prediction.settings, f"prediction='{prediction.id}'"]
    alone, typed = compose_expanded(stage, base, config_folder), compose_expanded(stage, rest, config_folder)
    both = [*base, *rest]
    told = {setting.key: setting.default for setting in walk(compose_expanded(stage, both, config_folder))}
    of_line = {setting.key: setting.default for setting in walk(typed)}
    for setting in walk(alone):
        # A group on the command line does not win over the prediction's own words: its kind must be the same.
        group = setting.key.partition(".")[0] if setting.key.endswith((".kind", "._target_")) else None
        new = of_line.get(setting.key) if group in given else told.get(setting.key)
        if new != setting.default and not is_elsewhere(setting.key):
            raise ConfigError(
                f"{setting.key}={new} contradicts the prediction {prediction.id}, which says {setting.default}.",
                "Leave it out, or predict that run: maquette predict.",
            )
    return both


def check_predicted(name: str, outputs: str, spec: RunSpec) -> WrittenPrediction:
    """The prediction that a planned run is for. Raises `ConfigError` where the run is another one, `StageError` where
    its data are."""
    prediction = find_prediction(name, outputs)
    core = prediction.convention == "kaplan"
    counts = (
        ("parameters", prediction.params, spec.parameters.core if core else spec.size),
        ("tokens", prediction.tokens, spec.tokens),
    )
    for what, expected, planned in counts:
        if planned != round(expected):
            raise ConfigError(
                f"The prediction {prediction.id} is of {expected:,.0f} {what}, this run has {planned:,}.",
                f"Train it with maquette train prediction={prediction.id}.",
            )
    for what, digest in prediction.data.items():
        if spec.digests.get(what) != digest:
            raise StageError(
                f"The {what} are not those that the prediction {prediction.id} rests on.",
                "Make them again from the same source, or predict anew.",
            )
    return prediction
