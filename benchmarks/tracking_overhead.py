"""What recording a run in MLflow costs training: at most 1% of its time is promised.

    python benchmarks/tracking_overhead.py [--size 300k] [--steps 400] [--rounds 5] [--runs 500]

One model trains in short stretches that take turns: without a logger, with this project's, and with Lightning's own
MLFlowLogger, as it is and with `synchronous=False`. Every ten steps twelve values are logged, as in `maquette train`.
Printed for each:

- `in the step`: time that logging takes of the training thread;
- `beside it`: processor time of the other threads, which hold Python's lock for much of it, so that the sum of the two
  is the most that training can lose;
- `slower`: the stretches' own lengths against those without a logger (median over rounds; noisy on a shared machine).

Then the time to find `--runs` runs with a hundred parameters each, by `find_runs` and by MLflow's `search_runs`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger

from maquette.artifacts.settings import parse_quantity
from maquette.model import LanguageModel, ModelConfig, next_token_loss
from maquette.recipe.shape import choose_shape
from maquette.tracking import MLflowLogger, TrackingConfig, find_runs, prepare_store
from maquette.tracking.store import open_client

VOCABULARY, CONTEXT, BATCH = 1024, 128, 4
NAMES = [
    "tokens", "train/loss", "train/gradient_norm", "train/learning_rate", "speed/tokens_per_second", "speed/mfu",
    "speed/step_ms", "speed/data_ms", "speed/model_ms", "speed/optimizer_ms", "train/a", "train/b",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="300k", help="parameters of the model, core and head")
    parser.add_argument("--steps", type=int, default=400, help="steps of one stretch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the threads beside the training one are then the logger's
    with tempfile.TemporaryDirectory() as folder:
        training(arguments, Path(folder))
        finding(arguments.runs, Path(folder))


def training(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints the table of the ways to train."""
    config = choose_shape(ModelConfig(), parse_quantity(arguments.size), vocab_size=VOCABULARY, context=CONTEXT)
    model = LanguageModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, VOCABULARY, (BATCH, CONTEXT + 1))
    uri = prepare_store(TrackingConfig(), folder)

    def stretch(logger: Logger | None, flush: Callable[[], object]) -> tuple[float, float, float]:
        """Seconds of the whole, of logging within it, and processor time of other threads."""
        start, logging = time.perf_counter(), 0.0
        beside = time.process_time() - time.thread_time()
        for step in range(arguments.steps):
            hidden = model.core(tokens[:, :-1])
            loss, _ = next_token_loss(hidden, model.head_weight, tokens[:, 1:])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 10 == 9:
                values = dict.fromkeys(NAMES, loss.item())
                began = time.perf_counter()
                if logger is not None:
                    logger.log_metrics(values, step)
                logging += time.perf_counter() - began
        whole = time.perf_counter() - start
        flush()
        return whole, logging, time.process_time() - time.thread_time() - beside

    ways: dict[str, Callable[[], Any]] = {
        "no logger": lambda: None,
        "maquette": lambda: MLflowLogger(save_dir=str(folder)),
        "MLFlowLogger": lambda: MLFlowLogger(tracking_uri=uri),
        "  synchronous=False": lambda: MLFlowLogger(tracking_uri=uri, synchronous=False),
    }
    rows: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    stretch(None, lambda: None)
    for _ in range(arguments.rounds):
        for way, make in ways.items():
            logger = make()
            if logger is not None:
                _ = logger.experiment
            flush = logger.flush if way == "maquette" else mlflow.flush_async_logging
            rows[way].append(stretch(logger, flush))
            if logger is not None:
                logger.finalize("success")
    bare = [whole for whole, _, _ in rows["no logger"]]
    points = arguments.rounds * arguments.steps // 10 * len(NAMES)
    print(
        f"{arguments.size} parameters, {BATCH} x {CONTEXT} tokens a step, one thread, "
        f"{1e3 * statistics.median(bare) / arguments.steps:.1f} ms a step"
    )
    print(f"{'':20}{'in the step':>12}{'beside it':>12}{'at most':>12}{'a point':>12}{'slower':>12}")
    for way, measured in rows.items():
        total, inside, beside = (sum(column) for column in zip(*measured, strict=True))
        ratio = statistics.median(own / alone for (own, _, _), alone in zip(measured, bare, strict=True))
        print(
            f"{way:20}{inside / total:12.3%}{beside / total:12.3%}{(inside + beside) / total:12.3%}"
            f"{1e6 * (inside + beside) / points:9.0f} us{ratio - 1:12.1%}"
        )


def finding(runs: int, folder: Path) -> None:
    """Prints how long a table of many runs takes."""
    outputs = folder / "many"
    client = open_client(prepare_store(TrackingConfig(), outputs))
    experiment = client.get_experiment_by_name("maquette")
    assert experiment is not None
    params = [mlflow.entities.Param(f"setting.{number}", str(number)) for number in range(100)]
    metrics = [mlflow.entities.Metric(name, 1.0, 0, 1) for name in NAMES]
    for _ in range(runs):
        client.log_batch(client.create_run(experiment.experiment_id).info.run_id, metrics=metrics, params=params)
    ours = min(_seconds(lambda: find_runs(outputs)) for _ in range(3))
    theirs = min(_seconds(lambda: client.search_runs([experiment.experiment_id], max_results=runs)) for _ in range(3))
    print(f"{runs} runs with {len(params)} parameters: find_runs {ours:.2f} s, MLflow's search_runs {theirs:.2f} s")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
