"""What recording a run in MLflow costs training: at most 1% of its time is promised.

    python benchmarks/tracking_overhead.py [--size 300k] [--steps 400] [--rounds 5] [--runs 500]

One model trains in short stretches that take turns: without a record, with this project's, and with MLflow's own client
behind the same buffer. Every ten steps twelve values are logged, as in `maquette train`. Printed for each:

- `in the step`: time that logging takes of the training thread;
- `beside it`: processor time of the thread that writes, which holds Python's lock for some of it, so that the sum of
  the two is the most that training can lose;
- `slower`: the stretches' own lengths against those without a record (median over rounds; noisy on a shared machine).

Then the time to find `--runs` runs with a hundred parameters each, by `find_runs` and by MLflow's `search_runs`.
"""

import argparse
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from maquette.artifacts.settings import parse_quantity
from maquette.model import LanguageModel, ModelConfig, next_token_loss
from maquette.recipe.shape import choose_shape
from maquette.tracking import RunLog, TrackingConfig, find_runs, record, start_run
from maquette.tracking.client import open_client
from maquette.tracking.sinks import Point, ServerSink, Sink, open_sink

VOCABULARY, CONTEXT, BATCH = 1024, 128, 4
NAMES = [
    "tokens", "train/loss", "train/gradient_norm", "train/learning_rate", "speed/tokens_per_second", "speed/mfu",
    "speed/step_ms", "speed/data_ms", "speed/model_ms", "speed/optimizer_ms", "train/a", "train/b",
]  # fmt: skip


class TimedSink:
    """A sink that counts the processor time of its writes."""

    def __init__(self, sink: Sink) -> None:
        self.sink, self.seconds, self.points = sink, 0.0, 0

    def write(self, points: Sequence[Point]) -> None:
        start = time.thread_time()
        self.sink.write(points)
        self.seconds += time.thread_time() - start
        self.points += len(points)

    def close(self) -> None:
        self.sink.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="300k", help="parameters of the model, core and head")
    parser.add_argument("--steps", type=int, default=400, help="steps of one stretch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        training(arguments, Path(folder))
        finding(arguments.runs, Path(folder))


def training(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints the table of the three ways to train."""
    config = choose_shape(ModelConfig(), parse_quantity(arguments.size), vocab_size=VOCABULARY, context=CONTEXT)
    model = LanguageModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, VOCABULARY, (BATCH, CONTEXT + 1))

    def stretch(log: RunLog) -> tuple[float, float]:
        """Seconds of the whole, and of logging within it."""
        start, logging = time.perf_counter(), 0.0
        for step in range(arguments.steps):
            hidden = model.core(tokens[:, :-1])
            loss, _ = next_token_loss(hidden, model.head_weight, tokens[:, 1:])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 10 == 9:
                values = dict.fromkeys(NAMES, loss.item())
                began = time.perf_counter()
                log.log_metrics(values, step)
                logging += time.perf_counter() - began
        return time.perf_counter() - start, logging

    ways: dict[str, Callable[[str, Path | None, str], Sink]] = {
        "maquette": open_sink,
        "MLflow's log_batch": lambda uri, _, run_id: ServerSink(uri, run_id),
    }
    seconds: dict[str, list[float]] = {"no record": [], **{way: [] for way in ways}}
    inside, beside, points = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    stretch(RunLog())
    for _ in range(arguments.rounds):
        seconds["no record"].append(stretch(RunLog())[0])
        for way, make in ways.items():
            sinks: list[TimedSink] = []

            def timed(*where: Any, make: Any = make, sinks: list[TimedSink] = sinks) -> TimedSink:
                sinks.append(TimedSink(make(*where)))
                return sinks[0]

            with (
                mock.patch.object(record, "open_sink", timed),
                start_run(TrackingConfig(), outputs=folder, name=way, folder=folder, params={}, tags={}) as log,
            ):
                log.flush()
                whole, logging = stretch(log)
            seconds[way].append(whole)
            inside[way] += logging
            beside[way] += sinks[0].seconds
            points[way] += sinks[0].points
    print(
        f"{arguments.size} parameters, {BATCH} x {CONTEXT} tokens a step, {arguments.threads} thread(s), "
        f"{1e3 * statistics.median(seconds['no record']) / arguments.steps:.1f} ms a step"
    )
    print(f"{'':20}{'in the step':>12}{'beside it':>12}{'at most':>12}{'a point':>12}{'slower':>12}")
    for way in ways:
        total = sum(seconds[way])
        ratio = statistics.median(own / bare for own, bare in zip(seconds[way], seconds["no record"], strict=True))
        print(
            f"{way:20}{inside[way] / total:12.3%}{beside[way] / total:12.3%}{(inside[way] + beside[way]) / total:12.3%}"
            f"{1e6 * (inside[way] + beside[way]) / points[way]:9.0f} us{ratio - 1:12.1%}"
        )


def finding(runs: int, folder: Path) -> None:
    """Prints how long a table of many runs takes."""
    outputs = folder / "many"
    params = {f"setting.{number}": number for number in range(100)}
    with start_run(TrackingConfig(), outputs=outputs, name="run", folder=outputs, params=params, tags={}) as log:
        log.log_metrics({name: 1.0 for name in NAMES}, 1)
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as connection, connection:
        for table in ("runs", "params", "tags", "latest_metrics"):  # the others are copies of the first
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "run_uuid"]
            chosen = ", ".join(f'"{column}"' for column in columns)
            connection.executemany(
                f"INSERT INTO {table} (run_uuid, {chosen}) SELECT ?, {chosen} FROM {table} WHERE run_uuid = ?",
                [(f"{number:032x}", log.run_id) for number in range(runs - 1)],
            )
    client = open_client(f"sqlite:///{outputs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maquette")
    assert experiment is not None
    ours = min(_seconds(lambda: find_runs(outputs)) for _ in range(3))
    theirs = min(_seconds(lambda: client.search_runs([experiment.experiment_id], max_results=runs)) for _ in range(3))
    print(f"{runs} runs with {len(params)} parameters: find_runs {ours:.2f} s, MLflow's search_runs {theirs:.2f} s")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
