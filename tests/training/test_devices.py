"""Devices, processes and number formats: what goes together, and what is refused in words."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch._inductor.config
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from maquette.artifacts import ConfigError
from maquette.data.process_group import default_threads
from maquette.model.architecture import TransformerConfig
from maquette.training.config import PrecisionConfig, TrainerConfig
from maquette.training.devices import Hardware, choose_hardware
from maquette.training.machine import compiler_works, matmul_peak, measure_peak, published_peak, wants_compilation
from maquette.training.micro_batch import choose_micro_batch, forward_passes
from maquette.training.trainer import build_strategy

CPU = Hardware("cpu", 1, 1, "single", 1, "fp32")


def choose(number_format: str = "fp32", threads: int | None = None, **trainer: Any) -> Hardware:
    return choose_hardware(TrainerConfig(**trainer), PrecisionConfig(number_format), threads=threads)


def test_defaults() -> None:
    hardware = choose()
    assert (hardware.accelerator, hardware.world_size, hardware.device) == ("cpu", 1, torch.device("cpu"))
    assert choose(threads=3).threads == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"number_format": "16-mixed"}, "silently compute in bf16"),
        ({"precision": "16-mixed"}, "silently compute in bf16"),
        ({"strategy": "deepspeed"}, r"trainer\.strategy=deepspeed is not known"),
        ({"devices": 0}, r"trainer\.devices=0 is not a number of devices"),
        ({"devices": "two"}, r"trainer\.devices=two is not a number of devices"),
        ({"precision": "8-bit"}, r"trainer\.precision=8-bit is not known"),
        ({"number_format": "bf16-mixed", "precision": "32-true"}, "are two number formats"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(**settings)


@pytest.mark.parametrize(
    ("devices", "processes", "strategy"),
    [(1, 1, "single"), ("auto", 1, "single"), (-1, 1, "single"), (2, 2, "ddp"), ("2", 2, "ddp"), ([0, 1], 2, "ddp")],
)
def test_processes_follow_from_the_devices(devices: Any, processes: int, strategy: str) -> None:
    hardware = choose(devices=devices)
    assert (hardware.processes, hardware.strategy) == (processes, strategy)


@pytest.mark.parametrize(
    ("name", "kind"), [("32-true", "fp32"), (32, "fp32"), ("bf16", "bf16-mixed"), ("bf16-true", "bf16-true")]
)
def test_lightnings_names_of_number_formats(name: Any, kind: str) -> None:
    assert choose(precision=name).precision == choose(kind).precision == kind


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="PyTorch finds 0 GPUs"):
        choose(accelerator="gpu")
    assert choose(accelerator="auto").accelerator == "cpu"


def test_eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    hardware = choose("bf16-mixed", accelerator="gpu", devices=8, strategy="fsdp", num_nodes=2)
    assert (hardware.world_size, hardware.compute_dtype) == (16, torch.bfloat16)
    job: Any = SimpleNamespace(hardware=hardware)
    strategy: Any = build_strategy(job)
    assert type(strategy).__name__ == "ShardedStrategy" and strategy.nodes == 2
    assert strategy.compute_dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_task_of_srun_sees_one_gpu(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`srun --ntasks-per-node=4 --gpus-per-task=1 --nodes=2`: the third task of the second machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # a Trainer leaves its own behind
    for name, value in {"RANK": "6", "LOCAL_RANK": "2", "GROUP_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    for devices in (4, "auto"):
        hardware = choose("bf16-mixed", accelerator="gpu", devices=devices, strategy=strategy, num_nodes=2)
        assert (hardware.world_size, hardware.device) == (8, torch.device("cuda", 0))
    job: Any = SimpleNamespace(hardware=hardware)
    trainer = Trainer(
        accelerator="cuda", devices=1, num_nodes=2, strategy=build_strategy(job), plugins=[TorchElasticEnvironment()],
        logger=False, enable_checkpointing=False,
    )  # fmt: skip
    assert (trainer.world_size, trainer.global_rank, trainer.strategy.root_device) == (8, 6, torch.device("cuda", 0))
    with pytest.raises(ConfigError, match="PyTorch finds 1 GPUs"):
        monkeypatch.setenv("WORLD_SIZE", "1")
        choose("bf16-mixed", accelerator="gpu", devices=4)


def test_threads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads(2) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert default_threads(1) == 8
    assert default_threads(4) == 2
    assert default_threads(99) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose(accelerator="gpu", devices=4, strategy="ddp").threads == 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")  # the cores that a task sees are its own
    assert default_threads(4, width=512) == 6


def test_a_narrow_model_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert default_threads(1, width=72) == 1
    assert default_threads(2, width=512) == 4


def test_compilation_is_decided_by_the_runs_length() -> None:
    assert not wants_compilation("auto", 1e13, CPU)
    assert wants_compilation("auto", 1e14, CPU)
    assert wants_compilation("on", 1, CPU)
    assert not wants_compilation("off", 1e20, CPU)


@pytest.mark.slow(reason="starts PyTorch's compiler")
def test_without_a_compiler_it_says_so() -> None:
    before = compiler_works(lambda _: None)
    messages: list[str] = []
    with torch._inductor.config.patch({"cpp.cxx": ("/nonexistent/c++",)}):
        assert not compiler_works(messages.append)
    assert len(messages) == 1 and "torch.compile does not work here" in messages[0]
    assert compiler_works(lambda _: None) == before


def micro_batch_size(
    sequences: int, wished: int | None = None, whole: int = 1, processes: int = 1, context: int = 128
) -> int:
    shape = TransformerConfig(
        vocab_size=1024, hidden_size=64, num_hidden_layers=2, num_attention_heads=1, max_position_embeddings=context
    )
    hardware = Hardware("cpu", processes, 1, "ddp" if processes > 1 else "single", 1, "fp32")
    return choose_micro_batch(
        shape, batch_sequences=sequences, context=context, whole=whole, micro_batch_size=wished, hardware=hardware
    )


def test_micro_batches_divide_the_batch() -> None:
    assert micro_batch_size(8) == 8
    assert micro_batch_size(8, processes=2) == 4
    assert micro_batch_size(8, wished=2) == 2
    large = micro_batch_size(30_000)
    assert large < 30_000 and 30_000 % large == 0
    assert micro_batch_size(30_000, whole=4) % 4 == 0


def test_a_minibatch_of_completions_is_read_in_as_many_passes_as_asked() -> None:
    def passes(size: int | None, accumulate: int | None) -> int | None:
        return forward_passes(8, "completions", micro_batch_size=size, accumulate=accumulate)

    assert passes(None, None) is None
    assert passes(2, None) == passes(None, 4) == passes(2, 4) == 4
    with pytest.raises(ConfigError, match=r"micro_batch_size=3(.|\n)*Allowed: 1, 2, 4, 8"):
        passes(3, None)
    with pytest.raises(ConfigError, match="accumulate_grad_batches=3"):
        passes(None, 3)
    with pytest.raises(ConfigError, match="accumulate_grad_batches=2"):
        passes(2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequences": 8, "wished": 3}, r"micro_batch_size=3 does not divide the 8(.|\n)*Allowed: 1, 2, 4, 8"),
        ({"sequences": 9, "processes": 2}, r"9 sequences can't be shared by 2 processes(.|\n)*multiple of 256"),
        ({"sequences": 8, "wished": 1, "whole": 2}, "micro_batch_size=1"),
    ],
)
def test_batches_that_can_not_be_shared(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        micro_batch_size(**arguments)


def test_published_peaks() -> None:
    assert published_peak("NVIDIA H100 80GB HBM3", "bf16-mixed") == 9.89e14
    assert published_peak("NVIDIA H100 PCIe", "bf16-true") == 7.56e14
    assert published_peak("NVIDIA A100-SXM4-80GB", "tf32") == 1.56e14
    assert published_peak("Somebody's first GPU", "fp32") is None


def test_a_measured_peak_is_remembered(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    first = matmul_peak(torch.device("cpu"), "fp32", tmp_path / "machine.json")
    assert first > 1e8
    monkeypatch.setattr("maquette.training.machine.measure_peak", lambda *_: 1.0)
    assert matmul_peak(torch.device("cpu"), "fp32", tmp_path / "machine.json") == first
    assert matmul_peak(torch.device("cpu"), "bf16-mixed", tmp_path / "machine.json") == 1.0


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_the_peak_is_that_of_a_library_that_is_there(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("maquette.training.machine._CPU_SIDE", 64)
    assert measure_peak(torch.device("cpu"), torch.float32) > 1e6
