"""How fast training goes, and where a step's time goes: data, forward and backward, optimiser.

Lightning's `ThroughputMonitor` knows batches and samples; here are tokens, FLOPs counted exactly, and the peak that this
machine's matrix products reach. Pauses (validation, saving) are left out.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.base import RunCallback


class TimedBatches:
    """Passes batches on, and adds up the time spent waiting for them. Its state is that of the batches."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        batches: Iterable[Any] = self.batches
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.seconds += time.perf_counter() - start
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state)


@dataclass(frozen=True)
class Speed:
    """Mean seconds of a step since the last measurement, and its parts."""

    steps: int
    seconds: float
    data: float
    model: float
    optimizer: float


class Stopwatch:
    """Times steps between `start` and `take`; pauses (validation, saving) are left out by calling `start` again.

    A GPU computes behind the program's back, so there the optimiser's share is only known where the program waits for
    it: `take` is called at the end of a step that has just been waited for, and that step's share stands for all.
    """

    def __init__(self, batches: TimedBatches, device: torch.device) -> None:
        self._batches = batches
        self._wait = device.type == "cuda"
        self._device = device
        self._steps = 0
        self._seconds = self._optimizer = self._data = 0.0
        self._backward_end = 0.0
        self.start()

    def start(self) -> None:
        """The next step begins now."""
        self._step_start = time.perf_counter()
        self._data_start = self._batches.seconds

    def backward_done(self, last: bool) -> None:
        """Gradients are there; `last`: the step at whose end `take` will be called."""
        if self._wait and last:
            torch.cuda.synchronize(self._device)
        self._backward_end = time.perf_counter()

    def step_done(self, last: bool) -> None:
        """Weights are updated."""
        if self._wait and last:
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._steps += 1
        self._seconds += now - self._step_start
        self._data += self._batches.seconds - self._data_start
        if self._wait:
            self._optimizer = (now - self._backward_end) * self._steps
        else:
            self._optimizer += now - self._backward_end
        self._step_start, self._data_start = now, self._batches.seconds

    def take(self) -> Speed:
        """Means since the last call."""
        steps = max(1, self._steps)
        seconds, data, optimizer = self._seconds / steps, self._data / steps, self._optimizer / steps
        speed = Speed(self._steps, seconds, data, max(0.0, seconds - data - optimizer), optimizer)
        self._steps = 0
        self._seconds = self._optimizer = self._data = 0.0
        return speed


class Throughput(RunCallback):
    """Logs `speed/tokens_per_second`, `speed/mfu` (model FLOPs utilisation, Chowdhery et al. 2022, appendix B) and
    milliseconds of a step and its parts, every `trainer.log_every_n_steps` steps."""

    tokens_per_second = 0.0
    """At the newest log step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._fetching = 0.0
        self._batches = TimedBatches(())
        self._stopwatch = Stopwatch(self._batches, trainer.strategy.root_device)
        self._waiting_since = time.perf_counter()
        self._validated = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batches.seconds += time.perf_counter() - self._waiting_since

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._stopwatch.backward_done(self._logs(trainer, self._step + 1))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self._step:
            step = self._step = trainer.global_step
            logs = self._logs(trainer, step)
            self._stopwatch.step_done(logs)
            if logs:
                self._log(trainer, pl_module)
        self._waiting_since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.paused()

    def paused(self) -> None:
        """What has just been done was no training."""
        if hasattr(self, "_stopwatch"):
            self._stopwatch.start()
            self._waiting_since = time.perf_counter()

    def _logs(self, trainer: Trainer, step: int) -> bool:
        return step % trainer.log_every_n_steps == 0 or step == trainer.max_steps

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.run is not None
        speed = self._stopwatch.take()
        tokens_per_second = self.run.batch_tokens / speed.seconds if speed.seconds else 0.0
        self.tokens_per_second = tokens_per_second
        values = {
            "speed/tokens_per_second": tokens_per_second,
            "speed/mfu": tokens_per_second * self.run.flops_per_token / self.run.peak_flops,
            "speed/step_ms": 1e3 * speed.seconds,
            "speed/data_ms": 1e3 * speed.data,
            "speed/model_ms": 1e3 * speed.model,
            "speed/optimizer_ms": 1e3 * speed.optimizer,
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=self._step)
