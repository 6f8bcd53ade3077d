"""The curves on disk: one line a step, also after a crash."""

import json
from pathlib import Path

from maquette.training.history import History, read_history


def test_parts_of_a_step_become_one_line(tmp_path: Path) -> None:
    history = History(tmp_path / "metrics.jsonl")
    history.note(5, {"train/loss": 3.0})
    history.note(10, {"train/loss": 2.0})
    history.note(10, {"validation/loss": 2.5})
    history.close()
    assert read_history(tmp_path / "metrics.jsonl") == [
        {"step": 5, "train/loss": 3.0},
        {"step": 10, "train/loss": 2.0, "validation/loss": 2.5},
    ]


def test_what_came_after_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in (5, 10, 15)) + '{"step": 2'
    )
    history = History(path, last_step=10)
    history.note(15, {"train/loss": 7.0})
    history.close()
    assert [(row["step"], row["train/loss"]) for row in read_history(path)] == [(5, 1.0), (10, 1.0), (15, 7.0)]


def test_flushed_lines_are_on_disk(tmp_path: Path) -> None:
    history = History(tmp_path / "metrics.jsonl")
    history.note(5, {"train/loss": 3.0})
    history.flush()
    assert len(read_history(tmp_path / "metrics.jsonl")) == 1
    history.close()


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.jsonl") == []
