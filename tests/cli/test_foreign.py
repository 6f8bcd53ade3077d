"""Groups that take strangers' classes, on a toy stage: ours are typed, others are tables checked by their signature."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting, walk
from maquette.cli.command_line import application, composition
from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import StageConfig
from maquette.cli.command_line.registry import STAGES, Stage


@dataclass
class AdamSettings:
    _target_: str = "toy.Adam"
    lr: float | None = setting(None, "learning rate", minimum=0.0)
    eps: float = setting(1e-8, "added to the denominator")


@dataclass
class ProgressSettings:
    _target_: str = "toy.Progress"
    every: int = setting(1, "steps between two lines", minimum=1)


@dataclass
class ToyStage(StageConfig):
    size: str = setting("10k", "parameters", quantity=True)
    optimizer: Any = setting(AdamSettings, "optimiser", variants={"adam": AdamSettings})
    callbacks: Any = setting(dict, "callbacks by name", items={"progress": ProgressSettings})


STAGE = Stage("toy", "a toy", ToyStage, "toy")


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "conf/toy.yaml": "defaults: [/schema/toy, optimizer: adam, callbacks: default, _self_]\n",
        "conf/optimizer/adam.yaml": "defaults: [adam_schema, _self_]\n_target_: toy.Adam\nlr: 0.1\n",
        "conf/optimizer/other.yaml": "_target_: theirs.Slow\n_partial_: true\nmomentum: 0.5\n",
        "conf/optimizer/bare.yaml": "momentum: 0.5\n",
        "conf/callbacks/default.yaml": "defaults: [progress_schema@progress, _self_]\nprogress: {every: 5}\n",
        "theirs.py": "class Slow:\n    def __init__(self, params, lr=1.0, momentum=0.0): ...\n"
        "class Stop:\n    def __init__(self, monitor, *, patience=3): ...\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setitem(STAGES, "toy", STAGE)
    monkeypatch.setattr(composition, "config_folders", lambda own=None: [tmp_path / "conf"])
    monkeypatch.setattr(application, "config_folders", lambda own=None: [tmp_path / "conf"])
    composition.register_schema.cache_clear()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    # Launchers send the whole store to their workers, which know no toys.
    store = ConfigStore.instance()
    for group, names in (("schema", ("toy",)), ("optimizer", ("adam",)), ("callbacks", ("progress",))):
        for name in names:
            for ending in ("", "_schema", "_settings"):
                store.repo.get(group, {}).pop(f"{name}{ending}.yaml", None)
    composition.register_schema.cache_clear()
    sys.modules.pop("theirs", None)
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]


def composed(*overrides: str) -> Any:
    return compose(STAGE, overrides)


def test_ours_are_typed_and_checked() -> None:
    settings = composed("optimizer.eps=1e-6")
    assert settings.optimizer == AdamSettings(lr=0.1, eps=1e-6)
    assert settings.callbacks == {"progress": ProgressSettings(every=5)}
    for wrong, message in (("optimizer.epss=1", "optimizer.eps"), ("optimizer.lr=-1", "at least 0"),
                        ("callbacks.progress.every=0", "at least 1"), ("optimizer.lr=fast", "a number"),
                        ("callbacks.progress.evry=2", "callbacks.progress.every")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            composed(wrong)


def test_keys_of_all_kinds_are_listed() -> None:
    keys = {one.key for one in walk(ToyStage)}
    assert {"optimizer.lr", "callbacks.progress.every", "size"} <= keys


def test_a_strangers_class_is_a_plain_table() -> None:
    assert composed("optimizer=other", "optimizer.momentum=0.9").optimizer == {
        "_target_": "theirs.Slow", "_partial_": True, "momentum": 0.9,
    }  # fmt: skip
    assert composed("optimizer._target_=theirs.Slow").optimizer == {"_target_": "theirs.Slow", "lr": 0.1}
    stop = composed("+callbacks.stop._target_=theirs.Stop", "+callbacks.stop.patience=5").callbacks["stop"]
    assert stop == {"_target_": "theirs.Stop", "patience": 5}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer=other", "+optimizer.momentun=1"], "optimizer.momentum"),
        (["optimizer._target_=theirs.Slow", "optimizer.eps=1"], "optimizer.eps"),
        (["+callbacks.stop._target_=theirs.Stop", "+callbacks.stop.patiense=5"], "callbacks.stop.patience"),
        (["optimizer._target_=theirs.Slw"], "Slow"),
        (["optimizer._target_=nowhere.Slow"], "nowhere"),
        (["optimizer=bare"], "_target_"),
        (["+callback.stop.patience=5"], "callbacks"),
    ],
)
def test_wrong_arguments_are_told_before_anything_runs(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


def test_a_module_beside_the_config_folder_is_found(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "elsewhere"
    (package / "conf" / "optimizer").mkdir(parents=True)
    (package / "beside.py").write_text("class Quick:\n    def __init__(self, params, lr=1.0): ...\n")
    (package / "conf" / "optimizer" / "quick.yaml").write_text("_target_: beside.Quick\nlr: 2.0\n")
    seen: list[Any] = []
    monkeypatch.setattr(Stage, "run", lambda self, settings: seen.append(settings))
    (tmp_path / "conf" / "toy.yaml").write_text(
        "defaults: [/schema/toy, optimizer: adam, callbacks: default, _self_]\nhydra: {run: {dir: there}}\n"
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["toy", f"--config-dir={package / 'conf'}", "optimizer=quick"])
    assert not ended.value.code and seen[-1].optimizer == {"_target_": "beside.Quick", "lr": 2.0}
    assert compose(STAGE, ["optimizer=quick"], package / "conf").optimizer["lr"] == 2.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "advice"),
    [("optimizer.momentun=1", r"Did you mean 'optimizer\.momentum'"), ("optimizer.lr=1", r"write \+optimizer\.lr=")],
)
def test_arguments_of_a_users_class_are_known_without_a_plus(override: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(STAGE, ["optimizer=other", override])
    assert re.search(advice, str(caught.value))
