"""What a run draws while it trains (training/energy.py), through interruptions."""

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.base import RunCallback
from maquette.training.energy import EnergyMeter, counters_of, energy_facts

_INTERVAL = 30.0
"""Seconds between readings: a processor's counter begins again after some minutes at full power."""


class EnergyUse(RunCallback):
    """Meters training in the first process; a resumed run adds to what it drew before. It never fails a run."""

    def __init__(self, processes: int, *, gpu: bool) -> None:
        self._processes, self._gpu = processes, gpu
        self._meter, self._next = EnergyMeter([]), 0.0
        self._before: dict[str, Any] = {"joules": 0.0, "sources": []}

    @property
    def facts(self) -> dict[str, Any] | None:
        """What the run drew, all its parts together; None where nothing was metered."""
        state = self.state_dict()
        return energy_facts(**state) if state["sources"] else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._meter = EnergyMeter(counters_of(self._processes, gpu=self._gpu))
            self._attempt(self._meter.start)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if time.monotonic() >= self._next:
            self._attempt(self._meter.read)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._attempt(self._meter.read)

    def _attempt(self, act: Callable[[], None]) -> None:
        self._next = time.monotonic() + _INTERVAL
        try:
            act()
        except (OSError, ValueError):  # a counter that has gone: what was read so far stays
            self._meter.counters = []

    def state_dict(self) -> dict[str, Any]:
        sources = list(dict.fromkeys([*self._before["sources"], *self._meter.sources]))
        return {"joules": self._before["joules"] + self._meter.joules, "sources": sources}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = dict(state_dict)
