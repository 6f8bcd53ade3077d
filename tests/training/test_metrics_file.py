"""The curves on disk: one line a step, also after a crash."""

import json
from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.artifacts.files import file_digest
from maquette.artifacts.run_file import FINISHED, write_run
from maquette.training.metrics_file import MetricsFile, read_history


def test_parts_of_a_step_become_one_line(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.note(5, {"train/loss": 3.0})
    metrics.note(10, {"train/loss": 2.0})
    metrics.note(10, {"validation/loss": 2.5})
    metrics.close()
    assert read_history(tmp_path / "metrics.jsonl") == [
        {"step": 5, "train/loss": 3.0},
        {"step": 10, "train/loss": 2.0, "validation/loss": 2.5},
    ]


def test_curves_of_a_run_that_ended_are_what_they_were(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5, "train/loss": 3.25}\n')
    write_run(tmp_path, {"status": FINISHED, "metrics_sha256": file_digest(path)})
    assert read_history(path)[0]["train/loss"] == 3.25
    path.write_text('{"step": 5, "train/loss": 2.25}\n')
    with pytest.raises(StageError, match=r"metrics\.jsonl is damaged"):
        read_history(path)


def test_what_is_logged_and_what_is_noted_stand_in_one_line(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.log_metrics({"validation/loss": 4.0}, step=0)
    metrics.log_metrics({"train/loss": 3.0}, step=5)
    metrics.log_metrics({"speed/mfu": 0.5}, step=5)
    metrics.note(5, {"samples": [{"prompt": "a", "text": "b"}]})
    metrics.log_hyperparams({"seed": 1})
    metrics.close()
    assert read_history(tmp_path / "metrics.jsonl") == [
        {"step": 0, "validation/loss": 4.0},
        {"step": 5, "train/loss": 3.0, "speed/mfu": 0.5, "samples": [{"prompt": "a", "text": "b"}]},
    ]


def test_what_came_after_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in (5, 10):
        metrics.note(step, {"train/loss": 1.0})
    metrics.flush()
    mark = metrics.mark()
    metrics.note(15, {"train/loss": 1.0})
    metrics.close()
    with path.open("a") as file:
        file.write('{"step": 2')  # killed while it wrote
    metrics = MetricsFile(path)
    metrics.cut(mark)
    metrics.note(15, {"train/loss": 7.0})
    metrics.flush()
    assert metrics.mark()["bytes"] == path.stat().st_size
    metrics.close()
    assert [(row["step"], row["train/loss"]) for row in read_history(path)] == [(5, 1.0), (10, 1.0), (15, 7.0)]


def test_lightnings_own_count_of_steps_makes_no_second_line(tmp_path: Path) -> None:
    """What a user logs at step 10 Lightning hands on as step 9, after ours."""
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in (5, 10):
        metrics.log_metrics({"train/loss": 1.0}, step=step)
        metrics.log_metrics({"theirs": 2.0, "epoch": 0}, step=step - 1)
        metrics.log_metrics({"validation/loss": 3.0}, step=step)
    metrics.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == read_history(path)
    assert [row["step"] for row in read_history(path)] == [4, 5, 9, 10]


def test_flushed_lines_are_on_disk(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.note(5, {"train/loss": 3.0})
    metrics.flush()
    assert len(read_history(tmp_path / "metrics.jsonl")) == 1
    metrics.close()


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.jsonl") == []


def test_a_damaged_line_is_named_and_a_changed_one_noticed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in range(1, 9):
        metrics.log_metrics({"train/loss": 5.0 - step / 10}, step)
    metrics.flush()
    mark, whole = metrics.mark(), path.read_text()
    metrics.close()
    path.write_text(whole.replace('{"step": 4', '{"step: 4'))
    with pytest.raises(StageError, match=r"metrics\.jsonl, line 4 is not JSON"):
        read_history(path)
    path.write_text(whole.replace("4.7", "4.6"))  # another number: only the checkpoint knows
    with pytest.raises(StageError, match="does not match the checksum"):
        MetricsFile(path).cut(mark)
    path.write_text(whole + '{"step": 9, "train')  # a killed process's half line
    assert len(read_history(path)) == 8
    MetricsFile(path).cut(mark)
    assert path.read_text() == whole
