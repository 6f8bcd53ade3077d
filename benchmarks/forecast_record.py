"""The record of forecasts: independent laws, each with one prediction at ten times its compute, written before the run.

    python benchmarks/forecast_record.py train       trains what results/forecast_record.csv does not have yet
    python benchmarks/forecast_record.py train --reach 100 --laws 40,45,47,72
    python benchmarks/forecast_record.py train --ladder 1e14 --laws 84      and --reach 100: up to 1e14 FLOPs
    python benchmarks/forecast_record.py report      prints the table, and draws docs/forecast_record.png and .svg
    python benchmarks/forecast_record.py again       what today's predictor would have said, for families that are kept

A law is a seed, a part of the corpus, an architecture and a context of its own: an IsoFLOP family of small runs, fitted
by `maquette fit`, a prediction by `maquette predict` at the size that the family's recipe expects to be best, the run,
and `maquette verify`. All in one process on one thread; a law is one observation however many runs it has. Runs are
found again where they are finished, rows are appended as verdicts come, and the family's runs to
results/forecast_families.csv.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta, norm, t

from maquette.tracking.environment import processor_name

ROWS = Path(__file__).parent / "results" / "forecast_record.csv"
FAMILIES = ROWS.with_name("forecast_families.csv")
FIGURE = Path(__file__).parent.parent / "docs" / "forecast_record"
COLUMNS = [
    "ladder", "law", "part", "model", "context", "seed", "runs", "reach", "params", "tokens", "compute", "predicted",
    "low50", "high50", "low90", "high90", "observed", "form", "prediction", "written", "seconds", "commit", "cpu",
    *(f"{kind}_{column}" for kind in ("new", "miss", "hit") for column in ("predicted", "low90", "high90", "observed")),
]  # fmt: skip

PARTS = {"all": [], "code": ["mixture.weights={code:1}"], "docs": ["mixture.weights={docs:1}"]}
MODELS = {
    "transformer": [],
    "gelu": ["model.activation=gelu"],
    "lstm": ["model=lstm"],
    "qk norm": ["model.qk_norm=true"],
}
SHALLOW = ["model.num_hidden_layers=1", "model.num_attention_heads=2", "model.head_dim=32"]
CONTEXTS = (128, 64, 256)
COMMON = [
    "source.limit=5000", "data.validation_tokens=32768", "threads=1", "compile=off",
    "num_validations=1", "callbacks.samples.prompts=[]", "hydra/launcher=basic",
]  # fmt: skip

RUN = {
    "budget": "budget", "params": "N", "tokens": "D", "compute": "C", "loss": "loss", "train_loss": "train/loss",
    "new": "token_kinds/new_loss", "miss": "token_kinds/miss_loss", "hit": "token_kinds/hit_loss",
    "copying_score": "copying/score", "unigram_entropy": "unigram_entropy",
}  # fmt: skip
"""Columns of a family's runs, and what they are called in a fit's runs.csv."""

FAMILY_COLUMNS = ["ladder", "law", "part", "model", "context", "seed", *RUN]

LADDERS = {
    "bytes 3e9": (["tokenizer=byte"], ["3e9", "1e10", "3e10"]),
    "bpe-512 1e10": (["tokenizer.vocab_size=512"], ["1e10", "3e10", "1e11"]),
    "bpe-512 1e10 wide": (["tokenizer.vocab_size=512", "tokens_per_parameter=10"], ["1e10", "3e10", "1e11"]),
    "one layer": (SHALLOW, ["3e10", "6e10", "1.2e11", "3e11"]),
    "demo m=2": ([], ["3e10", "6e10", "1.2e11", "3e11"]),
    "1e14 m=2.5": (["source.limit=null"], ["3e10", "1e11", "3e11", "1e12"]),
    "demo m=2.5": ([], ["3e10", "6e10", "1.2e11", "3e11"]),
    "demo m=3": ([], ["3e10", "6e10", "1.2e11", "3e11"]),
    "demo": ([], ["3e10", "6e10", "1.2e11", "3e11"]),
    "1e14": (["source.limit=null"], ["3e10", "1e11", "3e11", "1e12"]),
}
"""Tokenizer and budgets of a family. All but `demo` and `1e14` are behind us, and show what was learnt. On bytes from
3e9 FLOPs the loss still falls faster with every budget, as models go from which byte follows which to words: such laws
predict too high a loss. With 512 tokens and sizes around 20 tokens a parameter the largest of the four sizes was the
best at 3e10 and 1e11 FLOPs; `wide` sets the sizes around 10. Their models `llama` and `gelu` had no token shift:
attention learns to look at the previous token somewhere between 1e11 and 1e12 FLOPs, and what the loss then gains no
law sees before (5 to 8%). `demo` is the family of `maquette demo`; `demo m=2` and `demo m=2.5` the same under a plateau
that was held to give way by powers of 2 and of 2.5, where today's predictor fits the power, near 2.5 (`demo m=3`: near
3). Laws of `demo m=2.5` begin at 12, those of `demo` at 37. `1e14` is for the longest reach: all text that is
installed, so that 1e14 FLOPs see none of it twice; law 20 is the text that repeats itself least (documentation,
context 64: 6% of its tokens repeat what followed in the context, 14% of the default's). `one layer` was to learn to
copy within the family, and does not; its law 33 is all text, context 128."""


LIKE_THE_DEMO = ("demo", "demo m=3", "demo m=2.5")
"""Ladders of the demo's family whose predictors differ in the plateau alone, and little in what they say at 10x."""


class Law(NamedTuple):
    """What sets one law apart."""

    number: int
    part: str
    model: str
    context: int
    seed: int

    @property
    def words(self) -> list[str]:
        """As overrides of `maquette train`."""
        return [
            *PARTS[self.part], *MODELS[self.model], f"data.sequence_length={self.context}",
            f"seed={self.seed}",
        ]  # fmt: skip


def law(number: int) -> Law:
    """Parts, models and contexts in turn, so that any twelve laws have every pair of part and model; from 32 to 35
    parts alone."""
    part = list(PARTS)[number % 3]
    if 32 <= number < 36:
        return Law(number, part, "transformer", CONTEXTS[0], number)
    return Law(number, part, list(MODELS)[number % 4], CONTEXTS[(number // 3 + number // 12) % 3], number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "report", "again"])
    parser.add_argument("--outputs", default="outputs/forecast_record")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--laws", type=numbers, default=list(range(37, 49)), help="train: as 37-48 or 37,40 (37-48)")
    parser.add_argument("--ladder", choices=list(LADDERS), default="demo")
    parser.add_argument("--reach", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=60.0, help="train: no law starts after so many")
    arguments = parser.parse_args()
    if arguments.what == "report":
        return report_all(read_rows(arguments.rows))
    if arguments.what == "again":
        return predict_again(read_rows(arguments.rows))
    deadline = time.monotonic() + 60 * arguments.minutes
    done = {(row["ladder"], f"{float(row['reach']):.0e}", int(row["law"])) for row in read_rows(arguments.rows)}
    for number in arguments.laws:
        if (arguments.ladder, f"{arguments.reach:.0e}", number) not in done and time.monotonic() < deadline:
            append(arguments.rows, forecast(law(number), arguments))
    return 0


def numbers(text: str) -> list[int]:
    """12-31 or 12,15."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if last else [int(word) for word in text.split(",")]


def forecast(one: Law, arguments: argparse.Namespace) -> dict[str, Any]:
    """The row of a law: its family, the prediction, the run and the verdict, as far as they are not there yet."""
    from maquette.cli.command_line.functions import function_of, sweep
    from maquette.cli.command_line.registry import STAGES
    from maquette.scaling.predictions.prediction import read_predictions

    start = time.process_time()
    # Outputs of their own: the digests of one law's predictions chain, and a fit must not see another law's runs.
    tokenizer, budgets = LADDERS[arguments.ladder]
    outputs = f"{arguments.outputs}/{arguments.ladder.replace(' ', '-')}/law{one.number}"
    share_artifacts(Path(arguments.outputs), Path(outputs))
    at = [f"outputs={outputs}"]
    family = sweep(
        STAGES["train"],
        ["+sweep=isoflop", *at, *COMMON, *tokenizer, *one.words, f"sweep.budgets=[{','.join(budgets)}]"],
    )
    if family.exit_code:
        raise SystemExit(f"Runs of law {one.number} failed; the same command goes on.")
    compute = arguments.reach * max(float(budget) for budget in budgets)
    written = [one for one in read_predictions(outputs) if 0.9 < one.compute / compute < 1.1]
    if written:
        prediction = written[-1]
    else:
        fit = function_of("fit")([*at, f"runs={family.name}"])
        keep_family(one, arguments.ladder, fit)
        prediction = function_of("predict")([*at, f"fit={fit}", f"compute={compute:g}"])
    function_of("train")(
        [*at, f"prediction={prediction.id}", "threads=1", "compile=off", "callbacks.samples.prompts=[]"]
    )
    (verdict,) = function_of("verify")([*at, f"prediction={prediction.id}"])
    cost = time.process_time() - start
    return one._asdict() | kinds(verdict.parts) | {
        "ladder": arguments.ladder, "law": one.number, "runs": len(prediction.runs), "reach": f"{arguments.reach:g}",
        "params": f"{prediction.params:.0f}", "tokens": f"{prediction.tokens:.0f}",
        "compute": f"{prediction.compute:.4g}",
        "predicted": f"{prediction.loss:.5f}", "low50": f"{prediction.interval50[0]:.5f}",
        "high50": f"{prediction.interval50[1]:.5f}", "low90": f"{prediction.interval90[0]:.5f}",
        "high90": f"{prediction.interval90[1]:.5f}", "observed": f"{verdict.loss:.5f}", "form": prediction.form,
        "prediction": prediction.digest, "written": prediction.created, "seconds": f"{cost:.0f}",
        "commit": commit(), "cpu": processor_name(),
    }  # fmt: skip


def keep_family(one: Law, ladder: str, fit: Path) -> None:
    """Appends the runs that the fit rests on, so that a later predictor can be asked about them; once."""
    if any((run["ladder"], run["law"]) == (ladder, str(one.number)) for run in read_rows(FAMILIES)):
        return
    with (fit / "runs.csv").open(newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    row = one._asdict() | {"ladder": ladder, "law": one.number}
    for run in runs:
        append(FAMILIES, row | {name: f"{float(run[column]):.7g}" for name, column in RUN.items()}, FAMILY_COLUMNS)


def kinds(parts: Any) -> dict[str, str]:
    """Of a verdict's parts, the loss of new tokens, misses and hits, predicted and observed."""
    row = {}
    for part in parts:
        kind, _, of_tokens = part.name.partition(" ")
        if of_tokens == "tokens":
            values = (part.predicted, *part.interval90, part.observed)
            names = ("predicted", "low90", "high90", "observed")
            row |= {f"{kind}_{name}": f"{value:.5f}" for name, value in zip(names, values, strict=True)}
    return row


def share_artifacts(shared: Path, outputs: Path) -> None:
    """One corpus, tokenizer and encoding for all laws."""
    outputs.mkdir(parents=True, exist_ok=True)
    (shared / "artifacts").mkdir(parents=True, exist_ok=True)
    if not (outputs / "artifacts").exists():
        (outputs / "artifacts").symlink_to((shared / "artifacts").absolute(), target_is_directory=True)


def append(path: Path, row: dict[str, Any], columns: Sequence[str] = COLUMNS) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def commit() -> str:
    return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=ROWS.parent).strip()


# What the rows say ----------------------------------------------------------------------------------------------------


def report_all(rows: list[dict[str, str]]) -> int:
    """Each ladder by itself, and a figure of all: laws of a ladder that begins too low are no record of another."""
    if not rows:
        print("There are no rows yet: python benchmarks/forecast_record.py train")
        return 1
    rows = sorted(rows, key=lambda row: (-list(LADDERS).index(row["ladder"]), float(row["reach"]), int(row["law"])))
    for _, some in groupby(rows, key=lambda row: (row["ladder"], row["reach"])):
        report(list(some))
    draw(rows)
    return 0


def report(rows: list[dict[str, str]]) -> None:
    """Prints errors, bias, coverage, PIT and sharpness of one ladder's laws at one reach."""
    print(f"\n{rows[0]['ladder']}")
    column = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS[11:17]}
    error = np.log(column["observed"] / column["predicted"])
    pit = transform(column)
    for row, value, place in zip(rows, error, pit, strict=True):
        name = f"{row['law']:>3} {row['part']:5}{row['model']:12}{row['context']:>4}"
        print(
            f"{name}  {row['predicted']} (90%: {row['low90']} to {row['high90']})  {row['observed']}  {value:+.2%}"
            f"  {place:.2f}"
        )
    count = len(rows)
    print(f"{count} laws, {rows[0]['reach']} times the compute of the family")
    print(f"median error {np.median(np.abs(error)):.2%}, largest {np.abs(error).max():.2%}")
    if count > 1:
        half = float(t.ppf(0.95, count - 1) * error.std(ddof=1) / np.sqrt(count))
        print(f"bias {error.mean():+.2%} (90%: {error.mean() - half:+.2%} to {error.mean() + half:+.2%})")
    for level in (50, 90):
        inside = int(
            np.sum((column["observed"] >= column[f"low{level}"]) & (column["observed"] <= column[f"high{level}"]))
        )
        low, high = share_interval(inside, count)
        width = np.median((column[f"high{level}"] - column[f"low{level}"]) / column["predicted"])
        print(
            f"inside {level}%: {inside} of {count} ({inside / count:.0%}; 90%: {low:.0%} to {high:.0%}); "
            f"median half width {width / 2:.2%}"
        )
    print("PIT in fifths:", *np.histogram(pit, 5, (0, 1))[0])
    for kind in ("new", "miss", "hit"):
        if known := [row for row in rows if row[f"{kind}_observed"]]:
            predicted, low, high, observed = (
                np.array([float(row[f"{kind}_{name}"]) for row in known])
                for name in ("predicted", "low90", "high90", "observed")
            )
            errors, inside = np.log(observed / predicted), int(np.sum((low <= observed) & (observed <= high)))
            print(
                f"{kind} tokens: median error {np.median(np.abs(errors)):.2%}, bias {errors.mean():+.2%}, "
                f"inside 90%: {inside} of {len(known)}"
            )


def predict_again(rows: list[dict[str, str]]) -> int:
    """What today's predictor says of each run whose family is kept, beside what was said before it, and what came out.
    No forecast: the runs were known when it was made."""
    from maquette.scaling import fit_kinds, fit_predictor

    families = {
        key: list(some) for key, some in groupby(read_rows(FAMILIES), key=lambda run: (run["ladder"], run["law"]))
    }
    for row in rows:
        if (key := (row["ladder"], row["law"])) not in families:
            continue
        column = {name: np.array([float(run[name]) for run in families[key]]) for name in RUN}
        size = column["params"], column["tokens"]
        about = {"budgets": column["budget"], "copying": column["copying_score"],
                 "unigram_entropy": float(column["unigram_entropy"][0])}  # fmt: skip
        kinds = {name: column[name] for name in ("new", "miss", "hit")}
        target = [float(row[name]) for name in ("params", "tokens", "compute")]
        law = fit_predictor(*size, column["loss"], column["compute"], **about)
        mixture = fit_kinds(*size, kinds, column["loss"], column["compute"], **about)
        today = mixture.reach_down(law.predict(*target), *target)
        low, high = today.intervals[0.9]
        before, after = (np.log(float(row["observed"]) / float(loss)) for loss in (row["predicted"], today.loss))
        print(
            f"{row['ladder']:11}{row['law']:>3} {row['reach']:>3}x {row['part']:5}{row['model']:12}{row['context']:>4}"
            f"  {row['predicted']} ({before:+.1%})  today {today.loss:.3f} (90%: {low:.3f} to {high:.3f}; {after:+.1%})"
            f"  {row['observed']}"
        )
    return 0


def transform(column: dict[str, np.ndarray]) -> np.ndarray:
    """Where each observation lies in its forecast's distribution, 0 to 1: uniform where forecasts are calibrated.

    Of a forecast five quantiles are known; between them, and beyond, normal quantiles go straight with the log loss.
    """
    names = ("low90", "low50", "predicted", "high50", "high90")
    places = norm.ppf([0.05, 0.25, 0.5, 0.75, 0.95])
    values = []
    for index, observed in enumerate(np.log(column["observed"])):
        knots = np.log([column[name][index] for name in names])
        place = np.interp(observed, knots, places)
        if observed < knots[0]:
            place = places[0] + (observed - knots[0]) * (places[1] - places[0]) / (knots[1] - knots[0])
        if observed > knots[-1]:
            place = places[-1] + (observed - knots[-1]) * (places[-1] - places[-2]) / (knots[-1] - knots[-2])
        values.append(norm.cdf(place))
    return np.array(values)


def share_interval(inside: int, count: int) -> tuple[float, float]:
    """Jeffreys's 90% interval of a share."""
    low, high = beta.ppf([0.05, 0.95], inside + 0.5, count - inside + 0.5)
    return (0.0 if inside == 0 else float(low)), (1.0 if inside == count else float(high))


def draw(rows: list[dict[str, str]]) -> None:
    """Left each law's interval and what came out, over the prediction; right the histogram of PIT."""
    from maquette.reports.figures import COLORS, name_rows, new_figure, save_figure

    column = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS[11:17]}
    error = 100 * np.log(column["observed"] / column["predicted"])
    ladders = [f"{row['ladder']}, {float(row['reach']):.0f}x" for row in rows]
    figure, (left, right) = new_figure(1, 2, width=5.2, height=0.6 + 0.26 * max(len(rows), 8))
    for place in range(len(rows)):
        for level, width in ((90, 1.5), (50, 4.0)):
            ends = [
                100 * np.log(column[f"{end}{level}"][place] / column["predicted"][place]) for end in ("low", "high")
            ]
            left.plot(ends, [place, place], color=COLORS[0], linewidth=width, alpha=0.7)
    left.plot(error, range(len(rows)), "o", color=COLORS[1], markersize=5)
    left.axvline(0, color="0.5", linewidth=0.8)
    words = [
        f"{name}: {row['part']}, {row['model']}, {row['context']}" for name, row in zip(ladders, rows, strict=True)
    ]
    name_rows(left, words)
    left.set(xlabel="% of the predicted loss", title=f"{len(rows)} forecasts (50%, 90%), and observed")
    groups = np.array([
        "all at 100x" if float(row["reach"]) > 10 else "demo, 10x" if row["ladder"] in LIKE_THE_DEMO else "others, 10x"
        for row in rows
    ])  # fmt: skip
    pits = [transform({name: values[groups == one] for name, values in column.items()}) for one in np.unique(groups)]
    right.hist(pits, 5, range=(0, 1), stacked=True, color=COLORS[: len(pits)], label=list(np.unique(groups)))
    right.axhline(len(rows) / 5, color="0.5", linewidth=0.8)
    right.legend(fontsize=8)
    right.set(xlabel="place in the forecast's distribution", ylabel="forecasts", title="PIT: level where calibrated")
    print(save_figure(figure, FIGURE))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
