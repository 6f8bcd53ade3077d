"""`maquette demo`: small models, the law they obey, a prediction for one of ten times their compute, and the verdict.

The law and the prediction are on disk before the predicted model's first step. A page tells it all.
"""

import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.errors import StageError
from maquette.artifacts.files import digest, write_json, write_text
from maquette.artifacts.manifest import build, read_manifest
from maquette.artifacts.progress import progress, say
from maquette.artifacts.settings import parse_quantity
from maquette.data import MixtureOrder, TokenShards
from maquette.evaluation import BaselineScore, score_baselines
from maquette.evaluation.likelihood import training_sequences, validation_sequences
from maquette.evaluation.run_report import RunReport
from maquette.feedback.study.report import read_study
from maquette.recipe.sweeps import isoflop_curve
from maquette.reports import render
from maquette.scaling.fits.stored_fit import load_fit
from maquette.scaling.fits.sweep_figures import CAPTIONS
from maquette.scaling.predictions.prediction import WrittenPrediction, read_predictions
from maquette.scaling.predictions.prediction_report import PredictionReport
from maquette.scaling.predictions.verdict import Verdict
from maquette.stages import STAGES, predict, verify
from maquette.stages import fit as fit_stage
from maquette.stages import train as train_stage
from maquette.stages.composition import compose
from maquette.stages.config import DemoStage, TrainStage
from maquette.stages.family_settings import is_elsewhere, literal, settings_of
from maquette.stages.functions import sweep
from maquette.stages.law_config import FitStage, PredictStage, VerifyStage
from maquette.stages.tokens import TokensResult
from maquette.text import Tokenizer
from maquette.training import RunRecord, read_history

_FAMILY = ["callbacks.samples.prompts=[]", "num_validations=2"]
"""Of the small models only the end is looked at."""


@dataclass(frozen=True)
class Demo:
    """All that the demo has made: the predicted model's run, what it learned from, its rivals, the law, the verdict."""

    config: DemoStage
    record: RunRecord
    data: TokensResult
    baselines: Path
    fit: Path
    verdict: Verdict


def run(config: DemoStage) -> Path:
    """Makes what is not made yet, and returns the page, `<outputs>/demo/index.html`."""
    page = write_page(make(config))
    say(f"Open {page.absolute().as_uri()}")
    return page


def make(config: DemoStage) -> Demo:
    """The demo without its page: makes what is not made yet."""
    if config.pretokenized.path is not None:
        raise ConfigError("The demo measures text, and pretokenized has none.", "Leave pretokenized.path out.")
    data = train_stage.make_tokens(config)
    fit = fit_stage.run(
        FitStage(outputs=config.outputs, runs=train_family(config), tracking=config.tracking, force=config.force)
    )
    prediction = predict_larger(config, fit, data)
    record = train_predicted(config, prediction, data)
    (verdict,) = verify.run(VerifyStage(outputs=config.outputs, prediction=prediction.id, tracking=config.tracking))
    return Demo(config, record, data, score(config, record, data), fit, verdict)


def train_family(config: DemoStage) -> str:
    """Trains the IsoFLOP sweep of the settings, and returns its name. Raises `StageError` where a run failed."""
    if not config.sweep.budgets:
        raise StageError("The demo needs budgets to train a family at.", "Set sweep.budgets, such as [1e11,3e11,1e12].")
    stage = STAGES["train"]
    words = ["+sweep=isoflop", *_overrides(config), *_FAMILY, *_places(config)]
    report = sweep(stage, words)
    if report.exit_code:
        raise StageError(
            f"Not all runs of the sweep {report.name} came through; they are named above.", "The same command goes on."
        )
    return report.name


def predict_larger(config: DemoStage, fit: Path, data: TokensResult) -> WrittenPrediction:
    """The prediction by `fit` of a model at `reach` times the largest budget: as it was written, or new.

    Its size is what the recipe expects to be best: the minima of so small a sweep scatter too much to choose it.
    """
    compute = config.reach * max(parse_quantity(budget, "sweep.budgets") for budget in config.sweep.budgets)
    law = read_manifest(fit).digest
    for one in reversed(read_predictions(config.outputs)):
        if one.fit_digest == law and abs(one.compute / compute - 1) < 0.05:
            say(f"prediction {one.id}: nothing to do, already written")
            return one
    curve = isoflop_curve(
        compute, count=3, ratio=config.sweep.ratio, tokens_per_parameter=config.tokens_per_parameter,
        model=config.model, vocab_size=Tokenizer.load(data.tokenizer).vocab_size,
        context=config.data.sequence_length, phases=config.mixture.phases,
    )  # fmt: skip
    return predict.run(
        PredictStage(
            outputs=config.outputs, fit=str(fit), size=f"{curve.sizes[1]}", compute=f"{compute:g}",
            tracking=config.tracking,
        )
    )  # fmt: skip


def train_predicted(config: DemoStage, prediction: WrittenPrediction, data: TokensResult) -> RunRecord:
    """Trains exactly the run that was predicted, on the devices of the settings."""
    on = [
        text
        for text in _differences(config)
        if text.startswith(("trainer.", "threads=", "callbacks.")) and is_elsewhere(text.partition("=")[0])
    ]
    settings = compose(STAGES["train"], [f"prediction={prediction.id}", *on, *_places(config)])
    assert isinstance(settings, TrainStage)
    return train_stage.run(settings, data)


def _overrides(config: DemoStage) -> list[str]:
    """The settings that decide what is trained, as words of `maquette train`."""
    left = ("size", "tokens", "compute", "reach")
    return [
        text for text in _differences(config)
        if not is_elsewhere(key := text.partition("=")[0]) and key not in left
    ]  # fmt: skip


def _differences(config: DemoStage) -> list[str]:
    usual = settings_of(compose(STAGES["train"]))
    return [f"{key}={literal(value)}" for key, value in settings_of(config).items() if value != usual.get(key, value)]


def _places(config: DemoStage) -> list[str]:
    """Where a run is written and recorded."""
    usual, chosen = settings_of(compose(STAGES["train"])), settings_of(config)
    words = [f"{key}={literal(value)}" for key, value in chosen.items()
             if key.startswith("logger.") and not key.endswith(".save_dir")
             and value != usual.get(key, value)]  # fmt: skip
    return [f"outputs={literal(config.outputs)}", *([] if config.logger else ["logger=none"]), *words]


def score(config: DemoStage, record: RunRecord, data: TokensResult) -> Path:
    """The artifact with the baselines' scores on the run's validation text, from exactly the tokens it trained on."""

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = Tokenizer.load(data.tokenizer)
        shards = TokenShards(data.folder, tokenizer.digest)
        order = MixtureOrder(
            config.mixture, shards.tokens("train"), context=config.data.sequence_length,
            token_budget=record.spec.tokens, seed=config.seed,
        )  # fmt: skip
        with progress("counting n-grams", 3, unit="passes") as advance:
            training = training_sequences(shards, order, record.spec.tokens // config.data.sequence_length)
            advance(1)
            scores = score_baselines(
                training,
                validation_sequences(shards, context=config.data.sequence_length, tokens=config.data.validation_tokens),
                vocab_size=tokenizer.vocab_size,
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
        inputs={"run": record.spec.fingerprint, **record.spec.digests},
        make=make,
        force=config.force,
        say=say,
    )


def write_page(demo: Demo, study: Path | None = None) -> Path:
    """Writes the page, unless it was made from the same things already. `study`: the folder of a comparison of policies
    that began at the demo's model; the page tells of it from then on."""
    config, record, data = demo.config, demo.record, demo.data
    folder = Path(config.outputs) / "demo"
    page, stamp, remembered = folder / "index.html", folder / "made-from.json", folder / "study.json"
    if study is not None:
        write_json(remembered, {"study": str(study.relative_to(config.outputs))})
    study = _study(remembered, record)
    assert data.corpus is not None  # `make` takes no tokens without text
    pieces = [data.corpus, data.tokenizer, demo.baselines, demo.fit, *([study] if study else [])]
    inputs = {
        "run": digest(dataclasses.asdict(record)),
        "prediction": demo.verdict.prediction.digest,
        **{path.parent.name: read_manifest(path).digest for path in pieces},
    }
    if (
        page.exists()
        and stamp.exists()
        and json.loads(stamp.read_text(encoding="utf-8")) == inputs
        and not config.force
    ):
        say("page: nothing to do, already made")
        return page
    scores = read_manifest(demo.baselines).facts
    report = RunReport(
        record=record,
        history=read_history(Path(record.folder) / "metrics.jsonl"),
        scores=[BaselineScore(**score) for score in scores["scores"]],
        weights=scores["weights"],
        corpus=read_manifest(data.corpus).facts,
        tokenizer=json.loads((data.tokenizer / "report.json").read_text(encoding="utf-8")),
        places=places(config, record, data, demo.fit),
        commands=commands(config),
    )
    law, _ = load_fit(demo.fit)
    prediction = PredictionReport(law, demo.verdict)
    shown = {
        "prediction": prediction, "report": report, "study": None if study is None else read_study(study),
        "figures": prediction.figures() | report.figures(), "captions": CAPTIONS,
        "outputs": Path(config.outputs).name, "seed": config.seed,
    }  # fmt: skip
    write_text(page, render("demo.html.j2", shown))
    write_json(stamp, inputs)
    return page


def _study(remembered: Path, record: RunRecord) -> Path | None:
    """The comparison that was last shown, where it is still there and began at this run."""
    if not remembered.exists():
        return None
    study = remembered.parent.parent / json.loads(remembered.read_text(encoding="utf-8"))["study"]
    if not (study / "results.json").exists() or record.spec.fingerprint not in read_manifest(study).inputs.values():
        return None
    return Path(study)


def places(config: DemoStage, record: RunRecord, data: TokensResult, fit: Path) -> dict[str, str]:
    """What lies where."""
    run_folder = Path(record.folder)
    return {
        "The law: every figure, table and the card": str(fit / "index.html"),
        "The record of all predictions": str(Path(config.outputs) / "verdicts" / "index.html"),
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
        "Write with it in the browser, each token shaded by its probability:": f"{maquette} chat{outputs}",
        "Ask which sentence it finds likelier:": f"{maquette} score {sentences}{outputs}",
        "Train a family of your own, fit its law, and predict:": f"{maquette} train -m +sweep=isoflop{outputs}\n"
        f"{maquette} fit{outputs}\n{maquette} predict compute=1e14{outputs}",
        "Compare all runs:": f"{maquette} runs{outputs}",
    }


def _command(name: str) -> str:
    """A command as it can be typed here: by its name, or by the path of this environment where that is not active."""
    if shutil.which(name) is not None:
        return name
    path = Path(sys.executable).parent / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
