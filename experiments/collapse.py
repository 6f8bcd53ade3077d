"""What becomes of a language model that is trained on its own samples, with and without real text beside them?

    python experiments/collapse.py                  # seeds=[0,1,2] generations=4 source=text path=books size=10k ...

Generation 0 learns real text; each later one, from scratch, what the one before has sampled (`replace`, Shumailov et
al. 2024), half of that and half real text (`mixed`), or all samples so far beside the real text (`accumulate`,
Gerstgrasser et al. 2024): always as many tokens. Every generation is validated on the same real text, and the diversity
of its samples counted. Rows are written as they come; run it again to resume.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from rich.console import Console

from maquette.artifacts.files import digest, write_text
from maquette.artifacts.progress import say
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.overrides import literal
from maquette.cli.command_line.registry import STAGES
from maquette.corpus.document import read_documents
from maquette.model.generation import generate
from maquette.model.loading import load_checkpoint
from maquette.model.sampling import Sampling
from maquette.reports import terminal_table
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.statistics import mean_over_seeds
from maquette.tracking.config import TrackingConfig
from maquette.training.record import RunRecord

MIXINGS = ("replace", "mixed", "accumulate")
MEASURES = {"loss": "loss on real text (nats a byte)", "distinct": "distinct 5-grams of the samples (share)"}
_ROWS = 256  # samples at once
_MOST = 8  # times as many samples as documents at most, where they are short


@dataclass
class Settings:
    outputs: str = "outputs"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    source: str = "installed"  # where the real text comes from, as maquette corpus has it
    path: str | None = None
    limit: int | None = 400  # documents of it
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # of the choice of text, weights, order, samples
    generations: int = 4  # after the one that learns real text
    mixings: list[str] = field(default_factory=lambda: ["replace", "accumulate"])
    documents: int = 1000  # in the text of a generation
    length: int = 192  # bytes of each
    size: str = "10k"
    tokens: str = "400k"  # of training, a token being a byte
    temperature: float = 1.0


def run(config: Settings) -> Path:
    """Trains and samples what is missing; returns the folder with `collapse.csv` and the figure."""
    if wrong := [mixing for mixing in config.mixings if mixing not in MIXINGS]:
        raise SystemExit(f"mixings={wrong[0]} is not known. Allowed: {', '.join(MIXINGS)}.")
    apart = ("outputs", "tracking", "seeds", "generations", "mixings")  # files are named by these
    settings = {key: value for key, value in vars(config).items() if key not in apart}
    folder = Path(config.outputs) / "collapse" / digest(settings)[:8]
    train, held_out = real_text(config)
    rows: list[dict[str, Any]] = []
    for seed in config.seeds:
        real = random.Random(f"real {seed}").sample(train, config.documents)
        for mixing in config.mixings:
            before: list[list[str]] = []
            for generation in range(config.generations + 1):
                texts = training_texts(mixing, real, before, random.Random(f"{mixing} {seed} {generation}"))
                samples = folder / f"{mixing if generation else 'real'}-{seed}-{generation}.jsonl"
                record = train_generation(config, folder, texts, held_out, seed, samples.stem)
                if not samples.exists():
                    write_rows(samples, sample(config, record, seed))
                before.append([json.loads(line)["text"] for line in samples.read_text(encoding="utf-8").splitlines()])
                row = {"mixing": mixing, "seed": seed, "generation": generation, "loss": record.validation_loss}
                measured = diversity(before[-1], config.documents * config.length)
                made = {"run": record.name, "git_commit": record.git_commit, "hardware": record.hardware}
                rows.append(row | measured | made)
                write_text(folder / "collapse.csv", pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    picture = draw(table, folder / "figures" / "collapse")
    Console().print(terminal_table(COLUMNS, summary(table), "change since generation 0, with 95% intervals over seeds"))
    say(f"{folder / 'collapse.csv'}; {picture}")
    return folder


def real_text(config: Settings) -> tuple[list[str], list[str]]:
    """Pieces of `length` bytes of the training documents of a corpus, and of its held-out ones."""
    settings = {"outputs": config.outputs, "source": config.source, "source.limit": config.limit,
                "source.path": config.path, "corpus.validation": 0.1}  # fmt: skip
    corpus = str(stage("corpus", {key: value for key, value in settings.items() if value is not None}))
    pieces = [
        [text for document in read_documents(corpus, split) for text in cut(document.text, config.length)]
        for split in ("train", "validation")
    ]
    if len(pieces[0]) < config.documents or not pieces[1]:
        raise SystemExit(f"The text has {len(pieces[0]):,} pieces of {config.length} bytes; give more, or documents=.")
    return pieces[0], random.Random("held out").sample(pieces[1], min(len(pieces[1]), config.documents))


def cut(text: str, length: int) -> list[str]:
    """Whole pieces of so many ASCII characters."""
    text = text.encode("ascii", "ignore").decode()
    return [text[start : start + length] for start in range(0, len(text) - length + 1, length)]


def training_texts(mixing: str, real: list[str], before: list[list[str]], numbers: random.Random) -> list[str]:
    """What a generation learns, given the samples of those before it."""
    if not before:
        return real
    if mixing == "replace":
        return before[-1]
    if mixing == "accumulate":
        return [*real, *(text for samples in before for text in samples)]
    half = len(real) // 2
    return [*numbers.sample(real, half), *before[-1][: len(real) - half]]


def train_generation(
    config: Settings, folder: Path, texts: list[str], held_out: list[str], seed: int, name: str
) -> RunRecord:
    """`maquette train` from scratch on these texts, validated on real ones. Nothing is deduplicated: what a model
    repeats is what the study is about."""
    for path, rows in ((folder / name / "text.jsonl", texts), (folder / "held_out" / "text.jsonl", held_out)):
        if not path.exists():
            write_rows(path, rows)
    settings = {
        "outputs": config.outputs, "seed": seed, "source": "jsonl", "source.path": str(folder / name),
        "corpus.deduplicate": False, "corpus.minimum_characters": 1, "corpus.validation": 0, "corpus.test": 0,
        "corpus.validation_source": str(folder / "held_out"), "shards.held_out_window": 0, "tokenizer": "byte",
        "data.sequence_length": config.length, "size": config.size, "tokens": config.tokens, "num_validations": 1,
        "callbacks.samples.prompts": [],
    }  # fmt: skip
    record = stage("train", settings, tracking=config.tracking)
    assert isinstance(record, RunRecord)
    return record


def stage(name: str, settings: dict[str, Any], tracking: TrackingConfig | None = None) -> Any:
    composed: Any = compose(STAGES[name], [f"{key}={literal(value)}" for key, value in settings.items()])
    return STAGES[name].run(composed if tracking is None else composed.tracked(tracking))


def sample(config: Settings, record: RunRecord, seed: int) -> list[str]:
    """As much text as a generation learns, from nothing but the token that begins a document."""
    model, tokenizer = load_checkpoint(record.folder)
    assert tokenizer.document_id is not None
    texts: list[str] = []
    prompts = [[tokenizer.document_id]] * _ROWS
    for start in range(0, _MOST * config.documents, _ROWS):
        drawn = generate(
            model, prompts, tokenizer=tokenizer, sampling=Sampling(temperature=config.temperature),
            max_tokens=config.length - 1, seeds=[seed * 1_000_003 + start + row for row in range(len(prompts))],
        )  # fmt: skip
        texts += [one.text for one in drawn if one.text.strip()]
        if sum(map(len, texts)) >= config.documents * config.length:
            break
    return texts


def diversity(texts: list[str], characters: int, size: int = 5) -> dict[str, float]:
    """Share of different n-grams among all, and different words, in so many characters of the texts: both depend on
    how many there are. With how long a text is."""
    whole = "\n".join(texts)[:characters]
    grams = [whole[start : start + size] for start in range(len(whole) - size + 1)]
    mean_length = sum(map(len, texts)) / max(1, len(texts))
    return {"distinct": len(set(grams)) / max(1, len(grams)), "words": len(set(whole.split())), "length": mean_length}


def write_rows(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts)))


COLUMNS = {
    "text of a generation": "{mixing}", "generation": "{generation}",
    **{name: f"{{{name}:+.4f}} ({{{name}_low:+.4f}} to {{{name}_high:+.4f}})" for name in MEASURES},
}  # fmt: skip


def summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """For each mixing and later generation the mean change since generation 0 of the same seed, with Student's
    intervals over seeds (none for a single one)."""
    rows = []
    for (mixing, generation), part in table.groupby(["mixing", "generation"], sort=False):
        if generation == 0:
            continue
        first = table[(table.mixing == mixing) & (table.generation == 0)].set_index("seed")
        row: dict[str, Any] = {"mixing": mixing, "generation": generation}
        for name in MEASURES:
            change = (part.set_index("seed")[name] - first[name]).to_numpy()
            mean = mean_over_seeds(change)
            row |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
        rows.append(row)
    return rows


def draw(table: pd.DataFrame, path: Path) -> Path:
    """Both measures over generations: thin lines are seeds, thick ones their mean; returns the PNG's path."""
    figure, panels = new_figure(1, 2, width=4.6, height=3.6)
    for axes, (name, label) in zip(panels, MEASURES.items(), strict=True):
        for color, (mixing, part) in zip(COLORS, table.groupby("mixing", sort=False), strict=False):
            by_seed = part.pivot(index="generation", columns="seed", values=name)
            axes.plot(by_seed.index, by_seed, color=color, linewidth=0.7, alpha=0.5)
            axes.plot(by_seed.index, by_seed.mean(axis=1), color=color, marker="o", linewidth=2, label=mixing)
        axes.set(xlabel="generation", ylabel=label, xticks=sorted(table.generation.unique()))
    panels[0].legend(fontsize=8)
    figure.suptitle("Trained on one's own samples", fontsize=11)
    return save_figure(figure, path)


if __name__ == "__main__":
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli()))
    run(settings)
