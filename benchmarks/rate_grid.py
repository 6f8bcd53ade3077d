"""The best learning rate over width, batch and token horizon: small runs, and the law through them.

    python benchmarks/rate_grid.py train     trains what benchmarks/results/rate_grid.csv does not have yet
    python benchmarks/rate_grid.py fit       prints the law and what it costs; draws it

Cells are (size, tokens, batch). In each the rate starts at the standard recipe's and at its double, and doubles or
halves until the best lies between two others. One process on one thread; about half an hour, a run at most a minute.
Some runs vary beta2, the cooldown or the seed at the recipe's rate instead.

The fit is joint: ln loss = cell + curvature x (ln rate - ln best)^2, the curvature shared and steeper above the best
than below it, ln best = a + b ln width + c ln(batch / 512) + d ln(tokens / 4e5). Intervals: bootstrap over cells.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROWS = Path(__file__).parent / "results" / "rate_grid.csv"
COLUMNS = [
    "group", "size", "params", "hidden_size", "tokens", "batch", "steps", "multiple", "rate", "beta2", "cooldown",
    "seed", "loss", "seconds", "commit", "cpu",
]  # fmt: skip
COMMON = [
    "source.limit=5000", "data.sequence_length=128", "data.validation_tokens=32768", "logger=none", "threads=1",
    "compile=off", "num_validations=1", "callbacks.samples.prompts=[]", "recipe.learning_rate=0.2",
    "recipe.lr_width_exponent=-1.0", "recipe.lr_batch_exponent=0.25",
]  # fmt: skip
"""The standard recipe of 2026-11, which the multiples refer to whatever the default becomes."""

CELLS = [
    ("20k", "100k", 128), ("20k", "400k", 512), ("60k", "300k", 256), ("20k", "1.6m", 512), ("180k", "450k", 384),
    ("20k", "400k", 128), ("60k", "1.2m", 512), ("60k", "300k", 512), ("20k", "400k", 1024), ("60k", "300k", 128),
    ("180k", "900k", 512), ("20k", "1.6m", 128), ("60k", "2.4m", 512), ("400k", "500k", 512), ("60k", "1.2m", 128),
    ("60k", "1.2m", 1024), ("20k", "100k", 256), ("20k", "1.6m", 2048),
]  # fmt: skip
"""Size, tokens and batch in tokens; the most telling first."""

FEWEST, MOST = -3, 5
"""Of the exponents of two that the recipe's rate is multiplied by."""

VARIANTS = [("20k", "100k", 128), ("20k", "400k", 512)]
BETA2 = [0.95, 0.98, 0.995, 0.999]
COOLDOWNS = [0.1, 0.2, 0.5]
"""Share of the tokens over which a warmed-up rate that stays at its peak falls at the end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "fit"])
    parser.add_argument("--outputs", default="outputs/rate_grid")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--minutes", type=float, default=60.0, help="train: no run starts after so many")
    arguments = parser.parse_args()
    if arguments.what == "train":
        grid = Grid(arguments.outputs, arguments.rows, time.monotonic() + 60 * arguments.minutes)
        for cell in CELLS:
            grid.walk(cell)
        for cell in VARIANTS:
            grid.vary(cell)
        for cell in CELLS[:4]:
            grid.walk(cell, seed=1)
    return 0


class Grid:
    """The rows on disk, and the runs that add to them."""

    def __init__(self, outputs: str, path: Path, deadline: float) -> None:
        self.outputs, self.path, self.deadline = outputs, path, deadline
        self.commit = subprocess.check_output(
            ["git", "rev-parse", "--short", "HEAD"], text=True, cwd=Path(__file__).parent
        ).strip()
        self.rows = read_rows(path)

    def walk(self, cell: tuple[str, str, int], seed: int = 0) -> None:
        """Trains with the rate times 1 and 2, and further down the slope until the best has a neighbour either side."""
        losses = {step: self.loss(cell, step, seed=seed) for step in (0, 1)}
        while True:
            best = min(losses, key=lambda step: losses[step])
            missing = [step for step in (best - 1, best + 1) if step not in losses and FEWEST <= step <= MOST]
            if not missing:
                return
            losses[missing[0]] = self.loss(cell, missing[0], seed=seed)

    def vary(self, cell: tuple[str, str, int]) -> None:
        """At twice the recipe's rate, near the best of small models: other second moments, other ends."""
        for beta2 in BETA2:
            self.loss(cell, 1, beta2=beta2)
        for cooldown in COOLDOWNS:
            self.loss(cell, 1, cooldown=cooldown)

    def loss(
        self, cell: tuple[str, str, int], step: int, *, seed: int = 0, beta2: float = 0.99, cooldown: float = 0.0
    ) -> float:
        """Held-out loss of one run, from the table or trained. `cooldown` 0 is the linear fall."""
        size, tokens, batch = cell
        key = {
            "group": f"{size}-{tokens}-{batch}", "multiple": f"{2.0**step:g}", "beta2": f"{beta2:g}",
            "cooldown": f"{cooldown:g}", "seed": f"{seed}",
        }  # fmt: skip
        for row in self.rows:
            if all(row[name] == value for name, value in key.items()):
                return float(row["loss"])
        if time.monotonic() > self.deadline:
            raise SystemExit("The time is up; the same command goes on.")
        row = key | self.train(cell, 2.0**step, seed, beta2, cooldown)
        self.rows.append(row)
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        return float(row["loss"])

    def train(
        self, cell: tuple[str, str, int], multiple: float, seed: int, beta2: float, cooldown: float
    ) -> dict[str, str]:
        from maquette.cli.command_line.composition import compose
        from maquette.cli.command_line.registry import STAGES

        size, tokens, batch = cell
        words = [
            f"outputs={self.outputs}", *COMMON, f"size={size}", f"tokens={tokens}", f"data.batch_size_tokens={batch}",
            f"recipe.learning_rate={0.2 * multiple:g}", f"seed={seed}", f"optimizer.betas=[0.9,{beta2:g}]",
        ]  # fmt: skip
        words += ["scheduler=wsd", f"scheduler.decay={cooldown:g}"] if cooldown else []
        stage, start = STAGES["train"], time.process_time()
        record: Any = stage.run(compose(stage, words))
        spec = record.spec
        return {
            "size": size, "params": f"{spec.size}", "hidden_size": f"{spec.architecture.hidden_size}",
            "tokens": f"{spec.tokens}", "batch": f"{spec.batch_size_tokens}", "steps": f"{spec.steps}",
            "rate": f"{spec.learning_rate:.6g}", "loss": f"{record.validation_loss:.6f}",
            "seconds": f"{time.process_time() - start:.1f}", "commit": self.commit, "cpu": processor(),
        }  # fmt: skip


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
