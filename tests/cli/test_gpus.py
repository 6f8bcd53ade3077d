"""A run on one GPU takes the first that nobody holds, in whatever process it is."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from maquette.cli.command_line import gpus

PROGRAM = """
import sys, time
from types import SimpleNamespace
from maquette.cli.command_line.gpus import take_gpu
print(take_gpu(SimpleNamespace(trainer=SimpleNamespace(accelerator="gpu", devices=1))), flush=True)
sys.stdin.read()
"""


def process(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "3,5", "TMPDIR": str(folder)}
    environment.pop("SLURM_JOB_ID", None)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def test_each_process_takes_one_and_the_next_waits_for_it(tmp_path: Path) -> None:
    first, second = process(tmp_path), process(tmp_path)
    assert first.stdout and second.stdout
    assert {first.stdout.readline().strip(), second.stdout.readline().strip()} == {"3", "5"}
    third = process(tmp_path)
    first.kill()  # even so its device is free
    first.wait()
    assert third.stdout and third.stdout.readline().strip() in ("3", "5")
    for one in (second, third):
        one.communicate("")


@pytest.mark.parametrize(
    ("accelerator", "devices", "environment"),
    [("cpu", 1, {}), ("gpu", 2, {}), ("gpu", "auto", {}), ("gpu", 1, {"SLURM_JOB_ID": "1"}),
     ("gpu", 1, {"LOCAL_RANK": "0"}), ("gpu", 1, {"CUDA_VISIBLE_DEVICES": ""})],
)  # fmt: skip
def test_others_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, devices: object, environment: dict[str, str]
) -> None:
    for name in ("SLURM_JOB_ID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"CUDA_VISIBLE_DEVICES": "0,1", **environment}.items():
        monkeypatch.setenv(name, value)
    settings = SimpleNamespace(trainer=SimpleNamespace(accelerator=accelerator, devices=devices))
    assert gpus.take_gpu(settings) is None
