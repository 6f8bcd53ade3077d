"""`maquette report`: every page is found by what it says of itself, and runs and sweeps get pages of their own."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from maquette.artifacts.reading import write_sealed
from maquette.cli import report, train
from maquette.cli.command_line.config import ReportStage
from maquette.reports import render
from maquette.reports.overview import find_pages
from support.small_runs import settings, write_documents


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them unfinished, and a sweep that they were the jobs of."""
    root = tmp_path_factory.mktemp("report")
    (root / "texts").mkdir()
    write_documents(root / "texts")
    first = train.run(settings(root / "outputs", root / "texts"))
    folder = Path(first.folder).with_name("other")
    shutil.copytree(first.folder, folder)
    spec = dataclasses.replace(first.spec, name="other")
    second = dataclasses.replace(first, spec=spec, folder=str(folder), status="interrupted", step=7)
    second.save()
    jobs = root / "outputs" / "sweeps" / "two-1234" / "jobs"
    for number, record in enumerate((first, second)):
        write_sealed(jobs / f"{number:04d}.json", {
            "job": [f"seed={number}"], "status": "finished", "result": f"elsewhere/runs/{record.name}",
            "validation_loss": record.validation_loss, "seconds": 1.5,
        })  # fmt: skip
    return root / "outputs"


@pytest.mark.slow(reason="makes a page of every kind")
def test_every_page_is_listed_with_what_it_says(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {page.path: page for page in report.run(ReportStage(outputs=str(outputs)))}
    kinds = {page.kind: page for page in pages.values()}
    assert kinds.keys() == {"runs", "sweep", "corpus", "tokenizer"}
    assert kinds["runs"].path == "runs/index.html" and kinds["sweep"].path == "sweeps/two-1234/index.html"
    assert kinds["runs"].summary.startswith("2 runs, 1 not finished; lowest held-out loss")
    assert kinds["tokenizer"].summary.startswith("1.00 bytes a token") and "2 domains" in kinds["corpus"].summary
    index = (outputs / "index.html").read_text()
    for path, page in pages.items():
        assert f'href="{path}"' in index and page.summary in index and (outputs / path).exists()
    assert index.index("Text</h2>") < index.index("Training</h2>")
    sweep = (outputs / "sweeps" / "two-1234" / "index.html").read_text()
    assert "seed=0" in sweep and "seed=1" in sweep and "<svg" in sweep
    assert ">35%</td>" in sweep  # of the one that was interrupted
    assert (outputs / "index.html").as_uri() in capsys.readouterr().err

    before = {path: (outputs / path).stat().st_mtime_ns for path in pages}
    again = report.run(ReportStage(outputs=str(outputs), json=True))
    assert {page.path: (outputs / page.path).stat().st_mtime_ns for page in again} == before, "nothing has changed"
    assert [one["path"] for one in json.loads(capsys.readouterr().out)] == [page.path for page in again]


def test_others_pages_copies_and_old_ones(tmp_path: Path) -> None:
    def page(path: str, text: str, age: int) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        os.utime(tmp_path / path, (1e9 - age, 1e9 - age))

    shown = {"folder": "x", "pages": 1, "sections": {}, "figures": {}}
    own = render("overview.html.j2", shown).replace(">What is in x<", ">A &lt;b&gt; page<")
    page("a/old.html", own, 10)
    page("b/new.html", own.replace('content="report"', 'content="a kind of its own"'), 0)
    page("mlartifacts/1/index.html", own, 0)
    page(".hidden/index.html", own, 0)
    page("theirs.html", "<title>not ours</title>", 0)
    page("index.html", own, 0)
    listed = find_pages(tmp_path)
    assert [(one.path, one.section) for one in listed] == [("b/new.html", "Others"), ("a/old.html", "Others")]
    assert listed[0].title == "A <b> page" and listed[0].kind == "a kind of its own"


def test_an_empty_folder_says_what_to_run_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.run(ReportStage(outputs=str(tmp_path / "none"))) == []
    assert "maquette demo" in capsys.readouterr().err and not (tmp_path / "none").exists()
    report.run(ReportStage(outputs=str(tmp_path / "none"), json=True))
    assert json.loads(capsys.readouterr().out) == []
