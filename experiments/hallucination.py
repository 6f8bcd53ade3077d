"""Does fine-tuning on unseen facts teach a model to hallucinate (Gekhman et al. 2024)?

    python experiments/hallucination.py             # seeds=[0,1,2] people=24 shares=[0,0.5,1] size=60k outputs=...

An invented world, a base model that has read part of it, and fine-tuned models that differ in nothing but the share of
their answers that no text has told of. What the base recalls by itself is said first. Each seed is a world with models
of its own; the table over seeds goes to `<outputs>/hallucination/hallucination.csv`. Run it again to resume.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from invented_facts import (
    documents,
    draw_hallucinations,
    instructions,
    invent,
    measure_hallucinations,
    recalled_by_base,
)
from omegaconf import OmegaConf
from rich.console import Console
from seeds import write_table

from maquette.artifacts.files import digest, write_json, write_text
from maquette.artifacts.progress import say
from maquette.cli.planning.study import Study
from maquette.model.loading import load_checkpoint
from maquette.reports import terminal_table
from maquette.statistics import mean_over_seeds
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig

COLUMNS = {
    "unseen facts": "{unseen_share:.0%}",
    "strangers: hallucinated": "{made_up.value:.0%} ({made_up.low:.0%} to {made_up.high:.0%})",
    "known: right": "{recalled.value:.0%} ({recalled.low:.0%} to {recalled.high:.0%})",
    "known: wrong": "{wrong.value:.0%} ({wrong.low:.0%} to {wrong.high:.0%})",
}
MEASURED = {
    "made_up": "strangers: hallucinated", "recalled": "known: right", "wrong": "known: wrong",
}  # fmt: skip
QUICK = {"num_validations": 2, "callbacks.samples.prompts": []}


@dataclass
class Settings:
    outputs: str = "outputs"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0  # of the world, of weights and of the order of data
    people: int = 24  # whom the pretraining text tells of
    answered: int = 24  # others, of whom it also answers the question where they live
    repeats: int = 100  # how often the text says each of its sentences
    size: str = "60k"
    tokens: str = "600k"  # of pretraining
    epochs: float = 12.0  # of fine-tuning
    batch_size: int = 8  # examples of a step of it
    lr: float = 0.003  # its peak learning rate
    shares: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0])  # of unseen facts in fine-tuning


def run(config: Settings) -> Path:
    """Trains what is missing, asks every model, and returns the folder with the figure and `results.json`."""
    world, chosen = invent(config.people, config.seed, config.answered), dataclasses.asdict(config)
    identity = {key: chosen[key] for key in chosen if key not in ("outputs", "tracking")}
    folder = Path(config.outputs) / "hallucination" / f"world-{digest(identity)[:8]}"
    texts = enumerate(documents(world, config.repeats, config.seed))
    write_rows(
        folder / "documents" / "town.jsonl",
        [{"id": f"text-{number}", "text": text, "domain": "town"} for number, text in texts],
    )
    files = {share: folder / "instructions" / f"unseen-{share:g}.jsonl" for share in config.shares}
    for share, path in files.items():
        write_rows(path, [{"messages": messages} for messages in instructions(world, share, config.seed)])

    def recipe(study: Study) -> None:
        """The base, and for each share the model that is fine-tuned on it."""
        base = study.train("base", QUICK, {
            "source": "jsonl", "source.path": str(folder / "documents"), "corpus.near_duplicates": 1,
            "shards.held_out_window": 0, "tokenizer.vocab_size": 512, "data.sequence_length": 128,
            "size": config.size, "tokens": config.tokens,
        })  # fmt: skip
        for share, path in files.items():
            study.train(name_of(share), QUICK, {
                "objective": "sft", "instructions.path": str(path), "instructions.validation": 0,
                "checkpoint": base, "objective.epochs": config.epochs, "objective.batch_size": config.batch_size,
                "optimizer.lr": config.lr,
            })  # fmt: skip

    study = Study(config, recipe)
    study.run()
    trained = {share: load_checkpoint(study.made[name_of(share)]) for share in files}
    results = [measure_hallucinations(*model, world, share) for share, model in trained.items()]
    model = load_checkpoint(study.made["base"])
    base, asked = recalled_by_base(*model, world), recalled_by_base(*model, world, asked=True)
    picture = draw_hallucinations(results, folder / "figures" / "hallucination")
    shares = [dataclasses.asdict(one) for one in results]
    write_json(folder / "results.json", {"base": base._asdict(), "base_asked": asked._asdict(), "shares": shares})
    with start_run(
        config.tracking, outputs=config.outputs, name=folder.name, folder=folder, params=identity,
        tags={"kind": "hallucination"},
    ) as log:  # fmt: skip
        log.log_metrics({"recalled_by_base": base.value, "recalled_by_base_asked": asked.value}, 0)
        for one in results:
            values = {"made_up": one.made_up.value, "recalled": one.recalled.value, "wrong": one.wrong.value}
            log.log_metrics(values, round(100 * one.unseen_share))
        log.log_artifact(picture.parent)
    say(f"The base names the right town of {base.value:.0%} ({base.low:.0%} to {base.high:.0%}) of the known people; "
        f"behind a question of {asked.value:.0%} ({asked.low:.0%} to {asked.high:.0%}).")  # fmt: skip
    Console().print(terminal_table(COLUMNS, results, "greedy completions, with 95% intervals"))
    say(f"{picture}; the completions: {folder / 'results.json'}")
    return folder


def over_seeds(folders: dict[int, Path]) -> pd.DataFrame:
    """A row for each seed and share of unseen facts, out of the folders of the seeds."""
    rows: list[dict[str, Any]] = []
    for seed, folder in folders.items():
        measured = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        shared = {"seed": seed, "base": measured["base"]["value"], "base_asked": measured["base_asked"]["value"]}
        rows += [
            shared | {"unseen_share": one["unseen_share"]} | {name: one[name][0] for name in MEASURED}
            for one in measured["shares"]
        ]
    return pd.DataFrame(rows)


def show_over_seeds(table: pd.DataFrame) -> None:
    """Prints the means over seeds, and how far each share of unseen facts is from the smallest of the same seed."""
    rows = []
    for share, part in table.groupby("unseen_share"):
        row: dict[str, Any] = {"share": share}
        for name in MEASURED:
            values = part.set_index("seed")[name]
            first = table[table.unseen_share == table.unseen_share.min()].set_index("seed")[name]
            mean, change = mean_over_seeds(values), mean_over_seeds(values - first[values.index])
            row |= {name: f"{mean.value:.0%} ({change.value:+.0%}, {change.low:+.0%} to {change.high:+.0%})"}
        rows.append(row)
    columns = {"unseen facts": "{share:.0%}", **{label: f"{{{name}}}" for name, label in MEASURED.items()}}
    Console().print(terminal_table(columns, rows, f"{table.seed.nunique()} seeds; change from none, 95%"))


def name_of(share: float) -> str:
    return f"{100 * share:g}% unseen facts"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    given = OmegaConf.from_cli()
    seeds = given.pop("seeds", [given.seed] if "seed" in given else [0, 1, 2])
    worlds: dict[int, Path] = {}
    for seed in seeds:
        settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), given, {"seed": seed}))
        worlds[seed] = run(settings)
    measured = over_seeds(worlds)
    write_table(measured, str(Path(settings.outputs) / "hallucination"), "hallucination")
    show_over_seeds(measured)
