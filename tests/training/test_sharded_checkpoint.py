"""Checkpoints in shards: copied before training goes on, sealed at the end, read by any number of processes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from maquette.artifacts import StageError
from maquette.training import sharded_checkpoint
from maquette.training.checkpoint_io import AtomicCheckpointIO, CheckpointFolder, read_state, seal
from maquette.training.processes import launch
from maquette.training.sharded_checkpoint import Save
from support.sharded_work import train, train_a_little, train_and_die


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    """Of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.new_group(backend="gloo")
    dist.destroy_process_group()


def sharded(step: int) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (1,))
    weight = distribute_tensor(torch.full((4, 3), float(step)), mesh, [Shard(0)])
    moments = {0: {"step": torch.tensor(float(step)), "exp_avg": weight + 1}}
    return {
        "global_step": step, "state_dict": {"model.weight": weight, "model.count": torch.tensor(step)},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 0.1, "params": [0]}]}], "loops": {"at": step},
    }  # fmt: skip


def save(checkpoint: dict[str, Any], folder: CheckpointFolder, group: Any) -> Save:
    step = checkpoint["global_step"]
    return Save(checkpoint, folder.path(step), lambda path, files: seal(path, step, files), group)


def test_copied_then_written_whole(tmp_path: Path, group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes while it is written is not in it; until it is sealed the one before it counts."""
    folder, goes_on = CheckpointFolder(tmp_path), threading.Event()
    save(sharded(1), folder, group).wait()
    write = sharded_checkpoint.write_tensors
    monkeypatch.setattr(sharded_checkpoint, "write_tensors", lambda *given: (goes_on.wait(30), write(*given))[1])
    checkpoint = sharded(2)
    pending = save(checkpoint, folder, group)
    for value in (checkpoint["state_dict"]["model.weight"], checkpoint["optimizer_states"][0]["state"][0]["step"]):
        value.zero_()
    assert not pending.is_done and folder.steps() == [1]
    goes_on.set()
    pending.wait()
    assert folder.newest(print) == (2, folder.path(2))
    read = AtomicCheckpointIO().load_checkpoint(folder.path(2))
    state = read["optimizer_states"][0]["state"][0]
    assert torch.equal(read["state_dict"]["model.weight"], torch.full((4, 3), 2.0))
    assert torch.equal(state["exp_avg"], torch.full((4, 3), 3.0)) and state["step"] == 2
    assert read["loops"] == {"at": 2} and read["optimizer_states"][0]["param_groups"] == [{"lr": 0.1, "params": [0]}]
    assert read_state(folder.path(2))["model.count"] == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_damage_is_named(tmp_path: Path, group: Any) -> None:
    folder, messages = CheckpointFolder(tmp_path), list[str]()
    for step in (1, 2, 3):
        save(sharded(step), folder, group).wait()
    shard, rest = folder.path(3) / "shard-00001.safetensors", folder.path(2) / "rest.pt"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    rest.unlink()
    assert folder.newest(messages.append) == (1, folder.path(1))
    assert str(shard) in messages[0] and str(rest) in messages[1]
    folder.prune()
    assert [path.name for path in sorted(tmp_path.glob("step*.ckpt"))] == ["step-00000001.ckpt"]


def test_a_full_disk_leaves_the_older_one(tmp_path: Path, group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> str:
        raise OSError(28, "No space left on device")

    folder = CheckpointFolder(tmp_path)
    save(sharded(1), folder, group).wait()
    monkeypatch.setattr(sharded_checkpoint, "write_tensors", fail)
    with pytest.raises(StageError, match=r"step-00000002\.ckpt"):
        save(sharded(2), folder, group).wait()
    assert folder.newest(print) == (1, folder.path(1))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="eight processes that train")
def test_killed_in_mid_save_and_resharded(tmp_path: Path) -> None:
    """Two processes die with half a checkpoint; four read the one before it, one resumes from it, two from that."""
    alone = train(str(tmp_path / "alone"))
    folder = CheckpointFolder(tmp_path / "shared")
    with pytest.raises(StageError, match="ended without a word"):
        launch(train_and_die, str(folder.folder), 2)
    assert folder.steps() == [4] and folder.path(4).is_dir()
    four = launch(train_a_little, str(folder.folder), 4)
    one = train(str(folder.folder), until=6)
    assert folder.steps() == [4, 6] and folder.path(6).is_file()
    assert not [path for path in folder.folder.iterdir() if path.name.startswith(".")]  # the half one
    two = launch(train, str(folder.folder), 2)
    for curve, part in ((four, alone[4:5]), (one, alone[4:6]), (two, alone[6:])):
        assert torch.allclose(torch.tensor(curve), torch.tensor(part), atol=2e-5)
