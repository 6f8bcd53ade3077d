"""The curves on disk: one line a step, also after a crash."""

import json
from pathlib import Path

import pytest

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
    path.write_text(
        "".join(json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in (5, 10, 15)) + '{"step": 2'
    )
    metrics = MetricsFile(path, last_step=10)
    metrics.note(15, {"train/loss": 7.0})
    metrics.close()
    assert [(row["step"], row["train/loss"]) for row in read_history(path)] == [(5, 1.0), (10, 1.0), (15, 7.0)]


@pytest.mark.parametrize("was_logged", [False, True])
def test_the_checkpoints_own_step_stands_in_it_once(tmp_path: Path, was_logged: bool) -> None:
    """A run that goes on logs its checkpoint's step again if it can't know whether it was logged."""
    path = tmp_path / "metrics.jsonl"
    steps = (5, 10) if was_logged else (5,)
    path.write_text("".join(json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in steps))
    metrics = MetricsFile(path, last_step=10)
    metrics.log_metrics({"train/loss": 1.0}, step=10)
    metrics.log_metrics({"train/loss": 2.0}, step=15)
    metrics.close()
    assert [(row["step"], row["train/loss"]) for row in read_history(path)] == [(5, 1.0), (10, 1.0), (15, 2.0)]


def test_flushed_lines_are_on_disk(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.note(5, {"train/loss": 3.0})
    metrics.flush()
    assert len(read_history(tmp_path / "metrics.jsonl")) == 1
    metrics.close()


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.jsonl") == []
