"""A run that is killed again and again ends with the same bits as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.training import read_record

PROGRAM = Path(__file__).parents[1] / "support" / "one_run.py"
STEPS = 300


def start(outputs: Path, source: Path, changes: dict[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(PROGRAM), str(outputs), str(source), json.dumps(changes)])


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[bytes], after: set[str]) -> set[str]:
    """Until a checkpoint is there that was not before, or the program has ended."""
    while process.poll() is None:
        names = {path.name for path in folder.glob("*.json")}
        if names - after:
            return names
        time.sleep(0.02)
    return after


@pytest.mark.slow(reason="every kill is a process that imports PyTorch and Lightning")
def test_killed_at_random_moments(
    configure: Callable[..., TrainStage], prepared: tuple[Path, Path], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "seed": 30, "tokens": str(STEPS * 256), "model__dropout": 0.1, "data__workers": 1, "data__micro_batch_size": 4,
        "callbacks__checkpoint__every_n_train_steps": 12, "trainer__log_every_n_steps": 5,
    }  # fmt: skip
    whole = train.run(configure(**changes))
    (tmp_path / "artifacts").symlink_to(prepared[0].resolve() / "artifacts")
    checkpoints = tmp_path / "runs" / whole.name / "checkpoints"
    numbers, seen, kills = random.Random(time.time_ns()), set[str](), 0
    for _ in range(3):
        process = start(tmp_path, prepared[1], changes)
        seen = wait_for_checkpoint(checkpoints, process, seen)
        time.sleep(numbers.random() * 0.5)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    record = read_record(tmp_path / "runs" / whole.name)
    assert record is not None and kills >= 2 and record.status == "running"
    process = start(tmp_path, prepared[1], changes)
    wait_for_checkpoint(checkpoints, process, seen)
    os.kill(process.pid, signal.SIGTERM)  # as Slurm does before time is up: save, then end
    process.wait()
    config = configure(**changes)
    config.outputs = str(tmp_path)
    resumed = train.run(config)
    expected = load_file(Path(whole.folder) / "model" / "model.safetensors")
    for name, tensor in load_file(Path(resumed.folder) / "model" / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name
    curves = [(Path(run.folder) / "metrics.jsonl").read_text().splitlines() for run in (whole, resumed)]
    assert [_without_times(line) for line in curves[1]] == [_without_times(line) for line in curves[0]]


def _without_times(line: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if not key.startswith("speed/")}
