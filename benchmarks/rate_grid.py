"""The best learning rate over width, batch and tokens: small runs, and the law through them.

    python benchmarks/rate_grid.py train     trains what benchmarks/results/rate_grid.csv does not have yet
    python benchmarks/rate_grid.py fit       prints the law and what it costs; draws it

Cells are (size, tokens, batch). In each the rate starts at the standard recipe's and at its double, and doubles or
halves until the best lies between two others. One process on one thread; about half an hour, a run at most a minute.
Some runs vary beta2, the cooldown or the seed at the recipe's rate instead.

Of each cell the best rate is the minimum of a parabola in ln rate through the best run and its neighbours. The law is
ln best = a + b ln(width / 32) + c ln(batch / 512) + d ln(tokens / 1e6), fitted to these with deviations of .35 (a seed
moves a loss by .3%, and twice the best rate costs about 1%), .7 where the best run lies at an edge. So few cells
determine four numbers badly: b, c and d have priors as wide as what was published (-1 +- .5 for the width, .25 +- .25
for the batch, 0 +- .3 for the tokens). Delphi's (T0/T)^.3 is d = -.3.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maquette.tracking.environment import processor_name

ROWS = Path(__file__).parent / "results" / "rate_grid.csv"
COLUMNS = [
    "group", "size", "params", "hidden_size", "tokens", "batch", "steps", "multiple", "rate", "beta2", "cooldown",
    "warmup", "seed", "loss", "seconds", "commit", "cpu",
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

FEWEST, MOST = -1, 4
"""Of the exponents of two that the recipe's rate is multiplied by."""

VARIANTS = [("20k", "100k", 128), ("20k", "400k", 512)]
WARMED = [("60k", "300k", 256), ("20k", "400k", 512)]
BETA2 = [0.95, 0.98, 0.995, 0.999]
COOLDOWNS = [0.1, 0.2, 0.5]
"""Share of the tokens over which a warmed-up rate that stays at its peak falls at the end."""
WARMUP = 0.25
"""Share of the tokens over which the rate rises. A tenth of a thousand steps is too few for second moments that average
over a hundred: 2 / (1 - beta2) steps is the usual least (Ma and Yarats 2021, "On the adequacy of untuned warmup")."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "fit"])
    parser.add_argument("--outputs", default="outputs/rate_grid")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--minutes", type=float, default=60.0, help="train: no run starts after so many")
    arguments = parser.parse_args()
    if arguments.what == "train":
        grid = Grid(arguments.outputs, arguments.rows, time.monotonic() + 60 * arguments.minutes)
        for cell in WARMED:
            for seed in (0, 1):
                grid.loss(cell, 0, seed=seed)
                grid.loss(cell, np.log2(of_the_recipe(cell)), seed=seed, warmup=long_enough(cell))
        for cell in CELLS[:3]:
            grid.walk(cell)
        for cell in WARMED:
            grid.walk(cell, warmup=WARMUP)
        for warmup in (0.17, 0.4):
            grid.loss(WARMED[0], 1, warmup=warmup)
        for cell in CELLS[3:]:
            grid.walk(cell, warmup=long_enough(cell))
        for cell in VARIANTS:
            grid.vary(cell)
        for cell in CELLS[:4]:
            grid.walk(cell, seed=1, warmup=long_enough(cell))
    else:
        report(best_rates(arguments.rows))
    return 0


class Grid:
    """The rows on disk, and the runs that add to them."""

    def __init__(self, outputs: str, path: Path, deadline: float) -> None:
        self.outputs, self.path, self.deadline = outputs, path, deadline
        self.commit = subprocess.check_output(
            ["git", "rev-parse", "--short", "HEAD"], text=True, cwd=Path(__file__).parent
        ).strip()
        self.rows = read_rows(path)

    def walk(self, cell: tuple[str, str, int], *, seed: int = 0, warmup: float = 0.1) -> None:
        """Trains with the rate times 1 and 2, and further down the slope until the best has a neighbour either side."""
        losses = {step: self.loss(cell, step, seed=seed, warmup=warmup) for step in (0, 1)}
        while True:
            best = min(losses, key=lambda step: losses[step])
            missing = [step for step in (best - 1, best + 1) if step not in losses and FEWEST <= step <= MOST]
            if not missing:
                return
            losses[missing[0]] = self.loss(cell, missing[0], seed=seed, warmup=warmup)

    def vary(self, cell: tuple[str, str, int]) -> None:
        """At twice the recipe's rate, near the best of small models: other second moments, other ends."""
        for beta2 in BETA2:
            self.loss(cell, 1, beta2=beta2)
        for cooldown in COOLDOWNS:
            self.loss(cell, 1, cooldown=cooldown)

    def loss(self, cell: tuple[str, str, int], step: float, *, seed: int = 0, **other: float) -> float:
        """Held-out loss of one run, from the table or trained. `cooldown` 0 is the linear fall."""
        size, tokens, batch = cell
        settings = {"beta2": 0.99, "cooldown": 0.0, "warmup": 0.1} | other
        key = {"group": f"{size}-{tokens}-{batch}", "multiple": f"{2.0**step:.4g}", "seed": f"{seed}"}
        key |= {name: f"{value:g}" for name, value in settings.items()}
        for row in self.rows:
            if all(row[name] == value for name, value in key.items()):
                return float(row["loss"])
        if time.monotonic() > self.deadline:
            raise SystemExit("The time is up; the same command goes on.")
        row = key | self.train(cell, 2.0**step, seed, **settings)
        self.rows.append(row)
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        return float(row["loss"])

    def train(
        self, cell: tuple[str, str, int], multiple: float, seed: int, *, beta2: float, cooldown: float, warmup: float
    ) -> dict[str, str]:
        from maquette.cli.command_line.composition import compose
        from maquette.cli.command_line.registry import STAGES

        size, tokens, batch = cell
        words = [
            f"outputs={self.outputs}", *COMMON, f"size={size}", f"tokens={tokens}", f"data.batch_size_tokens={batch}",
            f"recipe.learning_rate={0.2 * multiple:g}", f"seed={seed}", f"optimizer.betas=[0.9,{beta2:g}]",
            f"recipe.warmup={warmup:g}",
        ]  # fmt: skip
        words += ["scheduler=wsd", f"scheduler.decay={cooldown:g}"] if cooldown else []
        stage, start = STAGES["train"], time.process_time()
        record: Any = stage.run(compose(stage, words))
        spec = record.spec
        return {
            "size": size, "params": f"{spec.size}", "hidden_size": f"{spec.architecture.hidden_size}",
            "tokens": f"{spec.tokens}", "batch": f"{spec.batch_size_tokens}", "steps": f"{spec.steps}",
            "rate": f"{spec.learning_rate:.6g}", "loss": f"{record.validation_loss:.6f}",
            "seconds": f"{time.process_time() - start:.1f}", "commit": self.commit, "cpu": processor_name(),
        }  # fmt: skip


def long_enough(cell: tuple[str, str, int]) -> float:
    """The share of a run that 300 steps are, at least a tenth and at most three."""
    from maquette.artifacts.settings import parse_quantity

    _, tokens, batch = cell
    return min(0.3, max(0.1, round(300 * batch / parse_quantity(tokens), 2)))


# The law --------------------------------------------------------------------------------------------------------------

OLDER = Path(__file__).parent.parent / "notebooks" / "data" / "learning_rate.csv"
INSIDE, EDGE = 0.35, 0.7
PRIOR = np.array([[np.log(0.01), 2.0], [-1.0, 0.5], [0.25, 0.25], [0.0, 0.3]])
"""Mean and deviation of a, b, c, d."""
NAMES = ("rate at width 32, 512 tokens a step, 1e6 tokens", "width exponent", "batch exponent", "token exponent")


class Best(NamedTuple):
    """The best rate of a cell, what the loss at the old recipe's rate is above the least, and whether it is an edge."""

    params: float
    width: float
    batch: float
    tokens: float
    rate: float
    cost: float
    edge: bool

    @property
    def terms(self) -> list[float]:
        return [1.0, *(float(np.log(value)) for value in (self.width / 32, self.batch / 512, self.tokens / 1e6))]


def best_rates(path: Path) -> list[Best]:
    """Of the cells that warm up for long enough, and of the older table's, on other text."""
    from maquette.scaling.laws.minimum import curve_minimum

    cells: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
    for row in read_rows(path):
        warm = int(row["steps"]) * float(row["warmup"]) >= 190
        if warm and row["beta2"] == "0.99" and row["cooldown"] == "0":
            values = (row[name] for name in ("params", "hidden_size", "batch", "tokens", "rate", "loss"))
            cells.setdefault((row["group"], row["seed"], row["warmup"]), []).append(tuple(map(float, values)))
    for row in read_rows(OLDER):
        if float(row["tokens"]) > 1e6:
            names = ("params", "hidden_size", "batch_size_tokens", "tokens", "learning_rate", "loss")
            cells.setdefault((row["params"], "older"), []).append(tuple(float(row[name]) for name in names))
    bests = []
    for rows in cells.values():
        rows.sort(key=lambda one: one[4])
        at = min(range(len(rows)), key=lambda index: rows[index][5])
        near = rows[max(0, min(at - 1, len(rows) - 3)) :][:3]
        if len(near) < 3:
            continue
        rates, losses = (np.log([one[place] for one in near]) for place in (4, 5))
        least = curve_minimum(rates, losses)
        _, width, batch, *_ = near[0]
        recipe = np.log(0.2 / width * (batch / 512) ** 0.25)
        cost = float(np.interp(recipe, rates, losses) - least.y)
        bests.append(Best(*near[0][:4], float(np.exp(least.x)), cost, bool(least.edge)))
    return bests


def report(cells: list[Best]) -> None:
    """Prints the law with 90% intervals, and each cell's best beside the law's and the old recipe's."""
    terms = np.array([cell.terms for cell in cells])
    weight = np.array([EDGE if cell.edge else INSIDE for cell in cells]) ** -2.0
    precision = terms.T @ (terms * weight[:, None]) + np.diag(PRIOR[:, 1] ** -2)
    covariance = np.linalg.inv(precision)
    logs = np.log([cell.rate for cell in cells])
    law = covariance @ (terms.T @ (weight * logs) + PRIOR[:, 0] / PRIOR[:, 1] ** 2)
    half = 1.645 * np.sqrt(np.diag(covariance))
    for place, name in enumerate(NAMES):
        values = law[place] + half[place] * np.array([0, -1, 1])
        values = np.exp(values) if place == 0 else values
        print(f"{name}: {values[0]:.4g} (90%: {values[1]:.4g} to {values[2]:.4g})")
    for cell, expected in zip(cells, np.exp(terms @ law), strict=True):
        recipe = 0.2 / cell.width * (cell.batch / 512) ** 0.25
        print(
            f"N {cell.params:7.0f} D {cell.tokens:8.0f} batch {cell.batch:5.0f}: best {cell.rate:.4f}"
            f"{' (edge)' if cell.edge else ''}, law {expected:.4f}, 0.2 / width {recipe:.4f}, "
            f"which costs {cell.cost:.2%}"
        )


def of_the_recipe(cell: tuple[str, str, int]) -> float:
    """The rate of today's recipe, as a multiple of the old one's."""
    from maquette.recipe import DEFAULT_RULES

    width = {"20k": 14, "60k": 32, "180k": 56, "400k": 80}[cell[0]]
    old = 0.2 / width * (cell[2] / 512) ** 0.25
    return DEFAULT_RULES.peak_learning_rate(width, cell[2]) / old


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
