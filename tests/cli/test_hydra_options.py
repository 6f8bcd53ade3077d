"""Hydra's own options and files of a user's behind the dispatcher, as Hydra documents them."""

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.registry import STAGES


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(type(STAGES["train"]), "run", lambda self, settings: seen.append(settings))
    return seen


def test_cfg_resolve_and_package(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert call("train", "--cfg", "job", "--resolve", "seed=7") == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert shown.seed == 7 and shown.prompts.seed == 7
    assert call("train", "--cfg", "job", "--package", "optimizer", "optimizer=muon") == 0
    assert "Muon" in OmegaConf.create(capsys.readouterr().out)._target_
    assert call("train", "--cfg", "hydra") == 0
    assert OmegaConf.create(capsys.readouterr().out).hydra.job.name == "train"
    assert list(here.iterdir()) == []


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "--info", "defaults") == 0
    assert "schema/train" in capsys.readouterr().out


def test_options_may_stand_anywhere(recorded: list[Any], here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nsize: 7k\n")
    assert call("train", "seed=3", "--config-dir", "conf", "+experiment=mine") == 0
    assert recorded[-1].size == "7k" and recorded[-1].seed == 3


def test_an_experiment_without_plus_is_told_how(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nsize: 7k\n")
    assert call("train", "experiment=mine", "--config-dir=conf") == 2
    assert "+experiment=mine" in capsys.readouterr().err


def test_an_experiment_of_another_stage_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "+experiment=alignment") == 2
    assert "maquette alignment" in capsys.readouterr().err


def test_a_package_on_the_search_path(recorded: list[Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "searched" / "conf" / "mixture").mkdir(parents=True)
    (here / "searched" / "__init__.py").touch()
    (here / "searched" / "conf" / "__init__.py").touch()
    (here / "searched" / "conf" / "mixture" / "books.yaml").write_text("weights: {books: 1.0}\n")
    (here / "more" / "mixture").mkdir(parents=True)
    (here / "more" / "mixture" / "plays.yaml").write_text("weights: {plays: 1.0}\n")
    monkeypatch.syspath_prepend(str(here))
    search = "hydra.searchpath=[pkg://searched.conf]"
    assert call("train", "mixture=books", search) == 0 and recorded[-1].mixture.weights == {"books": 1.0}
    assert call("train", "mixture=plays", search, "--config-dir=more") == 0
    assert recorded[-1].mixture.weights == {"plays": 1.0}


def test_a_primary_config_of_ones_own(recorded: list[Any], here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "mine.yaml").write_text("defaults: [train, _self_]\nsize: 9k\n")
    assert call("train", "--config-dir=conf", "--config-name=mine") == 0
    assert recorded[-1].size == "9k"


def test_hydras_folder_holds_the_config_the_log_and_a_link(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "made").mkdir()
    monkeypatch.setattr(type(STAGES["train"]), "run", lambda self, settings: here / "made")
    assert call("train", "seed=5", "hydra.run.dir=there") == 0
    assert OmegaConf.load(here / "there" / ".hydra" / "config.yaml").seed == 5  # type: ignore[union-attr]
    assert (here / "there" / "train.log").exists() and (here / "there" / "result").resolve() == here / "made"
    assert call("train") == 0
    (folder,) = (here / "outputs" / "hydra" / "train").glob("*/*")
    assert os.path.samefile(folder / "result", here / "made")  # noqa: PTH121


def test_what_only_prints_leaves_no_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(type(STAGES["runs"]), "run", lambda self, settings: None)
    assert call("runs") == 0 and call("train", "--show", "seed=4") == 0
    assert OmegaConf.create(capsys.readouterr().out).seed == 4
    assert list(here.iterdir()) == []


def test_completion(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("-sc", "install=bash") == 0
    assert "hydra_bash_completion" in capsys.readouterr().out
    for line, expected in (("maquette tr", "train"), ("maquette train optimizer=", "optimizer=muon"),
                           ("maquette train tokenizer=b", "tokenizer=byte")):  # fmt: skip
        monkeypatch.setenv("COMP_LINE", line)
        assert call("-sc", "query=bash") == 0
        assert expected in capsys.readouterr().out.split()


def test_short_and_long_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "--help") == 0
    short = capsys.readouterr().out
    assert call("train", "--help-all") == 0
    long = capsys.readouterr().out
    assert len(short.splitlines()) < 80 < len(long.splitlines())
    assert "size=300k" in short and "--help-all" in short and "curation.gopher" not in short
