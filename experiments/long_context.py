"""Does a longer context help: read throughout, in the last stretch of training alone, or never?

    python experiments/long_context.py              # size=150k tokens=6m seeds=[0,1,2] context=128 multiple=4 ...

Models of one shape learn from equally many tokens: with the short context; with the short one and at the end the long
one, with a larger rotary base (as Dubey et al. 2024, section 3.4.2); with the long one. What counts is asked in two
ways. The loss on one held-out text, read in pieces of the short and of the long context. And copying: a stretch of text
stands twice, some tokens apart, and the score says how much better it is predicted the second time (0: not at all,
1: with certainty), for distances that the short context holds and others that it does not.
Rows are written as they come; run it again to resume.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from collapse import stage
from omegaconf import OmegaConf
from rich.console import Console

from maquette.artifacts.files import write_text
from maquette.artifacts.progress import say
from maquette.data import TokenShards
from maquette.data.batches import validation_batches
from maquette.data.pretraining_data import probes_of
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.model.loading import load_checkpoint
from maquette.objectives.held_out import model_copying
from maquette.reports import terminal_table
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.scaling.fits.recorded import find_tokens
from maquette.statistics import mean_over_seeds
from maquette.tracking.config import TrackingConfig
from maquette.training.record import RunRecord

_LEVEL = 0.95
_WINDOWS = 64  # of which copying is asked
_BATCH = 16


@dataclass
class Settings:
    outputs: str = "outputs"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    size: str = "150k"
    layers: int = 1  # such models copy from few tokens on (copying_onset.py)
    tokens: str = "6m"
    context: int = 128  # the short one
    multiple: int = 4  # the long one is so many times the short one
    stretch: float = 0.2  # share of the tokens that is read with the long one, in the variant that has both
    rope_theta: float = 40000.0  # from there on
    held_out: int = 131072  # tokens of each domain
    limit: int | None = 5000  # documents of the default text


def run(config: Settings) -> Path:
    """Trains and asks what is missing; returns the folder with `long_context.csv` and the figure."""
    if config.multiple < 2:
        raise SystemExit(f"multiple={config.multiple} is not a longer context: it must be 2 or more.")
    if not 0 < config.stretch < 1:
        raise SystemExit(f"stretch={config.stretch} must lie between 0 and 1.")
    long = config.context * config.multiple
    last = {"start": 1 - config.stretch, "context_multiple": config.multiple, "rope_theta": config.rope_theta}
    variants: dict[str, Mapping[str, Any]] = {
        "short": {}, "long at the end": {"mixture.phases": [last]}, "long": {"data.sequence_length": long},
    }  # fmt: skip
    folder, rows = Path(config.outputs) / "long_context", []
    for seed in config.seeds:
        for name, changes in variants.items():
            record = train_model(config, changes, seed)
            made = {"run": record.name, "git_commit": (record.git_commit or "")[:8], "hardware": record.hardware}
            rows.append({"variant": name, "seed": seed, "tokens": record.spec.tokens} | ask(config, record) | made)
            write_text(folder / "long_context.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.5g"))
    table = pd.DataFrame(rows)
    Console(width=None if sys.stdout.isatty() else 160).print(
        terminal_table(columns(table), summary(table), f"contexts at equal tokens, {_LEVEL:.0%} intervals over seeds")
    )
    say(f"{folder / 'long_context.csv'}; {draw(table, folder / 'long_context')}")
    return folder


def train_model(config: Settings, changes: Mapping[str, Any], seed: int) -> RunRecord:
    """`maquette train` with the changes."""
    common = {
        "outputs": config.outputs, "seed": seed, "size": config.size, "tokens": config.tokens,
        "model.num_hidden_layers": config.layers, "source.limit": config.limit, "data.sequence_length": config.context,
        "num_validations": 1, "threads": 1, "callbacks.samples.prompts": [],
    }  # fmt: skip
    record = stage("train", {**common, **changes}, tracking=config.tracking)
    assert isinstance(record, RunRecord)
    return record


def ask(config: Settings, record: RunRecord) -> dict[str, float]:
    """`loss_c`: nats per token of held-out text in pieces of c tokens. `copying_d`: the score of what stood d tokens
    before."""
    model, _ = load_checkpoint(record.folder)
    contexts = [config.context, config.context * config.multiple]
    model.core.change_context(max_position_embeddings=contexts[-1])
    tokens = find_tokens(Path(config.outputs), record.spec.digests["tokens"])
    assert tokens is not None
    shards = TokenShards(tokens)
    values = {f"loss_{context}": held_out_loss(model, shards, config.held_out, context) for context in contexts}
    context = contexts[0]
    while context <= contexts[-1]:
        probes = probes_of(shards, shards.domains, context=context, windows=_WINDOWS, batch=_BATCH)
        values[f"copying_{context // 2}"] = model_copying(model, probes)["copying/score"]
        context *= 2
    return values


@torch.no_grad()
def held_out_loss(model: LanguageModel, shards: TokenShards, tokens: int, context: int) -> float:
    """Mean over the domains of the nats per token, read in pieces of `context` tokens."""
    losses = []
    for domain in shards.domains:
        nats = count = 0.0
        for batch in validation_batches(shards, domain, context, tokens, _BATCH):
            hidden = model.eval().core(batch.inputs)
            _, each = next_token_loss(
                hidden, model.head_weight, batch.targets, logit_softcap=model.config.logit_softcap
            )
            nats, count = nats + each.double().sum().item(), count + each.numel()
        if count:
            losses.append(nats / count)
    return sum(losses) / len(losses)


def columns(table: pd.DataFrame) -> dict[str, str]:
    """Headings of the summary's columns."""
    names = {"context in training": "{variant}", "seeds": "{seeds}"}
    for name in measures(table):
        what, _, number = name.partition("_")
        names[f"loss in pieces of {number}" if what == "loss" else f"copied over {number} tokens"] = f"{{{name}}}"
    return names


def measures(table: pd.DataFrame) -> list[str]:
    """The columns of losses and copying scores."""
    return [str(name) for name in table if str(name).startswith(("loss_", "copying_"))]


def summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """By variant each measure's mean with Student's interval over seeds."""
    rows = []
    for variant, part in table.groupby("variant", sort=False):
        row: dict[str, Any] = {"variant": variant, "seeds": len(part)}
        for name in measures(table):
            mean = mean_over_seeds(part[name], _LEVEL)
            row[name] = f"{mean.value:.3f}" + (f" ({mean.low:.3f} to {mean.high:.3f})" if len(part) > 1 else "")
        rows.append(row)
    return rows


def draw(table: pd.DataFrame, path: Path) -> Path:
    """The copying score over the distance: dots are seeds, lines their mean."""
    figure, axes = new_figure(width=5.4)
    names = [name for name in measures(table) if name.startswith("copying_")]
    distances = [int(name.rpartition("_")[2]) for name in names]
    for color, (variant, part) in zip(COLORS, table.groupby("variant", sort=False), strict=False):
        axes.plot(distances, part[names].mean(), color=color, label=variant)
        for _, row in part.iterrows():
            axes.plot(distances, row[names], "o", color=color, ms=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(distances, [str(distance) for distance in distances])
    axes.set(xlabel="tokens from one occurrence to the next", ylabel="copying score")
    axes.set_title("What stood so many tokens before, by the context in training")
    axes.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)


if __name__ == "__main__":
    chosen: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli()))
    run(chosen)
