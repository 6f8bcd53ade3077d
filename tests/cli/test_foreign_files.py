"""Predictions, runs, fits, recipes and models that somebody else wrote: what they may not ask for is named."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import write_json
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.family import settings_of_folder
from maquette.cli.planning.predicted import predicted
from maquette.model import hf
from maquette.recipe.recipe_file import load_recipe
from maquette.scaling.predictions.prediction import FOLDER, WrittenPrediction, write_prediction
from maquette.training.record import begin_record
from support.small_specs import make_spec, train_settings


def _predicted(outputs: Path, changes: dict[str, Any]) -> str:
    """The id of a prediction with a right digest, whose settings somebody has changed."""
    spec = make_spec(train_settings(data={"sequence_length": 128}, seed=5)).to_json()
    spec["settings"] |= changes
    draft = WrittenPrediction(
        created="", params=3e5, tokens=4e6, compute=1e13, convention="exact", loss=2.5, interval50=(2.4, 2.6),
        interval90=(2.3, 2.7), form="kaplan", reach=10.0, slope=-0.05, fit="one", fit_digest="f" * 64, spec=spec,
        before=None, runs=[],
    )  # fmt: skip
    return write_prediction(draft, outputs).id


def test_a_prediction_carries_settings_of_pretraining_only(tmp_path: Path) -> None:
    settings = compose(
        STAGES["train"], [f"outputs={tmp_path}", "logger=none", f"prediction={_predicted(tmp_path, {})}"]
    )
    assert isinstance(settings, TrainStage) and settings.seed == 5
    ppo = dataclasses.asdict(compose(STAGES["train"], ["objective=ppo"]))["objective"]
    for changes, message in (
        ({"reward": {"kind": "callable", "callable": "os:system"}}, "reward is not a setting of pretraining"),
        ({"objective": ppo}, "alone is predicted"),
        ({"secrets": "x"}, "secrets is not a setting of pretraining"),
        ({"size": "${oc.env:HOME}"}, r"size: \${oc.env:HOME} asks for a value"),
        ({"optimizer": {"_target_": "os.system", "command": "x"}}, r"optimizer\._target_: os\.system"),
        ({"data": {"_target_": "subprocess.Popen", "args": "x"}}, r"data\._target_: subprocess\.Popen"),
        ({"callbacks": {"x": {"_target_": "os.system"}}}, r"callbacks\.x\._target_: os\.system"),
    ):
        name = _predicted(tmp_path, changes)
        with pytest.raises(StageError, match=message) as caught:
            predicted(dataclasses.replace(settings, prediction=name), settings, ())
        assert str(tmp_path / FOLDER / f"{name}.json") in caught.value.message


@pytest.mark.parametrize(
    "sections", [{"source": {"path": "${oc.env:HOME}"}}, {"optimizer": {"_target_": "shutil.rmtree", "path": "/"}}]
)
def test_a_run_of_somebody_else(sections: dict[str, Any], tmp_path: Path) -> None:
    spec = make_spec(train_settings(data={"sequence_length": 128}))
    spec.settings.update(sections)
    begin_record(spec, tmp_path).save()
    with pytest.raises(StageError, match=rf"{tmp_path}/run\.json, (source|optimizer)\."):
        settings_of_folder(tmp_path, str(tmp_path))


def test_a_recipe_looks_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text("source: ${oc.env:HOME}\n")
    with pytest.raises(StageError, match=r"theirs\.yaml, source: "):
        load_recipe(path)
    path.write_text("learning_rate: .nan\n")
    with pytest.raises(ConfigError, match="learning_rate=nan is not a number"):
        load_recipe(path)


def test_a_models_folder_names_no_foreign_code(tmp_path: Path) -> None:
    write_json(
        tmp_path / "config.json",
        {"architectures": ["MaquetteForCausalLM"], "maquette_format": 2, "kind": "custom", "vocab_size": 300,
         "size": 1000, "target": "subprocess.Popen", "settings": {"args": "touch x"}},
    )  # fmt: skip
    with pytest.raises(StageError, match=r"config\.json, code: subprocess\.Popen"):
        hf.load(tmp_path)


def test_ones_own_folder_of_settings_may_look_things_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SIZE", "20k")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nsize: ${oc.env:MY_SIZE}\n")
    settings = compose(STAGES["train"], ["+experiment=mine"], tmp_path)
    assert isinstance(settings, TrainStage) and settings.size == "20k"
    (tmp_path / "broken.yaml").write_text("a: [1\nb: {")
    with pytest.raises(ConfigError, match=r"broken\.yaml is damaged"):
        compose(STAGES["train"], [], tmp_path)
    (tmp_path / "broken.yaml").write_text("a: " + "[" * 3_000)
    with pytest.raises(ConfigError, match=r"broken\.yaml is nested too deeply"):
        compose(STAGES["train"], [], tmp_path)
