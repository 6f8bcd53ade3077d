"""`maquette train prediction=<id>`: exactly the run that was predicted, or none.

What the run is comes from the prediction's `RunSpec`; where and by what it is made (`LOCAL`) from the command line.
"""

import copy
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.reading import reading
from maquette.artifacts.settings import flatten
from maquette.artifacts.strangers import check_settings
from maquette.artifacts.targets import has_key, node_value, typed, with_values
from maquette.cli.command_line.config import TrainStage
from maquette.data.config import CustomDataConfig
from maquette.objectives.config import CustomObjectiveConfig, PretrainConfig
from maquette.optimization.config import OPTIMIZERS, SCHEDULERS
from maquette.recipe.run_spec import RunSpec
from maquette.scaling.predictions.prediction import FOLDER, LOCAL, WrittenPrediction, find_prediction, is_local

_PRETRAINING = frozenset(
    ("outputs", "seed", "size", "tokens", "compute", "tokens_per_parameter", "checkpoint", "prediction", "recipe",
     "objective", "model", "mixture", "data", "optimizer", "scheduler", "precision", "trainer", "callbacks", "logger",
     "num_validations", "threads", "compile", "activation_checkpointing", "tensor_parallel_size",
     "expert_parallel_size", "source", "corpus", "curation", "executor", "tokenizer", "pretokenized", "shards")
)  # fmt: skip
"""What a prediction says of its run; anything else in it was put there by somebody."""

_CUSTOM = {"data": CustomDataConfig, "objective": CustomObjectiveConfig}


def predicted(config: TrainStage, usual: TrainStage, given: Collection[str]) -> TrainStage:
    """The settings of the run that `config.prediction` is of. `usual`: the settings with nothing given; `given`: the
    keys and groups that were typed.

    Raises `ConfigError` where a setting contradicts the prediction, or the prediction is not of a run of this program.
    """
    prediction = find_prediction(config.prediction, config.outputs)
    file = Path(str(config.prediction))
    source = file if file.is_file() else Path(config.outputs) / FOLDER / f"{prediction.id}.json"
    spec = _spec_of(prediction, source)
    defaults = dataclasses.asdict(TrainStage())
    for key, value in spec.settings.items():
        if key not in _PRETRAINING and value != defaults.get(key):
            raise StageError(f"{source}: {key} is not a setting of pretraining, which alone is predicted.")
    objective = spec.settings.get("objective") or {}
    if "settings" not in objective and objective.get("_target_") != PretrainConfig._target_:
        raise StageError(f"{source}: objective is not pretraining, which alone is predicted.")
    planned = settings_of_run(spec, source)
    before, now, then = (flatten(dataclasses.asdict(one)) for one in (usual, config, planned))
    for key in now.keys() & then.keys():
        typed_here = key in given or key.partition(".")[0] in given or now[key] != before.get(key)
        if typed_here and now[key] not in (None, then[key]) and not is_local(key):
            raise ConfigError(
                f"{key}={now[key]} contradicts the prediction {prediction.id}, which says {then[key]}.",
                "Leave it out, or predict that run: maquette predict.",
            )
    return made_here(planned, config)


def predicted_here(prediction: WrittenPrediction, config: TrainStage) -> TrainStage:
    """The settings of the predicted run, made where and by what `config` says."""
    source = Path(config.outputs) / FOLDER / f"{prediction.id}.json"
    planned = made_here(settings_of_run(_spec_of(prediction, source), source), config)
    return dataclasses.replace(planned, prediction=prediction.id)


def _spec_of(prediction: WrittenPrediction, source: Path) -> RunSpec:
    if prediction.spec is None:
        raise ConfigError(
            f"The prediction {prediction.id} rests on runs of another program: there is nothing to train by.",
            "Predict from a fit of your own sweep.",
        )
    with reading(source):
        return RunSpec.from_json(prediction.spec)


def made_here(planned: TrainStage, config: TrainStage) -> TrainStage:
    """The run that `planned` describes, made where and by what `config` says."""
    names = {field.name for field in dataclasses.fields(TrainStage)}
    for key in LOCAL:
        section, _, name = key.partition(".")
        if section not in names:
            continue
        node, here = getattr(planned, section), getattr(config, section)
        if not name:
            planned = dataclasses.replace(planned, **{section: here})
        elif has_key(node, name) and has_key(here, name):
            planned = dataclasses.replace(planned, **{section: with_values(node, **{name: node_value(here, name)})})
    return planned


def settings_of_run(spec: RunSpec, source: Path) -> TrainStage:
    """The settings of a run, with every number that its recipe chose.

    `source`: the file that they came with. Raises `ConfigError` where this version does not know one of them,
    `StageError` where one is looked up elsewhere or names code that a file may not name."""
    check_settings(spec.settings, source)
    values: dict[str, Any] = copy.deepcopy(spec.settings)
    nodes: dict[str, Any] = {
        name: typed(values.pop(name), classes.values())
        for name, classes in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS))
    }
    nodes |= {name: custom(**values.pop(name)) for name, custom in _CUSTOM.items() if "settings" in values[name]}
    try:
        config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainStage), values))
    except OmegaConfBaseException as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"The run {spec.name} has settings that this version does not know: {first}.") from None
    return dataclasses.replace(config, **nodes)
