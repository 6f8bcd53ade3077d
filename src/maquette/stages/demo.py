"""`maquette demo`: the whole road once, from documents to a trained and judged model, with a page to open."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from maquette.artifacts.files import digest, write_json
from maquette.artifacts.manifest import build, read_manifest
from maquette.artifacts.progress import progress, say
from maquette.data import MixtureOrder, TokenShards
from maquette.evaluation import BaselineScore, score_baselines
from maquette.evaluation.run_page import RunReport, build_page
from maquette.evaluation.sequences import training_sequences, validation_sequences
from maquette.stages import train as train_stage
from maquette.stages.config import DemoStage
from maquette.stages.tokens import TokensResult
from maquette.text import Tokenizer
from maquette.training import RunRecord, read_history


def run(config: DemoStage) -> Path:
    """Makes what is not made yet, and returns the page, `<outputs>/demo/index.html`."""
    data = train_stage.make_tokens(config)
    record = train_stage.run(config, data)
    baselines = score(config, record, data)
    page = write_page(config, record, data, baselines)
    say(f"Open {page.absolute().as_uri()}")
    return page


def score(config: DemoStage, record: RunRecord, data: TokensResult) -> Path:
    """The artifact with the baselines' scores on the run's validation text, from exactly the tokens it trained on."""

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = Tokenizer.load(data.tokenizer)
        shards = TokenShards(data.folder, tokenizer.digest)
        order = MixtureOrder(
            config.mixture, shards.tokens("train"), context=config.data.context, token_budget=record.tokens,
            seed=config.seed,
        )  # fmt: skip
        with progress("counting n-grams", 3, unit="passes") as advance:
            training = training_sequences(shards, order, record.tokens // config.data.context)
            advance(1)
            scores = score_baselines(
                training,
                validation_sequences(shards, context=config.data.context, tokens=config.data.validation_tokens),
                vocabulary_size=tokenizer.vocabulary_size,
                byte_lengths=tokenizer.byte_lengths(),
                weights=order.phases[0].weights,
                advance=advance,
            )
        facts = {"weights": order.phases[0].weights, "scores": [dataclasses.asdict(score) for score in scores]}
        write_json(folder / "scores.json", facts)
        return facts

    return build(
        "baselines",
        Path(config.outputs) / "artifacts",
        name=None,
        label=record.name.rpartition("-")[0],
        config={"validation_tokens": config.data.validation_tokens},
        inputs={"run": record.fingerprint, **record.digests},
        make=make,
        force=config.force,
        say=say,
    )


def write_page(config: DemoStage, record: RunRecord, data: TokensResult, baselines: Path) -> Path:
    """Writes the page, unless it was made from the same things already."""
    folder = Path(config.outputs) / "demo"
    page, stamp = folder / "index.html", folder / "made-from.json"
    inputs = {
        "run": digest(dataclasses.asdict(record)),
        **{path.parent.name: read_manifest(path).digest for path in (data.corpus, data.tokenizer, baselines)},
    }
    if (
        page.exists()
        and stamp.exists()
        and json.loads(stamp.read_text(encoding="utf-8")) == inputs
        and not config.force
    ):
        say("page: nothing to do, already made")
        return page
    scores = read_manifest(baselines).facts
    report = RunReport(
        record=record,
        history=read_history(Path(record.folder) / "metrics.jsonl"),
        scores=[BaselineScore(**score) for score in scores["scores"]],
        weights=scores["weights"],
        corpus=read_manifest(data.corpus).facts,
        tokenizer=json.loads((data.tokenizer / "report.json").read_text(encoding="utf-8")),
        places=places(config, record, data),
        commands=commands(config),
    )
    build_page(report).write(page)
    write_json(stamp, inputs)
    return page


def places(config: DemoStage, record: RunRecord, data: TokensResult) -> dict[str, str]:
    """What lies where."""
    run_folder = Path(record.folder)
    return {
        "The model, as a Hugging Face folder": str(run_folder / "model"),
        "Checkpoints, curves, figures, settings": record.folder,
        "Corpus and its report": str(data.corpus),
        "Tokenizer and its report": str(data.tokenizer),
        "Token shards": str(data.folder),
        "Every run’s parameters, curves and figures": config.tracking.uri or str(Path(config.outputs) / "mlflow.db"),
    }


def commands(config: DemoStage) -> dict[str, str]:
    """Why to type what next."""
    outputs = "" if config.outputs == "outputs" else f" outputs={config.outputs}"
    maquette, sentences = _command("maquette"), '"the mouse ate the cheese" "the cheese ate the mouse"'
    store = f"--backend-store-uri sqlite:///{config.outputs}/mlflow.db"
    curves = {"See the curves in MLflow, at http://127.0.0.1:5000:": f"{_command('mlflow')} ui {store}"}
    return (curves if config.tracking.enabled and config.tracking.uri is None else {}) | {
        "Let the model write:": f'{maquette} sample "def " "The license"{outputs}',
        "Ask which sentence it finds likelier:": f"{maquette} score {sentences}{outputs}",
        "Train a family of models, and compare them:": f"{maquette} train -m size=50k,100k,200k compute=1e12{outputs}\n"
        f"{maquette} runs{outputs}",
    }


def _command(name: str) -> str:
    """A command as it can be typed here: by its name, or by the path of this environment where that is not active."""
    if shutil.which(name) is not None:
        return name
    path = Path(sys.executable).parent / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
