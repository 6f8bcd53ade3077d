"""Checkpoints on disk: atomic, sealed, pruned, and the newest good one found."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette.artifacts import StageError
from maquette.training import checkpoint_io
from maquette.training.checkpoint_io import FORMAT, AtomicCheckpointIO, CheckpointFolder


def write(folder: CheckpointFolder, step: int) -> None:
    """As training does: save, then remove what is no longer kept."""
    checkpoint = {"global_step": step, "weights": torch.arange(100)}
    AtomicCheckpointIO().save_checkpoint(checkpoint, folder.path(step))
    folder.prune()


def test_the_newest_is_chosen_by_its_step(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    for step in (30, 200, 100):
        write(folder, step)
    result = folder.newest(print)
    assert result is not None
    assert result[0] == 200
    assert AtomicCheckpointIO().load_checkpoint(result[1])["global_step"] == 200


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (10, 20, 30, 40):
        write(folder, step)
    assert folder.steps() == [30, 40]
    assert len(list(tmp_path.iterdir())) == 4


def test_those_that_others_go_on_from_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1, protected={10, 30})
    for step in (10, 20, 30, 40, 50):
        write(folder, step)
    assert folder.steps() == [10, 30, 50]


def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 10)
    write(folder, 20)
    data = bytearray(folder.path(20).read_bytes())
    data[len(data) // 2] ^= 1
    folder.path(20).write_bytes(data)
    messages: list[str] = []
    result = folder.newest(messages.append)
    assert result is not None and result[0] == 10
    assert len(messages) == 1 and "step-00000020.ckpt is damaged" in messages[0]
    write(folder, 15)
    assert folder.steps() == [10, 15]


def test_without_its_seal_a_checkpoint_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 10)

    def killed(path: Path, step: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_io, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            AtomicCheckpointIO().save_checkpoint({"global_step": 20}, folder.path(20))
    assert folder.path(20).exists()
    assert folder.steps() == [10]
    write(folder, 30)
    assert not folder.path(20).exists()


def test_a_seal_says_what_it_is_of(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 3)
    facts = json.loads((tmp_path / "step-00000003.json").read_text())
    assert (facts["format"], facts["step"]) == (FORMAT, 3) == (4, 3)
    assert facts["bytes"] == folder.path(3).stat().st_size


def test_any_checkpoint_is_written_and_removed_with_its_seal(tmp_path: Path) -> None:
    """Lightning's `ModelCheckpoint` has names of its own; they are none that a run resumes from."""
    best = tmp_path / "epoch=0-step=7.ckpt"
    AtomicCheckpointIO().save_checkpoint({"global_step": 7}, best)
    assert CheckpointFolder(tmp_path).steps() == []
    CheckpointFolder(tmp_path).prune()
    assert {path.name for path in tmp_path.iterdir()} == {best.name, "epoch=0-step=7.json"}
    AtomicCheckpointIO().remove_checkpoint(best)
    assert not list(tmp_path.iterdir())


def test_another_layout_is_refused_by_name(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 3)
    seal = tmp_path / "step-00000003.json"
    facts = json.loads(seal.read_text())
    seal.write_text(json.dumps({**facts, "format": facts["format"] - 1}))
    with pytest.raises(StageError, match=r"step-00000003.ckpt is laid out as format 3 .* force=true"):
        folder.newest(print)
    assert folder.steps() == [3]  # nothing is lost: the version that wrote it can go on


def test_nothing_there(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").newest(print) is None


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]

    draw()
    path = tmp_path / "state.ckpt"
    AtomicCheckpointIO().save_checkpoint({"random": checkpoint_io.capture_random_state()}, path)
    expected = draw()
    draw()
    checkpoint_io.restore_random_state(AtomicCheckpointIO().load_checkpoint(path)["random"])
    assert draw() == expected
