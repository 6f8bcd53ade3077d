"""Does fine-tuning on unseen facts teach a model to hallucinate (Gekhman et al. 2024)?

    python experiments/hallucination.py             # people=64 shares=[0,0.25,0.5,1] size=60k tokens=1.5m outputs=...

An invented world, a base model that has read part of it, and fine-tuned models that differ in nothing but the share of
their answers that no text has told of. What the base recalls by itself is said first: with these settings, all of it.
Run it again to resume.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

from maquette.artifacts.files import digest, write_json, write_text
from maquette.artifacts.progress import say
from maquette.cli.planning.study import Study
from maquette.model.loading import load_checkpoint
from maquette.reports import terminal_table
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig

COLUMNS = {
    "unseen facts": "{unseen_share:.0%}",
    "strangers: hallucinated": "{made_up.value:.0%} ({made_up.low:.0%} to {made_up.high:.0%})",
    "known: right": "{recalled.value:.0%} ({recalled.low:.0%} to {recalled.high:.0%})",
    "known: wrong": "{wrong.value:.0%} ({wrong.low:.0%} to {wrong.high:.0%})",
}
QUICK = {"num_validations": 2, "callbacks.samples.prompts": []}


@dataclass
class Settings:
    outputs: str = "outputs"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0  # of the world, of weights and of the order of data
    people: int = 64  # whom the pretraining text tells of
    repeats: int = 100  # how often the text says each of its sentences
    size: str = "60k"
    tokens: str = "1.5m"  # of pretraining
    epochs: float = 12.0  # of fine-tuning
    shares: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 1.0])  # of unseen facts in fine-tuning


def run(config: Settings) -> Path:
    """Trains what is missing, asks every model, and returns the folder with the figure and `results.json`."""
    world, chosen = invent(config.people, config.seed), dataclasses.asdict(config)
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
                "checkpoint": base, "objective.epochs": config.epochs, "objective.batch_size": 32,
            })  # fmt: skip

    study = Study(config, recipe)
    study.run()
    trained = {share: load_checkpoint(study.made[name_of(share)]) for share in files}
    results = [measure_hallucinations(*model, world, share) for share, model in trained.items()]
    base = recalled_by_base(*load_checkpoint(study.made["base"]), world)
    picture = draw_hallucinations(results, folder / "figures" / "hallucination")
    write_json(folder / "results.json", [dataclasses.asdict(one) for one in results])
    with start_run(
        config.tracking, outputs=config.outputs, name=folder.name, folder=folder, params=identity,
        tags={"kind": "hallucination"},
    ) as log:  # fmt: skip
        log.log_metrics({"recalled_by_base": base.value}, 0)
        for one in results:
            values = {"made_up": one.made_up.value, "recalled": one.recalled.value, "wrong": one.wrong.value}
            log.log_metrics(values, round(100 * one.unseen_share))
        log.log_artifact(picture.parent)
    say(f"The base names the right town of {base.value:.0%} ({base.low:.0%} to {base.high:.0%}) of the known people.")
    Console().print(terminal_table(COLUMNS, results, "greedy completions, with 95% intervals"))
    say(f"{picture}; the completions: {folder / 'results.json'}")
    return folder


def name_of(share: float) -> str:
    return f"{100 * share:g}% unseen facts"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli()))
    run(settings)
