"""`maquette hallucination +experiment=hallucination`: does fine-tuning on facts never read teach making things up?

An invented world, a base that has read part of it, and fine-tuned models that differ in nothing but the share of their
answers which no text has told of (as Gekhman et al. 2024 ask of larger ones).

Every run is found again, or gone on with, when the line is typed again.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.artifacts.files import digest, write_json, write_text
from maquette.artifacts.progress import say
from maquette.evaluation.honesty.invented_facts import World, documents, instructions, invent
from maquette.evaluation.honesty.made_up_answers import Honesty, draw_honesty, measure_honesty
from maquette.model.loading import load_checkpoint
from maquette.stages import train
from maquette.stages.config import HallucinationStage
from maquette.tracking import start_run
from maquette.training import RunRecord


def run(config: HallucinationStage) -> Path:
    """Trains what is missing, asks every model, and returns the folder with the figure and `results.json`."""
    world = invent(config.people, config.seed)
    folder = Path(config.outputs) / "hallucination" / _name(config)
    base = _base(config, world, folder)
    results = []
    for number, share in enumerate(config.shares, 1):
        say(f"[{number}/{len(config.shares)}] fine-tuning with {share:.0%} of the answers unheard of")
        model, tokenizer = load_checkpoint(_fine_tuned(config, world, folder, base, share).folder)
        results.append(measure_honesty(model, tokenizer, world, share))
    picture = draw_honesty(results, folder / "figures" / "hallucination")
    write_json(folder / "results.json", [dataclasses.asdict(one) for one in results])
    _track(config, results, picture, folder)
    Console().print(_table(results))
    say(f"{picture}; the answers: {folder / 'results.json'}")
    return folder


def _base(config: HallucinationStage, world: World, folder: Path) -> RunRecord:
    texts = documents(world, config.repeats, config.seed)
    rows = [{"id": f"text-{number}", "text": text, "domain": "town"} for number, text in enumerate(texts)]
    path = folder / "documents" / "town.jsonl"
    _write_rows(path, rows)
    return _train(
        config,
        ["source=jsonl", f"source.path='{path.parent}'", "corpus.near_duplicates=1", "shards.held_out_window=0",
         "tokenizer.vocab_size=512", "data.sequence_length=128", f"size={config.size}", f"tokens={config.tokens}"],
    )  # fmt: skip


def _fine_tuned(config: HallucinationStage, world: World, folder: Path, base: RunRecord, share: float) -> RunRecord:
    path = folder / "instructions" / f"unseen-{share:g}.jsonl"
    _write_rows(path, [{"messages": messages} for messages in instructions(world, share, config.seed)])
    return _train(
        config,
        ["objective=sft", f"instructions.path='{path}'", "instructions.validation=0", f"checkpoint='{base.folder}'",
         f"objective.epochs={config.epochs}", "objective.batch_size=32"],
    )  # fmt: skip


def _train(config: HallucinationStage, settings: list[str]) -> RunRecord:
    from maquette.stages import STAGES
    from maquette.stages.composition import compose

    words = [f"outputs='{config.outputs}'", f"seed={config.seed}", "num_validations=2", "callbacks.samples.prompts=[]"]
    composed: Any = compose(STAGES["train"], [*words, *settings])
    return train.run(composed.tracked(config.tracking))


def _track(config: HallucinationStage, results: list[Honesty], picture: Path, folder: Path) -> None:
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


def _table(results: list[Honesty]) -> Table:
    rows = Table("unheard-of answers", title="greedy answers, with 95% intervals", title_justify="left")
    for heading in ("strangers: made up", "known: right", "known: wrong"):
        rows.add_column(heading, justify="right")
    for one in results:
        shares = (one.made_up, one.recalled, one.wrong)
        rows.add_row(
            f"{one.unseen_share:.0%}", *(f"{part.value:.0%} ({part.low:.0%} to {part.high:.0%})" for part in shares)
        )
    return rows


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _name(config: HallucinationStage) -> str:
    chosen = dataclasses.asdict(config)
    return "world-" + digest({key: chosen[key] for key in chosen if key not in ("outputs", "force", "tracking")})[:8]
