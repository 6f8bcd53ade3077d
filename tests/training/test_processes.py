"""Several processes: their ranks, what they return, what they raise; and that together they learn what one does."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.data.process_group import PATIENCE, join_group, process_group
from maquette.training import read_history
from maquette.training.processes import catch_signals, launch, queue_again
from support.process_work import what_a_process_does, windows_after_a_checkpoint


def test_alone_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert process_group().is_first and process_group().size == 1


def test_as_torchrun_says(monkeypatch: pytest.MonkeyPatch, configure: Callable[..., TrainStage]) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not process_group().is_first
    with pytest.raises(ConfigError, match=r"2 processes were started; trainer.devices x trainer.num_nodes is 1"):
        train.run(configure(seed=40))


def test_other_machines_must_be_started_by_somebody(configure: Callable[..., TrainStage]) -> None:
    with pytest.raises(ConfigError, match=r"nothing started this command on the other machines"):
        train.run(configure(seed=40, trainer__strategy="ddp", trainer__num_nodes=2, data__batch_size_tokens=256))


def test_children_answer_complain_and_die() -> None:
    assert launch(what_a_process_does, "answer", 2) == (0, 2, "127.0.0.1")
    with pytest.raises(StageError, match="second process has a complaint") as complaint:
        launch(what_a_process_does, "error", 2)
    assert complaint.value.hint == "Listen to it."
    with pytest.raises(StageError, match=r"Process 1 ended without a word \(exit code -9\)"):
        launch(what_a_process_does, "death", 2)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two more processes that import PyTorch and Lightning")
def test_each_continues_with_its_own_means_between_two_log_steps() -> None:
    """A rank was killed in the middle of ten steps: the curve had the first rank's losses twice."""
    windows, alone = launch(windows_after_a_checkpoint, "", 2)
    assert windows == [{"train/loss": [2.0, 2.0]}, {"train/loss": [11.0, 2.0]}]
    assert alone == {"train/loss": [6.5, 2.0]}


def test_every_process_speaks_from_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(device))
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, timeout: done.extend([backend, timeout])
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    join_group("nccl")
    join_group("gloo")
    assert done == [3, "nccl", PATIENCE, "gloo", PATIENCE]


SCONTROL = """#!/bin/sh
echo "$@" >> "$0.calls"
test "$2" != 13 || { echo 'Job 13 is not yours' >&2; exit 1; }
"""


@pytest.mark.parametrize(
    ("number", "environment", "calls"),
    [
        (signal.SIGUSR1, {"SLURM_JOB_ID": "7"}, "requeue 7\n"),
        (signal.SIGUSR2, {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1"}, "requeue 8_1\n"),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "13"}, "requeue 13\n"),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "7", "RANK": "1"}, ""),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive"}, ""),
        (signal.SIGUSR1, {}, ""),
        (signal.SIGTERM, {"SLURM_JOB_ID": "7"}, ""),  # of scancel, or of a preemption that requeues by itself
    ],
)
def test_slurm_is_asked_to_start_the_job_again(
    number: int, environment: dict[str, str], calls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with catch_signals() as stop_signal:
        signal.raise_signal(number)
    assert stop_signal.requested and stop_signal.number == number
    queue_again(stop_signal)
    asked = tmp_path / "scontrol.calls"
    assert (asked.read_text() if asked.exists() else "") == calls
    assert ("is not yours" in capsys.readouterr().err) == ("13" in calls)


def test_submitit_hears_its_own_signal_when_the_run_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with catch_signals() as stop_signal:
            signal.raise_signal(signal.SIGUSR2)
        assert heard == []
        queue_again(stop_signal)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]


@pytest.mark.slow(reason="two more processes that import PyTorch and Lightning")
def test_two_processes_learn_what_one_does(
    configure: Callable[..., TrainStage], prepared: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "artifacts").symlink_to(prepared[0].resolve() / "artifacts")
    one = train.run(configure(seed=41, data__micro_batch_size=4))
    together = configure(seed=41, data__micro_batch_size=2, trainer__strategy="ddp", trainer__devices=2)
    together.outputs = str(tmp_path)
    two = train.run(together)
    assert (two.name, two.status) == (one.name, "finished")
    curves = [read_history(Path(run.folder) / "metrics.jsonl") for run in (one, two)]
    assert len(curves[0]) == len(curves[1]) == 4
    for alone, shared in zip(*curves, strict=True):
        assert shared["train/loss"] == pytest.approx(alone["train/loss"], abs=1e-5)
        assert shared["train/gradient_norm"] == pytest.approx(alone["train/gradient_norm"], abs=1e-5)
        assert shared.get("validation/loss") == pytest.approx(alone.get("validation/loss"), abs=1e-5)
