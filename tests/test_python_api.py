"""The stages as functions: the same composition as the command line's, again and again."""

from pathlib import Path
from typing import Any

import pytest

import maquette
from maquette import train
from maquette.artifacts import ConfigError
from maquette.cli import main
from maquette.cli.command_line import functions
from maquette.cli.command_line.registry import STAGES

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = [
    "source=jsonl", "corpus.near_duplicates=1.0", "corpus.validation=0.1", "corpus.test=0", "corpus.workers=1",
    "shards.workers=1", "tokenizer=byte", "shards.held_out_window=0", "logger=none", "size=5k", "tokens=2k",
]  # fmt: skip


def test_it_means_what_the_command_line_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    monkeypatch.setattr(type(STAGES["train"]), "run", lambda self, settings: seen.append(settings))
    (tmp_path / "conf" / "mixture").mkdir(parents=True)
    (tmp_path / "conf" / "mixture" / "mine.yaml").write_text("weights: {a: 1.0}\n")
    overrides = ["size=10k", "optimizer=muon", "mixture=mine", "corpus.name=007"]
    for _ in range(2):
        train(overrides=overrides, config_dir="conf")
    with pytest.raises(SystemExit):
        main(["train", *overrides, "--config-dir=conf"])
    assert seen[0] == seen[1] == seen[2] and seen[0].corpus.name == "007"


def test_mistakes_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        train(overrides=["optimizer.l_r=1"])
    with pytest.raises(AttributeError):
        maquette.trian  # noqa: B018


def test_every_stage_is_a_function() -> None:
    for name in STAGES:
        if name not in ("corpus", "import"):
            assert STAGES[name].help in getattr(maquette, name).__doc__
    assert "maquette corpus" in functions.corpus.__doc__ and "maquette import" in maquette.import_.__doc__


@pytest.mark.slow(reason="trains two models by way of the command line")
def test_a_sweep_gives_records_that_a_single_run_finds(tmp_path: Path) -> None:
    from support.small_runs import write_documents

    (tmp_path / "documents").mkdir()
    write_documents(tmp_path / "documents")
    overrides = [*SMALL, f"source.path={tmp_path / 'documents'}", f"outputs={tmp_path / 'outputs'}"]
    records = train(overrides=[*overrides, "seed=0,1"], multirun=True)
    assert [record.spec.seed for record in records] == [0, 1]
    assert train(overrides=[*overrides, "seed=1"]).spec.fingerprint == records[1].spec.fingerprint
