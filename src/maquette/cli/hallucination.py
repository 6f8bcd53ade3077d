"""`maquette hallucination +experiment=hallucination`: does fine-tuning on unseen facts teach a model to hallucinate?

An invented world, a base that has read part of it, and fine-tuned models that differ in nothing but the share of their
answers which no text has told of. Run the command again to resume.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.artifacts.files import digest, write_json, write_text
from maquette.artifacts.progress import say
from maquette.cli.command_line.law_config import HallucinationStage
from maquette.cli.study import Study, rehearse
from maquette.evaluation.hallucination import (
    HallucinationRates,
    documents,
    draw_hallucinations,
    instructions,
    invent,
    measure_hallucinations,
)
from maquette.model.loading import load_checkpoint
from maquette.reports import terminal_table
from maquette.tracking import start_run

_COLUMNS = {
    "unseen facts": "{unseen_share:.0%}",
    "strangers: hallucinated": "{made_up.value:.0%} ({made_up.low:.0%} to {made_up.high:.0%})",
    "known: right": "{recalled.value:.0%} ({recalled.low:.0%} to {recalled.high:.0%})",
    "known: wrong": "{wrong.value:.0%} ({wrong.low:.0%} to {wrong.high:.0%})",
}


def run(config: HallucinationStage) -> Path:
    """Trains what is missing, asks every model, and returns the folder with the figure and `results.json`."""
    world = invent(config.people, config.seed)
    chosen = dataclasses.asdict(config)
    identity = {key: chosen[key] for key in chosen if key not in ("outputs", "force", "tracking")}
    folder = Path(config.outputs) / "hallucination" / f"world-{digest(identity)[:8]}"
    texts = enumerate(documents(world, config.repeats, config.seed))
    _write_rows(
        folder / "documents" / "town.jsonl",
        [{"id": f"text-{number}", "text": text, "domain": "town"} for number, text in texts],
    )
    for share in config.shares:
        rows = [{"messages": messages} for messages in instructions(world, share, config.seed)]
        _write_rows(_instructions(folder, share), rows)

    def recipe(study: Study) -> dict[float, str]:
        """The base, and for each share the model that is fine-tuned on it."""
        quick = {"num_validations": 2, "callbacks.samples.prompts": []}
        base = study.train("base", quick, {
            "source": "jsonl", "source.path": str(folder / "documents"), "corpus.near_duplicates": 1,
            "shards.held_out_window": 0, "tokenizer.vocab_size": 512, "data.sequence_length": 128,
            "size": config.size, "tokens": config.tokens,
        })  # fmt: skip
        return {
            share: study.train(f"{100 * share:g}% unseen facts", quick, {
                "objective": "sft", "instructions.path": str(_instructions(folder, share)),
                "instructions.validation": 0, "checkpoint": base, "objective.epochs": config.epochs,
                "objective.batch_size": 32,
            })
            for share in config.shares
        }  # fmt: skip

    trained = recipe(Study(config, rehearse(config, recipe)))
    results = [measure_hallucinations(*load_checkpoint(run), world, share) for share, run in trained.items()]
    picture = draw_hallucinations(results, folder / "figures" / "hallucination")
    write_json(folder / "results.json", [dataclasses.asdict(one) for one in results])
    _track(config, results, picture, folder)
    Console().print(terminal_table(_COLUMNS, results, "greedy answers, with 95% intervals"))
    say(f"{picture}; the answers: {folder / 'results.json'}")
    return folder


def _track(config: HallucinationStage, results: list[HallucinationRates], picture: Path, folder: Path) -> None:
    """The experiment in the tracker: a point for each share, in percent, as its step."""
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key != "tracking"}
    with start_run(
        config.tracking, outputs=Path(config.outputs), name=folder.name, folder=folder, params=settings,
        tags={"kind": "hallucination"}, run_id=None,
    ) as log:  # fmt: skip
        for one in results:
            values = {"made_up": one.made_up.value, "recalled": one.recalled.value, "wrong": one.wrong.value}
            log.log_metrics(values, round(100 * one.unseen_share))
        for path in (picture, picture.with_suffix(".svg")):
            log.log_artifact(path, "figures")


def _instructions(folder: Path, share: float) -> Path:
    return folder / "instructions" / f"unseen-{share:g}.jsonl"


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
