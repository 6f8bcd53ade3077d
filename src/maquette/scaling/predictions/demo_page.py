"""The demo's page: the law, the prediction and its verdict, what alignment made of the model, and the model itself."""

import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.artifacts.files import write_text
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.reading import load_table
from maquette.evaluation import BaselineScore
from maquette.evaluation.run_report import RunReport
from maquette.feedback.study.report import read_study
from maquette.reports import render
from maquette.reports.figures import COLORS
from maquette.scaling.fits.stored_fit import load_fit
from maquette.scaling.fits.sweep_figures import CAPTIONS, isoflop_curves, loss_against_compute
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.forecast import Forecast
from maquette.scaling.predictions.verdict import Verdict
from maquette.tracking.config import TrackingConfig
from maquette.training import RunRecord, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_page(
    path: Path,
    verdict: Verdict,
    fit: Path,
    record: RunRecord,
    study: Path | None,
    *,
    corpus: Path,
    tokenizer: Path,
    tokens: Path,
    baselines: Path,
    outputs: str,
    tracking: TrackingConfig,
    seed: int,
) -> None:
    """Writes the page to `path`; the folders are those of what it tells of."""
    scores = read_manifest(baselines).facts
    report = RunReport(
        record=record,
        history=read_history(Path(record.folder) / "metrics.jsonl"),
        scores=[BaselineScore(**score) for score in scores["scores"]],
        weights=scores["weights"],
        corpus=read_manifest(corpus).facts,
        tokenizer=load_table(tokenizer / "report.json"),
        places=places(outputs, tracking, record, fit, corpus=corpus, tokenizer=tokenizer, tokens=tokens),
        commands=commands(outputs, tracking),
    )
    law, _ = load_fit(fit)
    prediction = PredictionReport(law, verdict)
    shown = {
        "prediction": prediction, "report": report, "study": None if study is None else read_study(study),
        "figures": prediction.figures() | report.figures(), "captions": CAPTIONS,
        "outputs": Path(outputs).name, "seed": seed,
    }  # fmt: skip
    write_text(path, render("demo.html.j2", shown))


def places(
    outputs: str, tracking: TrackingConfig, record: RunRecord, fit: Path, *, corpus: Path, tokenizer: Path, tokens: Path
) -> dict[str, str]:
    """What lies where."""
    run_folder = Path(record.folder)
    return {
        "The law: every figure, table and the card": str(fit / "index.html"),
        "The record of all predictions": str(Path(outputs) / "verdicts" / "index.html"),
        "The model, as a Hugging Face folder": str(run_folder / "model"),
        "Checkpoints, curves, figures, settings": record.folder,
        "Corpus and its report": str(corpus),
        "Tokenizer and its report": str(tokenizer),
        "Token shards": str(tokens),
        "Every run’s parameters, curves and figures": tracking.uri or str(Path(outputs) / "mlflow.db"),
    }


def commands(outputs: str, tracking: TrackingConfig) -> dict[str, str]:
    """Why to type what next."""
    elsewhere = "" if outputs == "outputs" else f" outputs={outputs}"
    maquette, sentences = _command("maquette"), '"the mouse ate the cheese" "the cheese ate the mouse"'
    store = f"--backend-store-uri sqlite:///{outputs}/mlflow.db"
    curves = {"See the curves in MLflow, at http://127.0.0.1:5000:": f"{_command('mlflow')} ui {store}"}
    return (curves if tracking.enabled and tracking.uri is None else {}) | {
        "Let the model write:": f'{maquette} sample "def " "The license"{elsewhere}',
        "Write with it in the browser, each token shaded by its probability:": f"{maquette} chat{elsewhere}",
        "Ask which sentence it finds likelier:": f"{maquette} score {sentences}{elsewhere}",
        "Train a family of your own, fit its law, and predict:": f"{maquette} train -m +sweep=isoflop{elsewhere}\n"
        f"{maquette} fit{elsewhere}\n{maquette} predict compute=1e14{elsewhere}",
        "Compare all runs:": f"{maquette} runs{elsewhere}",
    }


def _command(name: str) -> str:
    """A command as it can be typed here: by its name, or by the path of this environment where that is not active."""
    if shutil.which(name) is not None:
        return name
    path = Path(sys.executable).parent / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@dataclass(frozen=True)
class PredictionReport:
    """The law that predicted, and the verdict on what it said."""

    fit: SweepFit
    verdict: Verdict

    @cached_property
    def by_form(self) -> dict[str, Forecast]:
        """What each form of law says of the run, with its 90% interval."""
        prediction = self.verdict.prediction
        return {
            form: self.fit.predict(
                prediction.params,
                prediction.tokens,
                compute=prediction.compute,
                form=form,
            )
            for form in self.fit.forms
        }

    @property
    def worst(self) -> tuple[str, float]:
        """The form that was the farthest off, and its relative error."""
        errors = {form: forecast.loss / self.verdict.loss - 1 for form, forecast in self.by_form.items()}
        form = max(errors, key=lambda name: abs(errors[name]))
        return form, errors[form]

    def figures(self) -> dict[str, "Figure"]:
        """The curves of the family, and loss over compute with the prediction's interval and the run."""
        figure = loss_against_compute(self.fit)
        axes, prediction = figure.axes[0], self.verdict.prediction
        low, high = prediction.interval90
        axes.errorbar(
            prediction.compute, prediction.loss, yerr=[[prediction.loss - low], [high - prediction.loss]],
            fmt="_", color="black", capsize=5, lw=1.6, label="prediction, 90%",
        )  # fmt: skip
        axes.plot(prediction.compute, self.verdict.loss, "o", color=COLORS[1], ms=8, zorder=5, label="observed")
        axes.legend(fontsize=8)
        return {"prediction": figure, "isoflop": isoflop_curves(self.fit)}
