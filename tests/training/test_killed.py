"""A run that is killed again and again ends with the same bits as one that was left alone."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file

from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.training import read_record
from support.warm_processes import WarmProcess, start_program

pytestmark = pytest.mark.usefixtures("no_pictures")

PROGRAM = Path(__file__).parents[1] / "support" / "one_run.py"
STEPS = 300


def start(outputs: Path, source: Path, changes: dict[str, Any]) -> WarmProcess:
    return start_program(PROGRAM, str(outputs), str(source), json.dumps(changes))


def wait_for_checkpoint(folder: Path, process: WarmProcess, after: set[str]) -> set[str]:
    """Until a checkpoint is there that was not before, or the program has ended."""
    while process.poll() is None:
        names = {path.name for path in folder.glob("*.json")}
        if names - after:
            return names
        time.sleep(0.02)
    return after


@pytest.mark.slow(reason="four processes that train, and are killed")
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


def press_ctrl_c(times: int) -> None:
    """In a while, and again after what is taken for one request."""
    for number in range(times):
        threading.Timer(0.3 + 1.3 * number, os.kill, (os.getpid(), signal.SIGINT)).start()


class Hanging(Callback):
    """A user's callback that waits for what never comes, after step 13."""

    hangs = True

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        if Hanging.hangs and trainer.global_step == 13:
            press_ctrl_c(2)
            threading.Event().wait(60)
            raise AssertionError("nobody heard Ctrl-C")


def test_a_users_code_that_hangs_is_ended_by_a_second_ctrl_c_and_the_run_resumes(
    configure: Callable[..., TrainStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"seed": 26, "callbacks__checkpoint__every_n_train_steps": 5}
    config = configure(**changes)
    (tmp_path / "artifacts").symlink_to(Path(config.outputs).resolve() / "artifacts")
    config.outputs = str(tmp_path)
    config.callbacks["hanging"] = {"_target_": f"{__name__}.Hanging"}
    with pytest.raises(KeyboardInterrupt):
        train.run(config)
    [folder] = (tmp_path / "runs").glob("[!.]*")
    record = read_record(folder)
    assert record is not None and record.status == "interrupted"
    monkeypatch.setattr(Hanging, "hangs", False)
    resumed, whole = train.run(config), train.run(configure(**changes))
    weights = [load_file(Path(run.folder) / "model" / "model.safetensors") for run in (resumed, whole)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
