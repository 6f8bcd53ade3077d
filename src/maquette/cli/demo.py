"""`maquette demo`: small models, the law they obey, a prediction for one of ten times their compute, and the verdict.

The law and the prediction are on disk before the predicted model's first step. A page tells it all.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.errors import StageError
from maquette.artifacts.files import digest, read_json, write_json
from maquette.artifacts.manifest import build, read_manifest
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import load_table
from maquette.artifacts.settings import parse_quantity
from maquette.cli import fit as fit_stage
from maquette.cli import tokens as tokens_stage
from maquette.cli import train as train_stage
from maquette.cli import verify
from maquette.cli.command_line.composition import words_of
from maquette.cli.command_line.config import DemoStage
from maquette.cli.command_line.functions import sweep
from maquette.cli.command_line.law_config import FitStage, PredictStage, VerifyStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.predicted import made_here, settings_of_run
from maquette.data.token_artifacts import TokensResult
from maquette.recipe.run_spec import RunSpec
from maquette.recipe.sweeps import isoflop_curve
from maquette.scaling.predictions.prediction import FOLDER, WrittenPrediction, is_local, read_predictions
from maquette.scaling.predictions.verdict import Verdict
from maquette.text import Tokenizer
from maquette.training.record import RunRecord

_FAMILY = ["callbacks.samples.prompts=[]", "num_validations=2"]
"""Of the small models only the end is looked at."""

_SCALE = ("size", "tokens", "compute", "reach")
"""What the sweep sets, or only the demo has."""


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
    data = tokens_stage.make_tokens(config)
    question = FitStage(
        outputs=config.outputs, runs=train_family(config), tracking=config.tracking, force=config.force
    )  # fmt: skip
    fit = fit_stage.run(question)
    prediction = predict_larger(config, fit, data)
    record = train_predicted(config, prediction, data)
    (verdict,) = verify.run(VerifyStage(outputs=config.outputs, prediction=prediction.id, tracking=config.tracking))
    fit_stage.question(question).remember(fit)  # other things were recorded since
    return Demo(config, record, data, score(config, record, data), fit, verdict)


def train_family(config: DemoStage) -> str:
    """Trains the IsoFLOP sweep of the settings, and returns its name. Raises `StageError` where a run failed."""
    if not config.sweep.budgets:
        raise StageError("The demo needs budgets to train a family at.", "Set sweep.budgets, such as [1e11,3e11,1e12].")
    stage = STAGES["train"]
    report = sweep(stage, ["+sweep=isoflop", *words_of(config, _is_of_the_family), *_FAMILY])
    if report.exit_code:
        raise StageError(
            f"Not all runs of the sweep {report.name} came through; they are named above.", "The same command goes on."
        )
    return report.name


def _is_of_the_family(key: str) -> bool:
    """Whether the small models have a setting of the demo's."""
    shared = key.partition(".")[0] in ("outputs", "logger", "sweep") and not key.endswith(".save_dir")
    return key not in _SCALE and (shared or not is_local(key))


def predict_larger(config: DemoStage, fit: Path, data: TokensResult) -> WrittenPrediction:
    """The prediction by `fit` of a model at `reach` times the largest budget: as it was written, or new.

    Its size is what the recipe expects to be best: the minima of so small a sweep scatter too much to choose it.
    """
    compute = config.reach * max(parse_quantity(budget, "sweep.budgets") for budget in config.sweep.budgets)
    law = read_manifest(fit).digest
    for one in reversed(read_predictions(config.outputs)):
        if one.fit_digest == law and abs(one.compute / compute - 1) < 0.05:
            say(f"prediction {one.id}: up to date")
            return one
    curve = isoflop_curve(
        compute, count=3, ratio=config.sweep.ratio, tokens_per_parameter=config.tokens_per_parameter,
        model=config.model, vocab_size=Tokenizer.load(data.tokenizer).vocab_size,
        context=config.data.sequence_length, phases=config.mixture.phases,
    )  # fmt: skip
    from maquette.cli import predict

    return predict.run(
        PredictStage(
            outputs=config.outputs, fit=str(fit), size=f"{curve.sizes[1]}", compute=f"{compute:g}",
            tracking=config.tracking,
        )
    )  # fmt: skip


def train_predicted(config: DemoStage, prediction: WrittenPrediction, data: TokensResult) -> RunRecord:
    """Trains exactly the run that was predicted, on the devices of the settings."""
    assert prediction.spec is not None
    source = Path(config.outputs) / FOLDER / f"{prediction.id}.json"
    planned = settings_of_run(RunSpec.from_json(prediction.spec), source)
    return train_stage.run(dataclasses.replace(made_here(planned, config), prediction=prediction.id, force=False), data)


def score(config: DemoStage, record: RunRecord, data: TokensResult) -> Path:
    """The artifact with the baselines' scores on the run's validation text, from exactly the tokens it trained on."""

    def make(folder: Path) -> dict[str, Any]:
        from maquette.evaluation.baselines import baseline_facts

        with progress("counting n-grams", 3, unit="passes") as advance:
            facts = baseline_facts(
                data.folder, Tokenizer.load(data.tokenizer), config.mixture, context=config.data.sequence_length,
                tokens=record.spec.tokens, seed=config.seed, validation_tokens=config.data.validation_tokens,
                advance=advance,
            )  # fmt: skip
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
    if page.exists() and read_json(stamp) == inputs and not config.force:
        say("page: up to date")
        return page
    from maquette.scaling.predictions.demo_page import draw_page

    draw_page(
        page,
        demo.verdict,
        demo.fit,
        record,
        study,
        corpus=data.corpus,
        tokenizer=data.tokenizer,
        tokens=data.folder,
        baselines=demo.baselines,
        outputs=config.outputs,
        tracking=config.tracking,
        seed=config.seed,
    )
    write_json(stamp, inputs)
    return page


def _study(remembered: Path, record: RunRecord) -> Path | None:
    """The comparison that was last shown, where it is still there and began at this run."""
    if not remembered.exists():
        return None
    study = remembered.parent.parent / str(load_table(remembered).get("study"))
    if not (study / "results.json").exists() or record.spec.fingerprint not in read_manifest(study).inputs.values():
        return None
    return Path(study)
