"""What training's surroundings cost: Lightning, callbacks, logging, tracking and progress, in milliseconds a step.

    python benchmarks/step_overhead.py [--steps 1000] [--size 300k] [--clock wall] [--against trainer]

Trains the default model twice at once: by `maquette.training.fit`, with everything that a run has, and by a bare
`lightning.Trainer` (no logger, callback or progress bar), or with `--against loop` by a loop without Lightning, with
the same weights, batches, optimiser, schedule and clipping. The two take turns, ten steps each (one of them logs),
so whatever else the machine does hits both; the figure is the median difference between turns that follow each other.
`--clock cpu` counts processor time instead, that of all threads of the process: for a machine that is not idle.
Validation and checkpoints happen at the end and are not in it.
"""

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.pretraining import plan_pretraining, resolve_recipe
from maquette.cli.tokens import make_tokens
from maquette.data import MixtureOrder, TokenBatch, TokenShards, TrainingBatches
from maquette.model import LanguageModel
from maquette.objectives import Pretraining
from maquette.training import Job, fit
from maquette.training.devices import keep_large_buffers, prepare_process
from maquette.training.job import prepare_optimization
from maquette.training.record import begin_record

WINDOW = 10


def write_documents(folder: Path) -> None:
    """Some text of random words: what it says does not matter here."""
    numbers = random.Random(0)
    words = ["".join(numbers.choices("abcdefghijklmnopqrstuvwxyz", k=numbers.randint(2, 9))) for _ in range(3000)]
    rows = [{"id": str(n), "text": " ".join(numbers.choices(words, k=400)), "domain": "words"} for n in range(1500)]
    (folder / "words.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def make_job(root: Path, size: str, steps: int) -> Job:
    """The default configuration over that text, `steps` steps long."""
    (root / "documents").mkdir()
    write_documents(root / "documents")
    overrides = [
        "source=jsonl", f"source.path={root / 'documents'}", f"outputs={root / 'outputs'}", f"size={size}", "tokens=1m",
        "num_validations=1", "callbacks.checkpoint.train_time_interval.minutes=600", "data.validation_tokens=1024",
    ]  # fmt: skip
    config: Any = compose(STAGES["train"], overrides)
    data = make_tokens(config)
    recipe = resolve_recipe(config, data)
    config.tokens = str(steps * recipe.batch_size_tokens)
    config.data.batch_size_tokens = recipe.batch_size_tokens
    job = plan_pretraining(config, data).job
    begin_record(job.spec, job.folder).save()
    return job


class Turns:
    """Lets two threads run ten steps each in turn, and times every turn."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.may_run = {"bare": threading.Semaphore(1), "ours": threading.Semaphore(0)}
        self.seconds: dict[str, list[float]] = {"bare": [], "ours": []}
        self._begun: dict[str, float] = {}
        self._steps = {"bare": 0, "ours": 0}

    def step(self, name: str) -> None:
        """Called where a step computes its loss."""
        if self._steps[name] % WINDOW == 0:
            if name in self._begun:
                self.seconds[name].append(self.clock() - self._begun[name])
                self.leave(name)
            self.may_run[name].acquire()
            self._begun[name] = self.clock()
        self._steps[name] += 1

    def leave(self, name: str) -> None:
        self.may_run["ours" if name == "bare" else "bare"].release()


def run_ours(job: Job, turns: Turns) -> None:
    """`fit`, with everything around a step."""
    loss = Pretraining.loss

    def call(self: Pretraining, batch: TokenBatch) -> Any:
        turns.step(getattr(self, "side", "ours"))
        return loss(self, batch)

    Pretraining.loss = call  # type: ignore[method-assign]
    try:
        fit(job)
    finally:
        Pretraining.loss = loss  # type: ignore[method-assign]
        turns.leave("ours")


def run_bare(job: Job, turns: Turns, against: str) -> None:
    """The same steps by a bare Trainer, or in a loop of their own."""
    plan: Any = job.plan
    shards = TokenShards(plan.tokens_folder)
    order = MixtureOrder(
        plan.mixture,
        shards.tokens("train"),
        context=plan.data.sequence_length,
        token_budget=job.spec.tokens,
        seed=job.spec.seed,
    )
    batches = TrainingBatches(
        shards,
        order,
        batch_sequences=plan.batch_sequences(job),
        micro_batch_size=plan.batch_sequences(job),
        steps=job.spec.steps,
    )
    optimization = prepare_optimization(job)
    objective = Pretraining(LanguageModel(job.spec.architecture, seed=job.spec.seed), optimization, plan.objective)
    objective.side = "bare"
    if against == "trainer":
        trainer = Trainer(
            accelerator="cpu", devices=1, max_steps=job.spec.steps, max_epochs=1, logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, gradient_clip_val=1.0,
            log_every_n_steps=1 << 30,
        )  # fmt: skip
        trainer.fit(objective, batches)
        turns.leave("bare")
        return
    configured: Any = objective.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    parameters = list(objective.model.parameters())
    for batch in batches:
        turns.step("bare")
        loss, _ = objective.cross_entropy(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, job.trainer.gradient_clip_val or 1.0)
        optimizer.step()
        scheduler.step()
    turns.leave("bare")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--size", default="300k")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--against", choices=("trainer", "loop"), default="trainer")
    arguments = parser.parse_args()
    turns = Turns(time.perf_counter if arguments.clock == "wall" else time.process_time)
    with tempfile.TemporaryDirectory() as root:
        job = make_job(Path(root), arguments.size, arguments.steps)
        prepare_process(job.hardware)
        keep_large_buffers()
        bare = threading.Thread(target=run_bare, args=(job, turns, arguments.against))
        bare.start()
        run_ours(job, turns)
        bare.join()
    pairs = list(zip(turns.seconds["bare"], turns.seconds["ours"], strict=False))[2:]
    added = [1e3 * (ours - bare) / WINDOW for bare, ours in pairs]
    quartiles = statistics.quantiles(added, n=4)
    bare_step = statistics.median(1e3 * bare / WINDOW for bare, _ in pairs)
    print(
        f"{arguments.size}, {job.spec.batch_size_tokens} tokens a step, {job.hardware.threads} threads, "
        f"{len(pairs)} turns: "
        f"a bare step takes {bare_step:.2f} ms of {arguments.clock} time; "
        f"everything around it adds {statistics.median(added):.2f} ms "
        f"(middle half of the turns: {quartiles[0]:.2f} to {quartiles[2]:.2f})"
    )


if __name__ == "__main__":
    main()
