"""Checkpoints on disk: atomic, sealed, pruned, and the newest good one found."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette.artifacts import StageError
from maquette.training import random_state
from maquette.training.checkpoints import AtomicCheckpointIO, CheckpointFolder


def write(folder: CheckpointFolder, step: int) -> None:
    AtomicCheckpointIO().save_checkpoint({"step": step, "weights": torch.arange(100)}, folder.path(step))
    folder.seal(step, {"tokens": 512 * step})


def test_the_newest_is_chosen_by_its_step(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    for step in (30, 200, 100):
        write(folder, step)
    found = folder.newest(print)
    assert found is not None
    assert found[0] == 200
    assert AtomicCheckpointIO().load_checkpoint(found[1])["step"] == 200


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (10, 20, 30, 40):
        write(folder, step)
    assert folder.steps() == [30, 40]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 10)
    write(folder, 20)
    data = bytearray(folder.path(20).read_bytes())
    data[len(data) // 2] ^= 1
    folder.path(20).write_bytes(data)
    said: list[str] = []
    found = folder.newest(said.append)
    assert found is not None and found[0] == 10
    assert len(said) == 1 and "step-00000020.ckpt is damaged" in said[0]
    write(folder, 15)
    assert folder.steps() == [10, 15]


def test_without_its_seal_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 10)
    AtomicCheckpointIO().save_checkpoint({"step": 20}, folder.path(20))
    assert folder.steps() == [10]
    write(folder, 30)
    assert not folder.path(20).exists()


def test_another_layout_is_refused_by_name(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 3)
    seal = tmp_path / "step-00000003.json"
    facts = json.loads(seal.read_text())
    seal.write_text(json.dumps({**facts, "format": facts["format"] - 1}))
    with pytest.raises(StageError, match=r"step-00000003.ckpt is laid out as format 1 .* force=true"):
        folder.newest(print)
    assert folder.steps() == [3]  # nothing is lost: the version that wrote it can go on


def test_nothing_there(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").newest(print) is None


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]

    draw()
    path = tmp_path / "state.ckpt"
    AtomicCheckpointIO().save_checkpoint({"random": random_state.capture()}, path)
    expected = draw()
    draw()
    random_state.restore(AtomicCheckpointIO().load_checkpoint(path)["random"])
    assert draw() == expected
