"""What stock callbacks of Lightning and ours cost a step, in milliseconds of processor time.

    python benchmarks/callback_cost.py [--steps 2000]

A bare `lightning.Trainer` and one Trainer for each callback train the same tiny model, which shows its loss every 20
steps. They take turns of 20 steps, each in a thread of its own; a figure is the median, over rounds, of a turn's time
beyond the bare Trainer's turn in the same round, of that thread alone, so that
other work on the machine matters little. Progress is shown in a terminal that nobody sees. No checkpoint is written.
"""

import argparse
import contextlib
import os
import pty
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, ThroughputMonitor, TQDMProgressBar
from lightning.pytorch.callbacks.spike import SpikeDetection
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from maquette.artifacts import progress as shown
from maquette.training.callbacks import LossSpikeGuard, RunCheckpoint, RunContext, Throughput
from maquette.training.callbacks import progress as ours
from maquette.training.processes import StopSignal
from maquette.training.trainer import quieten

TURN = 20
NEVER = timedelta(hours=10)


class Tiny(LightningModule):
    """A linear model; its step is short, so that what is around it shows."""

    turn: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 32)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.turn()
        loss = self.layer(batch).square().mean()
        if (batch_idx + 1) % TURN == 0:
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class NoSpikes(SpikeDetection):
    """As it is, but silent: this model's loss has its first value as long as nothing is to be found."""

    def _handle_spike(self, *arguments: Any, **named: Any) -> None: ...


def contenders(folder: Path, steps: int) -> dict[str, Callable[[], list[Callback]]]:
    """Callbacks by the name under which they are shown."""

    def attached(callback: Any) -> list[Callback]:
        callback.attach(
            RunContext(
                Path("tiny"), steps, 256, flops_per_token=1.0, peak_flops=1.0, validations=0, stop_signal=StopSignal()
            )
        )
        return [callback]

    monitor = {"batch_size_fn": len, "window_size": 5}
    return {
        "bare": list,
        "RichProgressBar(refresh_rate=20)": lambda: [RichProgressBar(refresh_rate=20)],
        "RichProgressBar()": lambda: [RichProgressBar()],
        "TQDMProgressBar(refresh_rate=20)": lambda: [TQDMProgressBar(refresh_rate=20)],
        "ours: Progress": lambda: attached(ours.Progress()),
        "ThroughputMonitor": lambda: [ThroughputMonitor(**monitor)],
        "ours: Throughput": lambda: attached(Throughput()),
        "SpikeDetection": lambda: [NoSpikes(rtol=1e9)],
        "ours: LossSpikeGuard": lambda: attached(LossSpikeGuard()),
        "ModelCheckpoint(train_time_interval)": lambda: [ModelCheckpoint(folder / "stock", train_time_interval=NEVER)],
        "ours: RunCheckpoint": lambda: attached(
            RunCheckpoint(dirpath=str(folder / "ours"), train_time_interval={"hours": 10})
        ),
    }


class RoundRobin:
    """Lets threads run a turn each, in one order, and keeps the processor time of every turn."""

    def __init__(self, names: list[str]) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self._next = dict(zip(names, [*names[1:], names[0]], strict=True))
        self._may_run = {name: threading.Semaphore(name == names[0]) for name in names}
        self._begun: dict[str, float] = {}
        self._steps = dict.fromkeys(names, 0)

    def step(self, name: str) -> None:
        if self._steps[name] % TURN == 0:
            if name in self._begun:
                self.seconds[name].append(time.thread_time() - self._begun[name])
                self.leave(name)
            self._may_run[name].acquire()
            self._begun[name] = time.thread_time()
        self._steps[name] += 1

    def leave(self, name: str) -> None:
        self._may_run[self._next[name]].release()


def train(name: str, callbacks: list[Callback], steps: int, turns: RoundRobin, folder: Path) -> None:
    module = Tiny()
    module.turn = lambda: turns.step(name)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, max_epochs=1, callbacks=callbacks, log_every_n_steps=TURN,
        logger=CSVLogger(folder, name=name.replace(" ", "")) if "Throughput" in name else False,
        enable_checkpointing="Checkpoint" in name, enable_progress_bar="ProgressBar" in name,
        enable_model_summary=False,
    )  # fmt: skip
    try:
        trainer.fit(module, DataLoader(torch.randn(8 * steps, 32), batch_size=8))
    finally:
        turns.leave(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    warnings.simplefilter("ignore")
    quieten()
    torch.set_num_threads(1)
    streams = sys.stdout, sys.stderr
    reader, writer = pty.openpty()  # progress bars look whether there is a terminal
    threading.Thread(target=_swallow, args=(reader,), daemon=True).start()
    with tempfile.TemporaryDirectory() as root, os.fdopen(writer, "w") as terminal:
        parts = contenders(Path(root), steps)
        turns = RoundRobin(list(parts))
        threads = [
            threading.Thread(target=train, args=(name, make(), steps, turns, Path(root)))
            for name, make in parts.items()
        ]
        sys.stdout = sys.stderr = shown.console.file = terminal
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.stdout, sys.stderr = streams
    bare = turns.seconds["bare"]
    print(f"a bare step: {1e3 * statistics.median(bare) / TURN:.2f} ms of processor time, {len(bare)} turns")
    for name, seconds in turns.seconds.items():
        if name == "bare":
            continue
        added = [1e3 * (one - base) / TURN for base, one in zip(bare, seconds, strict=False)][2:]
        low, middle, high = statistics.quantiles(added, n=4)
        print(f"{name}: {middle:+.3f} ms a step (middle half of the turns {low:+.3f} to {high:+.3f})")


def _swallow(reader: int) -> None:
    with contextlib.suppress(OSError):  # closed at the other end
        while os.read(reader, 65536):
            pass


if __name__ == "__main__":
    main()
