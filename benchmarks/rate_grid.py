"""The best learning rate over width, batch and token horizon: small runs, and the law through them.

    python benchmarks/rate_grid.py train     trains what benchmarks/results/rate_grid.csv does not have yet
    python benchmarks/rate_grid.py fit       prints the law and what it costs; draws it

Cells are (size, tokens, batch). In each the rate starts at the standard recipe's and at its double, and doubles or
halves until the best lies between two others. One process on one thread; about half an hour, a run at most a minute.
Some runs vary beta2, the cooldown or the seed at the recipe's rate instead.

The fit is joint over cells: ln loss = cell + curvature x (ln rate - ln best)^2, the curvature shared, and one above the
best and another below it; ln best = a + b ln(width / 32) + c ln(batch / 512) + d ln(tokens / 1e6). So few cells
determine a law badly: b, c and d have priors as wide as what was published (-1 +- .5 for the width, .25 +- .25 for the
batch, 0 +- .3 for the tokens). Intervals: bootstrap over cells. (T0/T)^.3 of Delphi is d = -.3.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

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

FEWEST, MOST = -3, 5
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
        report(fit_rows(arguments.rows))
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

    def loss(self, cell: tuple[str, str, int], step: int, *, seed: int = 0, **other: float) -> float:
        """Held-out loss of one run, from the table or trained. `cooldown` 0 is the linear fall."""
        size, tokens, batch = cell
        settings = {"beta2": 0.99, "cooldown": 0.0, "warmup": 0.1} | other
        key = {"group": f"{size}-{tokens}-{batch}", "multiple": f"{2.0**step:g}", "seed": f"{seed}"}
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
            "seconds": f"{time.process_time() - start:.1f}", "commit": self.commit, "cpu": processor(),
        }  # fmt: skip


def long_enough(cell: tuple[str, str, int]) -> float:
    """The share of a run that 300 steps are, at least a tenth and at most three."""
    from maquette.artifacts.settings import parse_quantity

    _, tokens, batch = cell
    return min(0.3, max(0.1, round(300 * batch / parse_quantity(tokens), 2)))


# The law --------------------------------------------------------------------------------------------------------------

OLDER = Path(__file__).parent.parent / "notebooks" / "data" / "learning_rate.csv"
NEAR = np.log(2.9)
"""Rates farther from a cell's best in ln are left out: there the loss is no parabola."""
NOISE = 0.004
PRIOR = np.array([[np.log(0.01), 2.0], [-1.0, 0.5], [0.25, 0.25], [0.0, 0.3]])
"""Mean and deviation of a, b, c, d."""
NAMES = ("rate at width 32, 512 tokens a step, 1e6 tokens", "width exponent", "batch exponent", "token exponent")


def fit_rows(path: Path) -> dict[str, np.ndarray]:
    """Columns of the runs that the law is fitted to: those that warm up long enough, and an older table's."""
    cells: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in read_rows(path):
        steps, warmup = int(row["steps"]), float(row["warmup"])
        plain = row["beta2"] == "0.99" and row["cooldown"] == "0"
        if plain and steps * warmup >= 150:
            values = [float(row[name]) for name in ("hidden_size", "batch", "tokens", "rate", "loss", "params")]
            cells.setdefault((row["group"], row["seed"] + row["warmup"]), []).append(tuple(values))
    for row in read_rows(OLDER):
        if float(row["tokens"]) > 1e6:
            names = ("hidden_size", "batch_size_tokens", "tokens", "learning_rate", "loss", "params")
            cells.setdefault((row["params"], "older"), []).append(tuple(float(row[name]) for name in names))
    columns: list[tuple[float, ...]] = []
    for index, rows in enumerate(cells.values()):
        best = min(rows, key=lambda one: one[4])
        near = [one for one in rows if abs(np.log(one[3] / best[3])) < NEAR]
        if len(near) > 1:
            columns += [(index, *one) for one in near]
    names = ("cell", "width", "batch", "tokens", "rate", "loss", "params")
    return dict(zip(names, np.array(columns).T, strict=True))


def fit_law(data: dict[str, np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
    """a, b, c, d and the two curvatures' logarithms, (6,)."""
    cells, index = np.unique(data["cell"], return_inverse=True)
    weight = np.ones(len(cells)) if weights is None else weights
    terms = np.stack(
        [np.ones(len(index)), *(np.log(data[name] / base) for name, base in
                                (("width", 32.0), ("batch", 512.0), ("tokens", 1e6)))]
    )  # fmt: skip
    rate, loss = np.log(data["rate"]), np.log(data["loss"])
    at_best = np.array([loss[index == cell].min() for cell in range(len(cells))])

    def residuals(theta: np.ndarray) -> np.ndarray:
        away = rate - theta[:4] @ terms
        curvature = np.exp(np.where(away > 0, theta[4], theta[5]))
        left = loss - curvature * away**2 - theta[6:][index]
        return np.concatenate([
            np.sqrt(weight[index]) * left / NOISE, (theta[:4] - PRIOR[:, 0]) / PRIOR[:, 1],
            (theta[4:6] - np.log(0.02)) / 1.0,
        ])  # fmt: skip

    start = np.concatenate([PRIOR[:, 0], np.log([0.02, 0.02]), at_best])
    return np.asarray(least_squares(residuals, start, loss="soft_l1").x[:6])


def report(data: dict[str, np.ndarray]) -> None:
    """Prints the law with intervals, and each cell's best by the law beside its best run."""
    law = fit_law(data)
    cells = np.unique(data["cell"])
    generator = np.random.default_rng(0)
    samples = np.array([
        fit_law(data, generator.multinomial(len(cells), np.full(len(cells), 1 / len(cells))).astype(float))
        for _ in range(200)
    ])  # fmt: skip
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)
    print(f"{len(data['loss'])} runs in {len(cells)} cells")
    for place, name in enumerate(NAMES):
        values = np.array([law[place], low[place], high[place]])
        values = np.exp(values) if place == 0 else values
        print(f"{name}: {values[0]:.4g} (90%: {values[1]:.4g} to {values[2]:.4g})")
    above, below = (np.expm1(np.exp(law[place]) * np.log(2) ** 2) for place in (4, 5))
    print(f"twice the best rate costs {above:.2%}, half of it {below:.2%}")
    for cell in cells:
        rows = data["cell"] == cell
        best = np.flatnonzero(rows)[data["loss"][rows].argmin()]
        width, batch, tokens, params = (data[name][best] for name in ("width", "batch", "tokens", "params"))
        factors = np.array([1.0, np.log(width / 32), np.log(batch / 512), np.log(tokens / 1e6)])
        recipe = 0.2 / width * (batch / 512) ** 0.25
        print(
            f"N {params:7.0f} D {tokens:8.0f} batch {batch:5.0f}: best run {data['rate'][best]:.4f}, "
            f"law {np.exp(law[:4] @ factors):.4f}, 0.2 / width {recipe:.4f}"
        )


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
