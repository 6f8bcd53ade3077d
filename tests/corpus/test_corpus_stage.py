import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import StageError
from maquette.artifacts.manifest import read_manifest, verify_files
from maquette.cli import corpus
from maquette.cli.command_line.config import CorpusStage
from maquette.corpus import report
from maquette.corpus.config import CorpusConfig, SourceConfig
from maquette.corpus.sources import installed

OPENINGS = ("The mouse ate", "A clock struck", "One river ran past", "Nobody opened")


def write(folder: Path, count: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"text": " ".join(f"{OPENINGS[i % 4]} {number * 100 + i}." for i in range(20)), "domain": "ab"[number % 2]}
        for number in range(count)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def settings(tmp_path: Path, **changes: Any) -> CorpusStage:
    source = SourceConfig(kind="jsonl", path=str(tmp_path / "text"))
    return CorpusStage(outputs=str(tmp_path / "outputs"), source=source, corpus=CorpusConfig(workers=1), **changes)


def test_a_corpus_is_made_once_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "text")
    folder = corpus.run(settings(tmp_path))
    assert "corpus: a, b; 0.0 MB to train on" in capsys.readouterr().err
    manifest = verify_files(folder)
    assert folder.parent == tmp_path / "outputs" / "artifacts" / "corpus"
    assert folder.name.startswith("jsonl-text-")
    assert set(manifest.files) == {
        "train.parquet", "validation.parquet", "test.parquet",
        "report.json", "report.md", "data_card.md", "figures/corpus.png", "figures/corpus.svg",
    }  # fmt: skip
    assert manifest.facts["domains"]["a"]["train"]["documents"] == 4
    assert manifest.facts["repetition"]["after"] == {
        domain: {"train": 0.0, "validation": 0.0, "test": 0.0} for domain in "ab"
    }
    assert json.loads((folder / "report.json").read_text())["domains"] == manifest.facts["domains"]
    written = (folder / "report.md").read_text()
    assert "| a | 4 |" in written and "Source: jsonl; files: " in written
    assert corpus.run(settings(tmp_path)) == folder
    assert "up to date" in capsys.readouterr().err


def test_workers_and_place_do_not_matter_but_text_does(tmp_path: Path) -> None:
    write(tmp_path / "text")
    first = corpus.run(settings(tmp_path))
    several = settings(tmp_path)
    several.corpus.workers = 2
    assert corpus.run(several) == first
    moved = settings(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "text", tmp_path / "elsewhere" / "text")
    other = corpus.run(moved)
    assert (other.name, read_manifest(other).digest) == (first.name, read_manifest(first).digest)
    write(tmp_path / "text", 13)
    assert corpus.run(settings(tmp_path)) != first


def test_the_installed_source_is_frozen_until_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Few(installed.Installed):
        packages: tuple[str, ...] = ("PyYAML",)

        def __init__(self, config: SourceConfig) -> None:
            super().__init__(config, self.packages, standard_library=False)

    monkeypatch.setattr(installed, "Installed", Few)
    monkeypatch.setattr(report, "save_figure", lambda *_: None)
    config = settings(tmp_path)
    config.source = SourceConfig()
    folder = corpus.run(config)
    before = read_manifest(folder)
    assert before.facts["source"]["packages"].keys() == {"pyyaml"}
    assert before.inputs == {}
    monkeypatch.setattr(Few, "packages", ("PyYAML", "tqdm"))
    capsys.readouterr()
    assert corpus.run(config) == folder
    assert "tqdm not read, now" in capsys.readouterr().err
    assert read_manifest(folder) == before
    config.force = True
    assert corpus.run(config) == folder
    assert read_manifest(folder).facts["read_digest"] != before.facts["read_digest"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "text", 3)
    with (tmp_path / "text" / "rows.jsonl").open("a") as file:
        file.write("no json\n")
    with pytest.raises(StageError, match=r"rows\.jsonl, line 4"):
        corpus.run(settings(tmp_path))
    left = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
