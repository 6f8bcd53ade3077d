"""When does a model begin to copy from its context, and what hastens it: the text, the context, the depth?

    python experiments/copying_onset.py             # size=150k tokens=6m seeds=[0] text=<folder or file of prose>

One thing is changed at a time, everything else is the default's. Copying sets in abruptly and takes 8 to 10% off the
loss of text that repeats itself, where no law fitted before sees it coming; so a family should lie on one side of it.
The score is measured on made-up repetitions of held-out text (`data.copying`), at every validation by a callback and at
the end by the run itself, which then tells the loss by kind of token too: hits are the tokens that copying gets right.
Rows are written as they come; run it again to resume.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from collapse import stage
from omegaconf import OmegaConf
from rich.console import Console

from maquette.artifacts.files import write_text
from maquette.artifacts.progress import say
from maquette.data.copying import TOKEN_KINDS, CopyingProbe
from maquette.data.pretraining_data import affordable_windows, probes_of
from maquette.objectives.held_out import model_copying
from maquette.reports import quantity, terminal_table
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.scaling.laws.regimes import COPIES
from maquette.tracking.config import TrackingConfig
from maquette.training import read_history
from maquette.training.record import RunRecord

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "documentation": {"mixture.weights": {"docs": 1}},
    "code": {"mixture.weights": {"code": 1}},
    "context 64": {"data.sequence_length": 64},
    "context 256": {"data.sequence_length": 256},
    "four heads": {"model.num_attention_heads": 4, "model.head_dim": 16},
    "one layer": {"model.num_hidden_layers": 1},
    "one layer, two heads": {"model.num_hidden_layers": 1, "model.num_attention_heads": 2, "model.head_dim": 32},
    "two layers": {"model.num_hidden_layers": 2},
    "six layers": {"model.num_hidden_layers": 6},
    "no token shift": {"model.token_shift": False},
}
"""What is changed, by its name in the table; `prose` joins them where `text` is given."""


@dataclass
class Settings:
    outputs: str = "outputs"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seeds: list[int] = field(default_factory=lambda: [0])
    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    text: str | None = None  # a folder or file of JSON Lines with prose, for the variant `prose`
    size: str = "150k"
    tokens: str = "6m"
    validations: int = 20
    limit: int | None = 5000  # documents of the default text


class CopyingScores(pl.Callback):
    """The copying score at every validation but the last, where the run measures its own."""

    def __init__(self) -> None:
        self._probes: list[CopyingProbe] | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        datamodule: Any = pl_module.datamodule
        if trainer.sanity_checking or trainer.global_step >= datamodule.steps:
            return
        if self._probes is None:
            context, batch = datamodule.context, datamodule.micro_batch_size
            self._probes = probes_of(
                datamodule.shards, datamodule.order.domains, context=context, batch=batch,
                windows=affordable_windows(datamodule.tokens, context),
            )  # fmt: skip
        pl_module.log_values(model_copying(pl_module.model, self._probes))


def run(config: Settings) -> Path:
    """Trains what is missing; returns the folder with `copying_onset.csv` and the figure."""
    if wrong := [name for name in config.variants if name not in VARIANTS]:
        raise SystemExit(f"variants={wrong[0]} is not known: {', '.join(VARIANTS)}.")
    variants: dict[str, Mapping[str, Any]] = {name: VARIANTS[name] for name in config.variants}
    if config.text is not None:
        variants["prose"] = {"source": "jsonl", "source.path": config.text, "source.limit": None}
    folder, rows = Path(config.outputs) / "copying_onset", []
    for seed in config.seeds:
        for name, changes in variants.items():
            rows += rows_of(name, seed, train_model(config, changes, seed))
            write_text(folder / "copying_onset.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.5g"))
    table = pd.DataFrame(rows)
    Console(width=None if sys.stdout.isatty() else 200).print(
        terminal_table(COLUMNS, summary(table), f"copying begins where the score passes {COPIES}")
    )
    say(f"{folder / 'copying_onset.csv'}; {draw(table, folder / 'copying_onset')}")
    return folder


def train_model(config: Settings, changes: Mapping[str, Any], seed: int) -> RunRecord:
    """`maquette train` with the changes."""
    common = {
        "outputs": config.outputs, "seed": seed, "size": config.size, "tokens": config.tokens,
        "source.limit": config.limit, "data.sequence_length": 128, "data.validation_tokens": 32768,
        "num_validations": config.validations, "threads": 1, "callbacks.samples.prompts": [],
        "callbacks.copying._target_": f"{Path(__file__).stem}.{CopyingScores.__name__}",
    }  # fmt: skip
    record = stage("train", {**common, **changes}, tracking=config.tracking)
    assert isinstance(record, RunRecord)
    return record


def rows_of(variant: str, seed: int, record: RunRecord) -> list[dict[str, Any]]:
    """A row for each validation: tokens seen and the score; at the last one share and loss of each kind of token."""
    made = {"run": record.name, "git_commit": (record.git_commit or "")[:8], "hardware": record.hardware}
    shape = {"params": record.spec.size, "layers": getattr(record.spec.architecture, "num_hidden_layers", 0)}
    kinds = [f"token_kinds/{kind}_{what}" for kind in TOKEN_KINDS for what in ("share", "loss")]
    return [
        {"variant": variant, "seed": seed, "tokens": row["tokens"], "score": row["copying/score"]}
        | {"loss": row["validation/loss"]} | {name.partition("/")[2]: row.get(name) for name in kinds} | shape | made
        for row in read_history(Path(record.folder) / "metrics.jsonl") if "copying/score" in row
    ]  # fmt: skip


def onset(tokens: np.ndarray, score: np.ndarray) -> float:
    """The tokens seen when the score first passes `COPIES`, in between by log tokens; infinite where it never does."""
    above = np.flatnonzero(score >= COPIES)
    if not len(above):
        return np.inf
    first = int(above[0])
    if first == 0:
        return float(tokens[0])
    share = (COPIES - score[first - 1]) / (score[first] - score[first - 1])
    return float(np.exp(np.interp(share, (0, 1), np.log(tokens[first - 1 : first + 1]))))


COLUMNS = {
    "changed": "{variant}", "seeds": "{seeds}", "layers": "{layers}", "hits among tokens": "{share:.0%}",
    "begins at tokens": "{onset}", "score at the end": "{score:.3f}", "new": "{new:.3f}", "miss": "{miss:.3f}",
    "hit": "{hit:.3f}", "loss": "{loss:.3f}",
}  # fmt: skip


def summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """By variant, over seeds: when copying begins (geometric mean), and the last validation."""
    rows = []
    for variant, part in table.groupby("variant", sort=False):
        runs = [run.sort_values("tokens") for _, run in part.groupby("seed")]
        begins = [onset(run.tokens.to_numpy(float), run.score.to_numpy(float)) for run in runs]
        last = pd.DataFrame([run.iloc[-1] for run in runs])
        begin = float(np.exp(np.mean(np.log(begins))))
        rows.append({
            "variant": variant, "seeds": len(runs), "layers": int(last.layers.iloc[0]), "share": last.hit_share.mean(),
            "onset": quantity(begin) if np.isfinite(begin) else f"after {quantity(float(last.tokens.max()))}",
            "score": last.score.mean(), "loss": last.loss.mean(),
            **{kind: last[f"{kind}_loss"].mean() for kind in TOKEN_KINDS},
        })  # fmt: skip
    return rows


def draw(table: pd.DataFrame, path: Path) -> Path:
    """The copying score over tokens seen."""
    figure, axes = new_figure(width=6.4)
    for number, (variant, part) in enumerate(table.groupby("variant", sort=False)):
        for count, (_, run) in enumerate(part.groupby("seed")):
            run = run.sort_values("tokens")
            axes.plot(
                run.tokens, run.score, color=COLORS[number % len(COLORS)], label=None if count else variant,
                linestyle="-" if number < len(COLORS) else "--",
            )  # fmt: skip
    axes.axhline(COPIES, color="0.5", linewidth=0.8)
    axes.set(
        xscale="log", xlabel="tokens seen", ylabel="copying score", title="Text that comes again: how much is copied"
    )
    axes.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)


if __name__ == "__main__":
    chosen: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli()))
    run(chosen)
