"""Energy and carbon: counters, what they add up to, and what a run says of itself."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from maquette.scaling.plans.planner import Assumptions
from maquette.training import energy
from maquette.training.callbacks.energy import EnergyUse
from maquette.training.energy import Counter, EnergyMeter, energy_facts, energy_words, nvml_counter, processor_counters


def package(root: Path, number: int, joules: float, name: str = "package-0", limit: float = 262_143.0) -> Path:
    zone = root / f"intel-rapl:{number}"
    zone.mkdir(parents=True, exist_ok=True)
    values = {"name": name, "max_energy_range_uj": int(limit * 1e6), "energy_uj": int(joules * 1e6)}
    for file, value in values.items():
        (zone / file).write_text(f"{value}\n")
    return zone


def test_packages_are_measured_by_share_and_counters_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    own, ticks = [100.0], energy.os.sysconf("SC_CLK_TCK")

    def busy(seconds: float) -> None:
        stat.write_text(f"cpu  {int(seconds * ticks)} 0 0 999 99 0 0 0 0 0\ncpu0 1 2\n")

    busy(1000)
    monkeypatch.setattr(energy, "own_seconds", lambda: own[0])
    zone = package(tmp_path, 0, 100, limit=1000)
    package(tmp_path, 1, 5, name="psys")  # the whole machine: would count the package twice
    counters = processor_counters(powercap=tmp_path, stat=stat)
    assert [counter.name for counter in counters] == ["measured: RAPL, by share of the processor's busy time"]
    meter = EnergyMeter(counters)
    meter.start()
    package(tmp_path, 0, 300, limit=1000)
    own[0], _ = 110.0, busy(1040)  # a quarter of what was busy
    meter.read()
    assert meter.joules == pytest.approx(50)
    (zone / "energy_uj").write_text(f"{int(20e6)}")  # 720 more, past its end
    own[0], _ = 130.0, busy(1060)  # all of it
    meter.read()
    assert meter.joules == pytest.approx(50 + 720)


def test_without_counters_it_is_an_estimate_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [7.0]
    monkeypatch.setattr(energy, "own_seconds", lambda: own[0])
    package(tmp_path, 0, 100)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()  # as for one who is not root
    meter = EnergyMeter(processor_counters(2, powercap=tmp_path, stat=tmp_path / "none"))
    meter.start()
    own[0] = 107.0
    meter.read()
    assert meter.joules == 2 * 100 * energy.CORE_WATTS
    facts = energy_facts(meter.joules, meter.sources)
    assert not facts["measured"] and facts["kwh"] == pytest.approx(1200 / 3.6e6)
    assert energy_words(facts) == "0.333 Wh, 0.133 g CO2e at 0.4 kg/kWh (estimated: 6 W for a core's second)"
    assert energy_words(energy_facts(7.2e9, ["measured: NVML"])).startswith("2e+03 kWh, 800 kg CO2e")
    assert Assumptions().kilograms_per_kwh == energy.KILOGRAMS_PER_KWH  # a plan and a run count alike


class Driver:
    """The part of NVML that is used."""

    def __init__(self) -> None:
        self.millijoules, self.refuses = 5000, 0
        self.nvmlInit_v2 = lambda: 0
        self.nvmlDeviceGetHandleByUUID = lambda uuid, device: int(uuid != b"GPU-1")
        self.nvmlDeviceGetTotalEnergyConsumption = self.read

    def read(self, device: Any, value: Any) -> int:
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return self.refuses


def test_a_gpu_is_read_from_its_driver() -> None:
    driver = Driver()
    counter = nvml_counter(4, driver, "GPU-1")
    assert counter is not None and counter.joules() == 20.0 and counter.name == "measured: NVML, one GPU's times 4"
    driver.millijoules = 6000
    assert counter.joules() == 24.0
    assert nvml_counter(1, driver, "GPU-2") is None
    driver.refuses = 3
    assert nvml_counter(1, driver, "GPU-1") is None and nvml_counter(1, object(), "GPU-1") is None
    assert nvml_counter(1) is None  # no GPU here


class Trainer:
    is_global_zero = True


def test_a_resumed_run_adds_and_a_counter_that_goes_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = [10.0]

    def read() -> float:
        if joules[0] < 0:
            raise OSError
        return joules[0]

    monkeypatch.setattr(
        "maquette.training.callbacks.energy.counters_of", lambda *_, **__: [Counter("measured: x", read)]
    )
    trainer: Any = Trainer()
    first = EnergyUse(1, gpu=False)
    assert first.facts is None
    first.on_train_start(trainer, trainer)
    joules[0] = 40.0
    first.on_train_end(trainer, trainer)
    second = EnergyUse(1, gpu=False)
    second.load_state_dict(first.state_dict())
    second.on_train_start(trainer, trainer)
    joules[0] = 45.0
    second._next = 0.0
    second.on_train_batch_end(trainer)
    joules[0] = -1.0
    second.on_train_end(trainer, trainer)
    assert second.facts == energy_facts(35.0, ["measured: x"]) and second.facts["measured"]
