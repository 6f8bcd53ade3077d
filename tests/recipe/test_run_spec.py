"""One run, one value: it survives JSON, and its fingerprint covers what can change the weights and nothing else."""

import copy
import dataclasses
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import walk
from maquette.cli.command_line.config import TrainStage
from maquette.model.architecture import CustomConfig, LSTMConfig
from maquette.model.config import ModelConfig
from maquette.recipe import HyperparameterRules, resolve
from maquette.recipe.fingerprint import BY_RESULT, DEVICES, OBSERVERS, WATCHING_CALLBACKS, changes_training
from maquette.recipe.objectives import OBJECTIVES
from maquette.recipe.run_spec import RunSpec
from support.small_specs import DIGESTS, make_spec, train_settings


def print_of(**sections: Any) -> str:
    """The fingerprint of a pretraining run with some settings changed."""
    return make_spec(train_settings(**sections)).fingerprint


def with_value(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(settings)
    *groups, name = key.split(".")
    part = changed
    for group in groups:
        part = part.setdefault(group, {})
    part[name] = value
    return changed


@pytest.mark.parametrize("kind", ["transformer", "lstm", "custom", "mup"])
def test_json_there_and_back(kind: str) -> None:
    recipe = resolve(
        size="300k", tokens="1.7m", vocab_size=1024, sequence_length=128, learning_rate=0.1 + 0.2,
        model=ModelConfig(kind="lstm" if kind == "lstm" else "transformer"),
        rules=HyperparameterRules(kind="mup" if kind == "mup" else "standard"),
    )  # fmt: skip
    if kind == "custom":
        own = CustomConfig("json.JSONEncoder", vocab_size=1024, size=300_000, settings={"depth": 2, "of": [0.1, None]})
        recipe = dataclasses.replace(recipe, architecture=own)
    spec = dataclasses.replace(make_spec(recipe=recipe, checkpoint="outputs/runs/a"), prediction="9" * 64)
    text = json.dumps(spec.to_json())
    again = RunSpec.from_json(json.loads(text))
    assert again == spec and hash(again) == hash(spec) and len({again, spec}) == 1
    assert json.dumps(again.to_json()) == text
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert isinstance(again.architecture, LSTMConfig) == (kind == "lstm")
    assert (again.compute, again.size) == (recipe.compute, recipe.size)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_spec().name = "another"  # type: ignore[misc]


def test_the_settings_have_the_recipes_numbers() -> None:
    spec = make_spec()
    assert spec.settings["optimizer"]["lr"] == spec.learning_rate
    assert spec.settings["data"]["batch_size_tokens"] == spec.batch_size_tokens
    assert spec.settings["model"]["hidden_size"] == spec.architecture.hidden_size
    assert spec.settings["tokens"] == str(spec.tokens) and spec.settings["compute"] is None
    assert not spec.settings.keys() & {"force", "sweep", "suite", "protocol", "instructions", "reward"}
    assert json.loads(json.dumps(spec.settings)) == spec.settings


def changed(value: Any) -> Any:
    """Another value than `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, dict):
        return value | {"another": 1}
    return f"{value}x"


def is_under(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


FROM_THE_RECIPE = (
    "model.hidden_size", "model.num_hidden_layers", "model.num_attention_heads", "model.num_key_value_heads",
    "model.head_dim", "model.intermediate_size", "data.batch_size_tokens", "optimizer.lr", "optimizer.weight_decay",
    "scheduler.warmup",
)  # fmt: skip
"""Settings that stand in the recipe, which is the same in these tests."""

KEYS = sorted({setting.key for setting in walk(TrainStage())})


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_counts_but_those_on_a_list(key: str) -> None:
    settings = train_settings(data={"sequence_length": 128})
    value = settings
    for name in key.split("."):
        value = value[name]
    other = make_spec(with_value(settings, key, changed(value)))
    of_no_use = (*OBSERVERS, *DEVICES, *BY_RESULT, *OBJECTIVES["pretrain"].unused)
    from_the_recipe = is_under(key, FROM_THE_RECIPE) or key in ("model.kind", *shape_of_the_model())
    assert (other.fingerprint == make_spec(settings).fingerprint) == (is_under(key, of_no_use) or from_the_recipe)


def shape_of_the_model() -> list[str]:
    """Settings of the model that the recipe has in the architecture."""
    return [f"model.{field.name}" for field in dataclasses.fields(make_spec().architecture)]


@pytest.mark.parametrize(
    "key", ["seed", "compile", "num_validations", "trainer.max_steps", "trainer.limit_train_batches",
            "trainer.overfit_batches", "trainer.max_time", "trainer.gradient_clip_val", "trainer.fast_dev_run",
            "trainer.deterministic", "trainer.some_future_argument", "a_future_group.key"],
)  # fmt: skip
def test_what_changes_training_counts(key: str) -> None:
    assert make_spec(with_value(train_settings(), key, 7)).fingerprint != print_of()


@pytest.mark.parametrize("key", [*OBSERVERS, *DEVICES, *BY_RESULT])
def test_observers_devices_and_what_counts_by_its_result_do_not(key: str) -> None:
    settings = {key: value for key, value in train_settings().items() if key != "recipe"}
    assert make_spec(with_value(settings, key, "other")).fingerprint == make_spec(settings).fingerprint


def test_null_is_as_good_as_absent() -> None:
    assert print_of(trainer={"max_time": None}, a_future_group={}) == print_of()


def test_size_tokens_and_rules_count_by_the_recipe() -> None:
    base = make_spec()
    for changes in ({"size": "600k"}, {"tokens": "2m"}, {"learning_rate": 0.5}, {"batch_size_tokens": 1024}):
        arguments = {"size": "300k", "tokens": "4.3m", "vocab_size": 1024, "sequence_length": 128} | changes
        assert make_spec(recipe=resolve(**arguments)).fingerprint != base.fingerprint  # type: ignore[arg-type]
    wider = dataclasses.replace(base.parametrization, kind="mup")
    recipe = resolve(size="300k", tokens="4.3m", vocab_size=1024, sequence_length=128)
    assert make_spec(recipe=dataclasses.replace(recipe, parametrization=wider)).fingerprint != base.fingerprint


def test_data_and_initial_weights_count_by_their_digests() -> None:
    assert make_spec(digests=DIGESTS | {"tokens": "4" * 64}).fingerprint != make_spec().fingerprint
    assert make_spec(digests=DIGESTS | {"checkpoint": "4" * 64}).fingerprint != make_spec().fingerprint
    assert make_spec(tokenizer="elsewhere", checkpoint="moved").fingerprint == make_spec().fingerprint


# Callbacks and loggers, by `_target_`.

LIGHTNING = "lightning.pytorch.callbacks."


def test_a_logger_or_an_observing_callback_makes_no_other_run() -> None:
    logger = {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "here"}}
    assert print_of(logger=logger) == print_of()
    for name in WATCHING_CALLBACKS:
        assert print_of(callbacks={"one": {"_target_": LIGHTNING + name}}) == print_of()
    ours = {"_target_": "maquette.training.callbacks.Samples", "prompts": ["a"]}
    assert print_of(callbacks={"samples": ours, "absent": None}) == print_of()


def test_any_other_callback_does() -> None:
    stopping = {"_target_": LIGHTNING + "EarlyStopping", "monitor": "validation/loss"}
    one = print_of(callbacks={"stop": stopping})
    assert one != print_of()
    assert one == print_of(callbacks={"called": stopping, "rates": {"_target_": LIGHTNING + "LearningRateMonitor"}})
    assert one != print_of(callbacks={"stop": stopping | {"patience": 5}})
    timer = {"_target_": LIGHTNING + "Timer", "duration": "00:00:10:00"}
    assert print_of(callbacks={"timer": timer}) != print_of()


def test_plugins_that_share_the_work_do_not_count() -> None:
    cluster = {"_target_": "lightning.pytorch.plugins.environments.SLURMEnvironment"}
    precision = {"_target_": "lightning.pytorch.plugins.precision.BitsandbytesPrecision", "mode": "nf4"}
    assert print_of(trainer={"plugins": [cluster]}) == print_of(trainer={"plugins": None}) == print_of()
    assert print_of(trainer={"plugins": [cluster, precision]}) != print_of()


# A stranger's code.


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a user's in the current folder."""
    package = tmp_path / "stranger_of_specs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "objective.py").write_text("from stranger_of_specs import helper\nclass Objective:\n    weight = 1.0\n")
    (package / "helper.py").write_text("constant = 1\n")
    (package / "callback.py").write_text(
        "class Callback: ...\n"
        "class Watching(Callback):\n    changes_training = False\n"
        "class Plain(Callback): ...\n"
        "class Inherited(Watching): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield package
    for name in [name for name in sys.modules if name.startswith("stranger_of_specs")]:
        del sys.modules[name]


def test_an_edited_line_makes_another_run_and_is_said(stranger: Path) -> None:
    settings = train_settings(objective={"_target_": "stranger_of_specs.objective.Objective"})
    before = make_spec(settings)
    assert before.code.keys() == {
        "stranger_of_specs", "stranger_of_specs.objective", "stranger_of_specs.helper",
    }  # fmt: skip
    assert make_spec(settings) == before
    (stranger / "objective.py").write_text("from stranger_of_specs import helper\nclass Objective:\n    weight = 2.0\n")
    after = make_spec(settings)
    assert after.fingerprint != before.fingerprint
    assert after.differences(before) == ["stranger_of_specs.objective has changed"]
    (stranger / "helper.py").write_text("constant = 2\n")
    assert make_spec(settings).differences(after) == ["stranger_of_specs.helper has changed"]


def test_code_named_by_other_settings_counts_too(stranger: Path) -> None:
    reward = {"kind": "callable", "callable": "stranger_of_specs.helper:reward"}
    settings = train_settings(reward=reward)
    assert make_spec(settings, objective="ppo").code.keys() == {"stranger_of_specs.helper"}
    assert make_spec(settings).code == {}  # pretraining has no reward
    recipe = resolve(size="300k", tokens="4.3m", vocab_size=1024, sequence_length=128)
    architecture = dataclasses.replace(recipe.architecture, attention="stranger_of_specs.helper.attention")
    assert "stranger_of_specs.helper" in make_spec(recipe=dataclasses.replace(recipe, architecture=architecture)).code
    with pytest.raises(ConfigError, match="stranger_of_specs"):
        make_spec(train_settings(objective={"_target_": "stranger_of_specs.objectives.Objective"}))


def test_a_callback_says_itself_that_it_only_watches(stranger: Path) -> None:
    def changes(name: str) -> bool:
        return changes_training({"_target_": f"stranger_of_specs.callback.{name}"})

    assert not changes("Watching")
    assert changes("Plain")
    assert "stranger_of_specs.callback" not in sys.modules  # told from the source
    assert not changes("Inherited")
    callbacks = {"one": {"_target_": "stranger_of_specs.callback.Watching"}}
    assert make_spec(train_settings(callbacks=callbacks)).code == {}
    (stranger / "callback.py").write_text("class Watching:\n    changes_training = True\n")
    assert "stranger_of_specs.callback" in make_spec(train_settings(callbacks=callbacks)).code


def test_differences_are_named() -> None:
    base = make_spec()
    recipe = resolve(size="300k", tokens="4.3m", vocab_size=1024, sequence_length=128, learning_rate=0.5)
    assert make_spec(recipe=recipe).differences(base) == [f"optimizer.lr (0.5, was {base.learning_rate})"]
    assert make_spec(train_settings(seed=3)).differences(make_spec(train_settings())) == ["seed (3, was 0)"]
    assert make_spec(digests=DIGESTS | {"corpus": "4" * 64}).differences(base) == ["corpus (other data)"]
    assert base.differences(make_spec()) == []


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_means_nothing_to_an_objective_is_not_of_its_runs(objective: str) -> None:
    settings = train_settings()
    base = make_spec(settings, objective=objective)
    for key in OBJECTIVES[objective].unused:
        changed = with_value(settings, key, {"x": 1})
        assert make_spec(changed, objective=objective).settings == base.settings


def test_a_run_that_is_tried_out() -> None:
    assert make_spec(train_settings(trainer={"fast_dev_run": True})).is_trial
    assert not make_spec(train_settings(trainer={"fast_dev_run": False})).is_trial
    assert not make_spec().is_trial
