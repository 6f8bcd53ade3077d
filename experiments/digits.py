"""Digits one by one against three together: does a tokenizer that makes 327 one token hurt arithmetic?

    python experiments/digits.py                    # seeds=[0,1,2] digits=[1,3] largest=99 compute=6e10 ...

Models of one core learn sums from scratch, at equal compute, with vocabularies whose longest group of digits is one
token or three (Singh and Strouse 2024, "Tokenization counts"). Sums are at most `largest`, below 1000, so that three
together cut no number in two; held-out sums are of pairs that no training text has. Counted is how often the greedy
answer is exactly right. Rows are written as they come; run it again to resume.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from collapse import stage, write_rows
from omegaconf import OmegaConf
from rich.console import Console

from maquette.artifacts.files import digest, write_text
from maquette.artifacts.progress import say
from maquette.model.generation import generate
from maquette.model.loading import load_checkpoint
from maquette.model.sampling import Sampling
from maquette.reports import terminal_table
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.statistics import mean_over_seeds
from maquette.tracking.config import TrackingConfig
from maquette.training.record import RunRecord

_LINES = 16  # sums of a document
_HELD_OUT = 0.1  # of all pairs
_LEVEL = 0.95


@dataclass
class Settings:
    outputs: str = "outputs"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # of the sums, weights and order
    digits: list[int] = field(default_factory=lambda: [1, 3])  # longest group of digits that is one token
    largest: int = 99  # of a sum; 999 takes many times the compute
    sums: int = 50_000  # different ones to learn at most
    questions: int = 300  # held-out ones
    hidden_size: int = 32
    layers: int = 2
    compute: str = "6e10"  # FLOPs of each model
    vocab_size: int = 400  # the most: as many as the digits allow


def run(config: Settings) -> Path:
    """Trains and asks what is missing; returns the folder with `digits.csv` and the figure."""
    if wrong := [group for group in config.digits if group not in (1, 2, 3)]:
        raise SystemExit(f"digits={wrong[0]} is not known: groups have 1 to 3 digits.")
    apart = ("outputs", "tracking", "seeds", "digits")
    settings = {key: value for key, value in vars(config).items() if key not in apart}
    folder = Path(config.outputs) / "digits" / digest(settings)[:8]
    rows: list[dict[str, Any]] = []
    for seed in config.seeds:
        train, held_out = split_sums(config.largest, random.Random(f"sums {seed}"))
        train, questions = train[: config.sums], held_out[: config.questions]
        for group in config.digits:
            record = train_model(config, folder, train, held_out, seed, group)
            right, off = ask(record, questions)
            row = {"digits": group, "seed": seed, "accuracy": right, "off": off, "tokens": record.spec.tokens}
            compared = {"bits_per_byte": record.bits_per_byte, "compute": record.spec.compute, "N": record.spec.size}
            made = {"run": record.name, "git_commit": record.git_commit, "hardware": record.hardware}
            rows.append(row | compared | made)
            write_text(folder / "digits.csv", pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    picture = draw(table, folder / "figures" / "digits")
    Console().print(terminal_table(COLUMNS, summary(table), f"held-out sums, {_LEVEL:.0%} intervals over seeds"))
    say(f"{folder / 'digits.csv'}; {picture}")
    return folder


def split_sums(largest: int, numbers: random.Random) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """All pairs whose sum is at most `largest`, in a drawn order: those to learn, and those to ask."""
    pairs = [(first, second) for first in range(largest + 1) for second in range(largest + 1 - first)]
    numbers.shuffle(pairs)
    held_out = max(1, int(_HELD_OUT * len(pairs)))
    return pairs[held_out:], pairs[:held_out]


def sums_text(pairs: list[tuple[int, int]]) -> list[str]:
    """Documents of some lines `12+345=357`."""
    lines = [f"{first}+{second}={first + second}" for first, second in pairs]
    return ["\n".join(lines[start : start + _LINES]) + "\n" for start in range(0, len(lines), _LINES)]


def train_model(
    config: Settings,
    folder: Path,
    train: list[tuple[int, int]],
    held_out: list[tuple[int, int]],
    seed: int,
    group: int,
) -> RunRecord:
    """`maquette train` from scratch on these sums; nothing is deduplicated, for sums look alike."""
    for name, pairs in ((f"sums-{seed}", train), (f"held_out-{seed}", held_out[:2000])):
        if not (path := folder / name / "text.jsonl").exists():
            write_rows(path, sums_text(pairs))
    settings = {
        "outputs": config.outputs, "seed": seed, "source": "jsonl", "source.path": str(folder / f"sums-{seed}"),
        "corpus.deduplicate": False, "corpus.minimum_characters": 1, "corpus.validation": 0, "corpus.test": 0,
        "corpus.validation_source": str(folder / f"held_out-{seed}"), "shards.held_out_window": 0,
        "tokenizer.digits": group, "tokenizer.vocab_size": config.vocab_size, "data.sequence_length": 64,
        "model.hidden_size": config.hidden_size, "model.num_hidden_layers": config.layers, "compute": config.compute,
        "num_validations": 1, "callbacks.samples.prompts": [],
    }  # fmt: skip
    record = stage("train", settings, tracking=config.tracking)
    assert isinstance(record, RunRecord)
    return record


def ask(record: RunRecord, questions: list[tuple[int, int]]) -> tuple[float, float]:
    """How often the greedy answer is exactly right, and the median of how far it is off (the right sum, for none)."""
    model, tokenizer = load_checkpoint(record.folder)
    assert tokenizer.document_id is not None
    prompts = [[tokenizer.document_id, *tokenizer.encode(f"{first}+{second}=")] for first, second in questions]
    drawn = generate(
        model, prompts, tokenizer=tokenizer, sampling=Sampling(temperature=0.0), max_tokens=5,
        seeds=list(range(len(prompts))),
    )  # fmt: skip
    answers = [read_answer(one.text) for one in drawn]
    truths = [first + second for first, second in questions]
    off = [abs((answer or 0) - truth) for answer, truth in zip(answers, truths, strict=True)]
    right = sum(answer == truth for answer, truth in zip(answers, truths, strict=True))
    return right / len(truths), float(pd.Series(off).median())


def read_answer(text: str) -> int | None:
    """The number on the first line; None where there is none."""
    line = text.partition("\n")[0].strip()
    return int(line) if line.isascii() and line.isdigit() else None


COLUMNS = {
    "digits in a token": "{digits}", "seeds": "{seeds}", "exactly right": "{accuracy:.1%}",
    "interval": "{low:.1%} to {high:.1%}", "off by (median)": "{off:.1f}", "tokens": "{tokens:,}",
}  # fmt: skip


def summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """By group of digits the mean accuracy with Student's interval over seeds."""
    rows = []
    for group, part in table.groupby("digits"):
        mean = mean_over_seeds(part.accuracy, _LEVEL)
        ends = {"low": max(0.0, mean.low), "high": min(1.0, mean.high)}
        means = {"accuracy": mean.value, "off": part.off.mean(), "tokens": int(part.tokens.mean())}
        rows.append({"digits": group, "seeds": len(part)} | means | ends)
    return rows


def draw(table: pd.DataFrame, path: Path) -> Path:
    """Accuracy by group of digits: dots are seeds, bars their mean; returns the PNG's path."""
    figure, axes = new_figure(width=4.8, height=3.6)
    for place, row in enumerate(summary(table)):
        axes.bar(place, row["accuracy"], width=0.6, color=COLORS[place], alpha=0.4)
        each = table[table.digits == row["digits"]].accuracy
        axes.plot([place] * len(each), each, "o", color=COLORS[place], ms=5)
    names = [f"at most {group}" if group > 1 else "one by one" for group in sorted(table.digits.unique())]
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 1), xlabel="digits in a token", ylabel="held-out sums that are exactly right")
    axes.set_title("Sums at equal compute, by how numbers are cut")
    return save_figure(figure, path)


if __name__ == "__main__":
    chosen: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli()))
    run(chosen)
