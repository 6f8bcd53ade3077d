"""A run takes the first GPUs that nobody holds, in whatever process it is, and trains in bf16-mixed on them."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.artifacts import ConfigError
from maquette.cli.command_line import gpus
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps import launching
from maquette.training.devices import Hardware, choose_hardware
from maquette.training.machine import number_format_in_words, published_peak, slow_format_in_words

PROGRAM = """
import sys, time
from types import SimpleNamespace
from maquette.cli.command_line.gpus import take_gpu
print(take_gpu(SimpleNamespace(trainer=SimpleNamespace(accelerator="gpu", devices=int(sys.argv[1])))), flush=True)
sys.stdin.read()
"""


def process(folder: Path, devices: int = 1, **environment: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder), **environment}
    environment.pop("SLURM_JOB_ID", None)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(devices)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def test_each_process_takes_one_and_the_next_waits_for_it(tmp_path: Path) -> None:
    def start(devices: int = 1) -> subprocess.Popen[str]:
        return process(tmp_path, devices, CUDA_VISIBLE_DEVICES="3,5")

    first, second = start(), start()
    assert first.stdout and second.stdout
    assert {first.stdout.readline().strip(), second.stdout.readline().strip()} == {"3", "5"}
    third, both = start(), start(devices=2)  # which never takes one of them while it waits for the other
    first.kill()  # even so its device is free
    first.wait()
    assert third.stdout and third.stdout.readline().strip() in ("3", "5")
    for one in (second, third):
        one.communicate("")
    assert both.stdout and both.stdout.readline().strip() == "3,5"
    both.communicate("")


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch and nvidia-smi would show them."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nfor n in 0 1 2 3; do echo GPU $n: of a test; done\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_a_sweep_has_a_worker_for_each_gpu(tmp_path: Path) -> None:
    assert gpus.visible_gpus() == ["0", "1", "2", "3"]

    def slots(processes: int, jobs: int = 8) -> int | None:
        return launching.choose_launching(
            ["hydra/launcher=joblib"], jobs=jobs, seconds=1e4, threads=1, cores=2, accelerated=True, gpus=4,
            processes=processes,
        ).slots  # fmt: skip

    assert [slots(1), slots(2), slots(4), slots(1, jobs=3)] == [4, 2, 1, 3]
    jobs = [process(tmp_path) for _ in range(4)]
    assert sorted(job.stdout.readline().strip() for job in jobs if job.stdout) == gpus.visible_gpus()
    for job in jobs:
        job.communicate("")


@pytest.mark.parametrize(
    ("accelerator", "devices", "environment"),
    [("cpu", 1, {}), ("gpu", 3, {}), ("gpu", [0], {}), ("gpu", "auto", {}), ("gpu", 1, {"SLURM_JOB_ID": "1"}),
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


def test_a_sweep_is_sent_to_gpus_from_a_machine_that_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    gpu, cpu = SimpleNamespace(accelerator="gpu"), SimpleNamespace(accelerator="cpu")
    monkeypatch.setenv("PATH", "")
    assert not gpus.are_elsewhere(gpu)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.are_elsewhere(gpu) and not gpus.are_elsewhere(cpu)
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # on a machine of the cluster it is missing
    assert not gpus.are_elsewhere(gpu)


def number_format(*overrides: str) -> str:
    settings = compose(STAGES["train"], overrides)
    assert isinstance(settings, TrainStage)
    return choose_hardware(settings.trainer, settings.precision).precision


@pytest.mark.usefixtures("four_gpus")
def test_gpus_train_in_bfloat16_unless_told_otherwise() -> None:
    assert number_format("trainer=gpu") == number_format("trainer=ddp") == "bf16-mixed"
    assert number_format("trainer=fsdp", "trainer.devices=4", "precision.kind=fp32") == "fp32"
    assert number_format("trainer=gpu", "trainer.precision=32-true") == "fp32"
    with pytest.raises(ConfigError, match="two number formats"):
        number_format("trainer=gpu", "precision=bf16-true", "trainer.precision=16-mixed")
    assert number_format() == "fp32"  # processors, as ever


def test_without_a_gpu_two_processes_train_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # of a machine whose PyTorch has no CUDA
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert number_format("trainer=ddp") == "fp32"


def test_a_processor_without_bf16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx512_bf16": False, "amx_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    half, single, gpu = (
        Hardware(kind, 1, 1, "single", 1, precision)
        for kind, precision in (("cpu", "bf16-mixed"), ("cpu", "fp32"), ("cuda", "bf16-true"))
    )
    assert slow_format_in_words(half) is None
    capabilities["amx_bf16"] = False
    assert "precision=bf16-mixed: this processor has no instructions for bf16" in str(slow_format_in_words(half))
    assert slow_format_in_words(single) is None and slow_format_in_words(gpu) is None


def test_the_number_format_is_told_with_its_peak() -> None:
    name = "NVIDIA H100 80GB HBM3"

    def sentence(precision: str) -> str:
        peak = published_peak(name, precision)
        assert peak is not None
        return number_format_in_words(Hardware("cuda", 1, 1, "single", 1, precision), name, peak)

    assert sentence("bf16-mixed") == f"precision=bf16-mixed on {name}: matrix products at 989 TFLOP/s at most"
    assert "67 TFLOP/s at most" in sentence("fp32") and "without TF32" in sentence("fp32")
    assert "precision=tf32: 494" in sentence("fp32") and "precision=bf16-mixed: 989" in sentence("fp32")
