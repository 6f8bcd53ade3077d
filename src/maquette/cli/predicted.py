"""`maquette train prediction=<id>`: exactly the run that was predicted, or none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import walk
from maquette.scaling.predictions.prediction import find_prediction


def expand(stage: Any, overrides: Sequence[str], config_folder: Path | None = None) -> list[str]:
    """The words of a `train` line with the prediction's settings put before them.

    Raises `ConfigError` where a word contradicts the prediction, or the prediction is not of a run of this program.
    """
    from maquette.cli.command_line.composition import compose_expanded
    from maquette.cli.command_line.overrides import parse_overrides
    from maquette.cli.family_settings import is_elsewhere

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
    defaults = {setting.key: setting.default for setting in walk(compose_expanded(stage, both, config_folder))}
    of_line = {setting.key: setting.default for setting in walk(typed)}
    for setting in walk(alone):
        # A group on the command line does not win over the prediction's own words: its kind must be the same.
        group = setting.key.partition(".")[0] if setting.key.endswith((".kind", "._target_")) else None
        new = of_line.get(setting.key) if group in given else defaults.get(setting.key)
        if new != setting.default and not is_elsewhere(setting.key):
            raise ConfigError(
                f"{setting.key}={new} contradicts the prediction {prediction.id}, which says {setting.default}.",
                "Leave it out, or predict that run: maquette predict.",
            )
    return both
