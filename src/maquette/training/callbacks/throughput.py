"""How fast training goes, and where a step's time goes: data, forward and backward, optimiser.

Lightning's `ThroughputMonitor` knows batches and samples; here are tokens, FLOPs counted exactly, and the peak that
this machine's matrix products reach. Pauses (validation, saving) are left out.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.base import RunCallback, is_log_step


@dataclass(frozen=True)
class Speed:
    """Mean seconds of a step since the last measurement, and its parts."""

    steps: int
    seconds: float
    data: float
    model: float
    optimizer: float


class Stopwatch:
    """Times steps between `start` and `take`; what was no training (validation, saving) is left out by `resume`.

    A GPU computes behind the program's back, so there the optimiser's share is only known where the program waits for
    it: `take` is called at the end of a step that has just been waited for, and that step's share stands for all.
    """

    def __init__(self, device: torch.device) -> None:
        self._wait = device.type == "cuda"
        self._device = device
        self._steps = 0
        self._seconds = self._optimizer = self._data = 0.0
        self._backward_end = self._waiting_since = 0.0
        self.start()

    def start(self) -> None:
        """The next step begins now."""
        self._step_start = self._waiting_since = time.perf_counter()

    def resume(self) -> None:
        """What has passed since the last batch was a pause."""
        now = time.perf_counter()
        self._step_start += now - self._waiting_since
        self._waiting_since = now

    def batch_came(self) -> None:
        """What has passed since the batch before it was waiting."""
        self._data += time.perf_counter() - self._waiting_since

    def batch_done(self) -> None:
        """The next one is waited for now."""
        self._waiting_since = time.perf_counter()

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
        if self._wait:
            self._optimizer = (now - self._backward_end) * self._steps
        else:
            self._optimizer += now - self._backward_end
        self._step_start = now

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
        self._stopwatch = Stopwatch(trainer.strategy.root_device)
        self._paused = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._step == 0:  # some models are validated before their first step
            self._stopwatch.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._paused:  # other callbacks' part in it ends only now
            self._paused = False
            self._stopwatch.resume()
        self._stopwatch.batch_came()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._stopwatch.backward_done(is_log_step(trainer, self._step + 1))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self._step:
            step = self._step = trainer.global_step
            logs = is_log_step(trainer, step)
            self._stopwatch.step_done(logs)
            if logs:
                self._log(trainer, pl_module)
        self._stopwatch.batch_done()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._paused = True

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.run is not None
        speed = self._stopwatch.take()
        tokens_per_second = self.run.batch_size_tokens / speed.seconds if speed.seconds else 0.0
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
