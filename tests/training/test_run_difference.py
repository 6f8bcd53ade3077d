"""`maquette runs diff`: what two runs differ in, found by their names, at a terminal, as lines and as JSON."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from maquette.artifacts import ConfigError
from maquette.cli import runs
from maquette.cli.command_line.law_config import RunsStage
from maquette.recipe import resolve
from maquette.tracking import TrackingConfig
from maquette.training.record import RunRecord, begin_record
from maquette.training.run_difference import difference_table, differences, find_run
from support.small_specs import DIGESTS, make_spec, train_settings


def finished(outputs: Path, label: str, size: str, loss: float, **sections: object) -> RunRecord:
    recipe = resolve(size=size, tokens="4.3m", vocab_size=1024, sequence_length=128)
    digests = DIGESTS | {"tokens": str(len(label)) * 64}
    spec = make_spec(train_settings(**sections), recipe=recipe, label=label, digests=digests)
    record = begin_record(spec, outputs / "runs" / spec.name)
    record = dataclasses.replace(record, versions={"torch": label, "python": "3"}, git_commit=None)
    metrics = {"validation/code/loss": loss - 1, "x/y": 1.0}
    record = record.ended(finished=True, validation_loss=loss, seconds=90.0, metrics=metrics)
    record.save()
    return record


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    finished(outputs, "100k-4.3m", "100k", 3.5, data={"sequence_length": 128})
    finished(outputs, "300k-4.3m-b", "300k", 3.25, seed=7, data={"sequence_length": 128}, corpus={"min_bytes": 9})
    return outputs


def test_every_part_says_what_differs(outputs: Path) -> None:
    first, second = (find_run(name, outputs, TrackingConfig()) for name in ("100k", "300k-4.3m-b"))
    parts = differences(first, second)
    assert list(parts) == ["settings", "size", "result", "data", "code", "environment"]
    keys = list(parts["settings"])
    assert parts["settings"]["seed"] == (0, 7) and parts["settings"]["optimizer.lr"][0] > 0
    assert keys.index("optimizer.lr") < keys.index("seed") < keys.index("corpus.min_bytes")
    assert not {"outputs", "size", "logger", "data.sequence_length"} & set(keys)
    assert parts["size"]["N"] == (first.spec.size, second.spec.size)
    assert parts["result"]["validation/loss"] == (3.5, 3.25) and parts["result"]["x/y"] == (1.0, 1.0)
    assert list(parts["data"]) == ["tokens"] and parts["code"] == {} and list(parts["environment"]) == ["torch"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(difference_table(first, second))
    shown = console.export_text()
    assert "-0.2500" in shown and "1 min 30 s" in shown and "the same" in shown and "validation/code/loss" in shown
    assert "x/y" not in shown and "…" in shown  # of results the main ones, of a digest its beginning


def test_lines_and_json(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = runs.run(RunsStage(outputs=str(outputs), diff=["100k", "300k"]))
    head, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert head[0] == "part" and head[2].startswith("100k-4.3m-") and all(len(line) == 5 for line in lines)
    assert ["result", "validation/loss", "3.5", "3.25", "-0.2500"] in lines
    runs.run(RunsStage(outputs=str(outputs), diff=["100k", "300k"], json=True))
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["100k", "100k-4.3m"], "100k and 100k-4.3m are one run, 100k-4.3m-"),
        (["100k", ""], "may be 100k-4.3m-.*, 300k-4.3m-b-"),
    ],
)  # fmt: skip
def test_names_that_mean_nothing_or_several(outputs: Path, names: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        runs.run(RunsStage(outputs=str(outputs), diff=names))


def test_one_word_or_three_are_refused() -> None:
    for words in (["diff"], ["diff", "a"], ["a", "b", "c"]):
        with pytest.raises(ConfigError, match="compares two runs"):
            RunsStage(diff=words).validate()
    stage = RunsStage(diff=["diff", "a", "b"])
    stage.validate()
    assert stage.diff == ["a", "b"]
