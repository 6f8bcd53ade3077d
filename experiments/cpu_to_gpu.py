"""A forecast that leaves the CPU: laws fitted there up to 1e13 FLOPs, predictions for a hundred to a thousand times as
much, written down and committed before a GPU trains the runs.

    python experiments/cpu_to_gpu.py predict            # on a CPU: the family, its fit, the predictions
    python experiments/cpu_to_gpu.py train minutes=8    # on a GPU, from a commit that has them; again to resume
    python experiments/cpu_to_gpu.py report             # the table, and the figure beside it
    python experiments/cpu_to_gpu.py predict --smoke    # tiny budgets; train --smoke then trains on the CPU

Further words of `predict` are settings of `maquette train` for the family. The text is packed into
`<outputs>/text.parquet`, which travels beside the repository and is tokenised where the run is; one that is made up
(source=synthetic_web) is made there from its seed. Predictions lie in benchmarks/results/cpu_to_gpu, their hashes in
predictions.txt: commit that folder, then train. Where the best size would read the text more than twice a larger one is
predicted, which reads it twice; where that would be over twice the best size the target is left out, and that is said.
Training that runs out of minutes saves, and the next call resumes it. Never run on a GPU so far.
"""

import csv
import io
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from maquette.artifacts.files import atomic_file, write_text
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.functions import function_of, sweep
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps.forecast import training_tokens
from maquette.cli.tokens import make_tokens
from maquette.corpus.document import write_documents
from maquette.corpus.sources import open_source
from maquette.corpus.workers import workers
from maquette.reports import quantity, terminal_table
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.scaling.fits.stored_fit import load_fit
from maquette.scaling.predictions.prediction import FOLDER, WrittenPrediction, find_written, read_predictions
from maquette.scaling.predictions.verdict import Verdict
from maquette.tracking.environment import hardware_name

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu_to_gpu"
MOST_EPOCHS = 2.0
_SAVING = 60.0  # seconds that a run has for its checkpoint when it is told to stop

COLUMNS = {
    "prediction": "prediction", "reach": "reach", "params": "N", "tokens": "D", "unique_tokens": "unique",
    "epochs": "epochs", "compute": "FLOPs", "predicted": "predicted", "low50": "50%", "high50": "to", "low90": "90%",
    "high90": "to", "observed": "observed", "trained_on": "trained on",
}  # fmt: skip


@dataclass
class Settings:
    """What the study alone has. `minutes`: of a call of `train`, tokenising included."""

    outputs: str = "outputs/cpu_to_gpu"
    results: str = str(RESULTS)
    budgets: list[float] = field(default_factory=lambda: [1e11, 3e11, 1e12, 3e12, 1e13])
    targets: list[float] = field(default_factory=lambda: [1e15, 3e15, 1e16])
    minutes: float = 8.0


FAMILY = ["data.sequence_length=128", "num_validations=2", "callbacks.samples.prompts=[]"]
SMOKE = {"outputs": "outputs/cpu_to_gpu_smoke", "results": "outputs/cpu_to_gpu_smoke/results",
         "budgets": [2e9, 4e9, 8e9], "targets": [1.6e10, 1e12]}  # fmt: skip
SMOKE_FAMILY = [
    "source.limit=120", "tokenizer=byte", "data.sequence_length=32", "data.batch_size_tokens=1024",
    "data.validation_tokens=1024", "num_validations=1", "sweep.sizes_per_budget=3", "compile=off",
    "hydra/launcher=basic",
]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """`predict`, `train` or `report`, then settings and `--smoke`. Gives the exit code."""
    words = [word for word in arguments if word != "--smoke"]
    smoke = len(words) < len(arguments)
    if not words or words[0] not in ("predict", "train", "report"):
        print(__doc__, file=sys.stderr)
        return 2
    own = [word for word in words[1:] if word.partition("=")[0] in Settings.__dataclass_fields__]
    others = [word for word in words[1:] if word not in own]
    if others and words[0] != "predict":
        print(f"{others[0]}: what is trained is what was predicted; give settings of runs to predict.", file=sys.stderr)
        return 2
    try:
        config: Any = OmegaConf.to_object(
            OmegaConf.merge(Settings, SMOKE if smoke else {}, OmegaConf.from_dotlist(own))
        )
    except OmegaConfBaseException as error:
        print(f"{str(error).splitlines()[0]}. Settings: {', '.join(Settings.__dataclass_fields__)}.", file=sys.stderr)
        return 2
    if words[0] == "predict":
        return predict(config, [*FAMILY, *(SMOKE_FAMILY if smoke else []), *others])
    return train(config, smoke) if words[0] == "train" else report(config)


# On the CPU -----------------------------------------------------------------------------------------------------------


def predict(config: Settings, words: list[str]) -> int:
    """Trains what is missing of the family, fits it, and writes down the predictions that are missing."""
    if Path(config.outputs).is_absolute():
        print(f"outputs={config.outputs} is a place of this machine, and predictions, which travel, would hold it. "
              "Give a folder relative to this one.", file=sys.stderr)  # fmt: skip
        return 2
    words = [f"outputs={config.outputs}", *words]
    words += packed_text(config, words)
    budgets = ",".join(f"{budget:g}" for budget in config.budgets)
    family = sweep(STAGES["train"], ["+sweep=isoflop", *words, f"sweep.budgets=[{budgets}]"])
    if family.exit_code:
        return family.exit_code
    at = words[:1]
    law = Path(function_of("fit")([*at, f"runs={family.name}"]))
    unique, fitted = unique_tokens(words), load_fit(law)[0]
    for target in config.targets:
        size = size_for(target, fitted.best(target).tokens, unique)
        if size is None:
            say(f"{target:.3g} FLOPs: left out. The best size would read over {2 * MOST_EPOCHS:g} times the "
                f"{quantity(unique)} tokens of text. source= gives it more.")  # fmt: skip
        elif find_written(config.outputs, read_manifest(law).digest, target) is None:
            function_of("predict")(
                [*at, f"fit={law}", f"compute={target:g}", f"size={size}", f"register={config.results}/predictions.txt"]
            )
    written = read_predictions(config.outputs)
    if not written:
        print("No target is left, so nothing was predicted: see above.", file=sys.stderr)
        return 1
    for one in written:
        carry(f"{config.outputs}/{FOLDER}/{one.id}.json", f"{config.results}/{one.id}.json")
    write_rows(config, [row_of(one, unique) for one in written])
    if code := report(config):
        return code
    text = f", with {config.outputs}/text.parquet beside it" if packed_text(config, words) else ""
    say(f"Commit {config.results} and push it; train from that commit on a GPU{text}.")
    return 0


def size_for(compute: float, tokens: float, unique: int) -> str | None:
    """The size to train with so much compute, whose best size reads so many `tokens`: that one (`null`) where the text
    lasts for it, a larger one that reads it `MOST_EPOCHS` times at most; None where that would be twice as large."""
    most = MOST_EPOCHS * unique
    if tokens <= 0.8 * most:  # shapes are rounded, and tokens with them
        return "null"
    return f"{compute / (6 * most):.0f}" if tokens <= 2 * most else None


def packed_text(config: Settings, words: list[str]) -> list[str]:
    """The settings that say where the text is: all documents of the source in one compressed file, which is written
    where it is missing. None for text that is made up from a seed."""
    source = stage_of(words).source
    if source.kind == "synthetic_web":
        return []
    path = Path(config.outputs) / "text.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with workers(stage_of(words).corpus.workers) as pool, atomic_file(path) as temporary:
            # by domain: each stretch of one is compressed by itself
            write_documents(temporary, sorted(open_source(source).documents(pool), key=lambda one: one.domain or ""))
    return ["source=parquet", f"source.path={path}", "source.limit=null"]


def stage_of(words: list[str]) -> TrainStage:
    config = compose(STAGES["train"], words)
    assert isinstance(config, TrainStage)
    return config


def unique_tokens(words: list[str]) -> int:
    """Distinct tokens of the training text."""
    return sum(training_tokens(make_tokens(stage_of(words)).folder).values())


def carry(source: str, target: str) -> None:
    """Copies a prediction there, unless it is there."""
    if not Path(target).exists():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)


# On the GPU -----------------------------------------------------------------------------------------------------------


def train(config: Settings, smoke: bool) -> int:
    """Trains the predicted runs, the smallest first, until the minutes are over, and judges each that is finished."""
    end = time.monotonic() + 60 * config.minutes
    rows = read_rows(config)
    if not rows:
        print(f"There are no predictions in {config.results}: predict first.", file=sys.stderr)
        return 1
    if not smoke and not torch.cuda.is_available():
        print("PyTorch finds no GPU here. --smoke trains what predict --smoke has predicted on a CPU.", file=sys.stderr)
        return 1
    at = f"outputs={config.outputs}"
    trainer = ["trainer=cpu", "compile=off"] if smoke else ["trainer=gpu"]
    for row in rows:
        carry(f"{config.results}/{row['prediction']}.json", f"{config.outputs}/{FOLDER}/{row['prediction']}.json")
    for row in sorted(rows, key=lambda row: float(row["compute"])):
        if row["observed"]:
            continue
        words = [at, f"prediction={row['prediction']}", *trainer, "callbacks.samples.prompts=[]"]
        code = until(end, [sys.executable, "-m", "maquette", "train", *words])
        if code is None:
            print(f"{config.minutes:g} minutes are over; the same command resumes {row['prediction']}.")
            break
        if code:
            return code
        (verdict,) = function_of("verify")([at, f"prediction={row['prediction']}"])
        row |= outcome_of(verdict)
        write_rows(config, rows)
    return report(config)


def until(end: float, command: list[str]) -> int | None:
    """The command's exit code; None where it was not done at `end` and was told to save and stop."""
    left = end - time.monotonic()
    if left <= 0:
        return None
    process = subprocess.Popen(command)
    try:
        return process.wait(left)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(_SAVING)
        except subprocess.TimeoutExpired:  # the next call resumes an older checkpoint
            process.kill()
            process.wait()
        return None
    except BaseException:  # Ctrl-C reaches the run too
        process.wait(_SAVING)
        raise


# What came out --------------------------------------------------------------------------------------------------------


def row_of(one: WrittenPrediction, unique: int) -> dict[str, str]:
    """A row before the run."""
    numbers = {
        "reach": f"{one.reach:.3g}", "params": f"{one.params:.0f}", "tokens": f"{one.tokens:.0f}",
        "unique_tokens": f"{unique}", "epochs": f"{one.tokens / unique:.2f}", "compute": f"{one.compute:.4g}",
        "predicted": f"{one.loss:.5f}",
    }  # fmt: skip
    for level, (low, high) in ((50, one.interval50), (90, one.interval90)):
        numbers |= {f"low{level}": f"{low:.5f}", f"high{level}": f"{high:.5f}"}
    return {"prediction": one.id, **numbers, "observed": "", "trained_on": ""}


def outcome_of(verdict: Verdict) -> dict[str, str]:
    return {"observed": f"{verdict.loss:.5f}", "trained_on": hardware_name()}


def rows_file(config: Settings) -> Path:
    return Path(config.results) / "rows.csv"


def read_rows(config: Settings) -> list[dict[str, str]]:
    path = rows_file(config)
    if not path.exists():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def write_rows(config: Settings, rows: list[dict[str, str]]) -> None:
    """What is known of outcomes stays."""
    known = {row["prediction"]: row for row in read_rows(config)}
    for row in rows:
        if not row["observed"] and row["prediction"] in known:
            row |= {name: known[row["prediction"]][name] for name in ("observed", "trained_on")}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(rows_file(config), text.getvalue())


def report(config: Settings) -> int:
    """Prints the table, and draws it."""
    rows = read_rows(config)
    if not rows:
        print(f"There are no predictions in {config.results}: predict first.", file=sys.stderr)
        return 1
    Console(width=None if sys.stdout.isatty() else 200).print(
        terminal_table(list(COLUMNS.values()), [list(row.values()) for row in rows])
    )
    print(draw(rows, Path(config.results) / "cpu_to_gpu"))
    return 0


def draw(rows: list[dict[str, str]], path: Path) -> Path:
    """Each interval over its compute, and what came out."""
    figure, axes = new_figure()
    for number, row in enumerate(sorted(rows, key=lambda row: float(row["compute"]))):
        compute, first = float(row["compute"]), number == 0
        for level, width in ((90, 1.5), (50, 5.0)):
            ends = [float(row[f"{end}{level}"]) for end in ("low", "high")]
            label = f"predicted, {level}%" if first else None
            axes.plot([compute, compute], ends, color=COLORS[0], linewidth=width, alpha=0.7, label=label)
        if row["observed"]:
            axes.plot(compute, float(row["observed"]), "o", color=COLORS[1], label="observed" if first else None)
    axes.set(xscale="log", xlabel="compute (FLOPs)", ylabel="loss (nats per token)", title="From the CPU to the GPU")
    axes.legend(frameon=False)
    return save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
