"""The demo's page: the law, the prediction and its verdict, what alignment made of the model, and the model itself."""

import dataclasses
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from maquette.artifacts.files import digest, read_json, write_json, write_text
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.reading import load_table
from maquette.data.token_artifacts import TokensResult
from maquette.scaling.predictions.verdict import Verdict
from maquette.tracking.config import TrackingConfig
from maquette.training.record import RunRecord


@dataclass(frozen=True)
class DemoPage:
    """What the demo has made, and where: the predicted model's run, what it learned from, its rivals, the law and the
    verdict."""

    outputs: str
    tracking: TrackingConfig
    seed: int
    record: RunRecord
    data: TokensResult
    baselines: Path
    fit: Path
    verdict: Verdict

    def write(self, study: Path | None = None, *, force: bool = False) -> Path:
        """Writes `<outputs>/demo/index.html`, unless it was made from the same things already. `study`: the folder of a
        comparison of policies that began at the demo's model; the page tells of it from then on."""
        folder = Path(self.outputs) / "demo"
        page, stamp, remembered = folder / "index.html", folder / "made-from.json", folder / "study.json"
        if study is not None:
            write_json(remembered, {"study": str(study.relative_to(self.outputs))})
        study = self._study(remembered)
        assert self.data.corpus is not None  # the demo takes no tokens without text
        pieces = [self.data.corpus, self.data.tokenizer, self.baselines, self.fit, *([study] if study else [])]
        inputs = {
            "run": digest(dataclasses.asdict(self.record)),
            "prediction": self.verdict.prediction.digest,
            **{path.parent.name: read_manifest(path).digest for path in pieces},
        }
        if page.exists() and read_json(stamp) == inputs and not force:
            say("page: up to date")
            return page
        self._draw(page, self.data.corpus, study)
        write_json(stamp, inputs)
        return page

    def _study(self, remembered: Path) -> Path | None:
        """The comparison that was last shown, where it is still there and began at this run."""
        if not remembered.exists():
            return None
        study = Path(self.outputs) / str(load_table(remembered).get("study"))
        began_here = (study / "results.json").exists() and (
            self.record.spec.fingerprint in read_manifest(study).inputs.values()
        )
        return study if began_here else None

    def _draw(self, page: Path, corpus: Path, study: Path | None) -> None:
        from maquette.evaluation import BaselineScore
        from maquette.evaluation.run_report import RunReport
        from maquette.feedback.study.report import read_study
        from maquette.reports import render
        from maquette.scaling.fits.stored_fit import load_fit
        from maquette.scaling.fits.sweep_figures import CAPTIONS
        from maquette.scaling.predictions.prediction_report import PredictionReport
        from maquette.training.metrics_file import read_history

        scores = read_manifest(self.baselines).facts
        report = RunReport(
            record=self.record,
            history=read_history(Path(self.record.folder) / "metrics.jsonl"),
            scores=[BaselineScore(**score) for score in scores["scores"]],
            weights=scores["weights"],
            corpus=read_manifest(corpus).facts,
            tokenizer=load_table(self.data.tokenizer / "report.json"),
            places=self._places(),
            commands=commands(self.outputs, self.tracking),
        )
        prediction = PredictionReport(load_fit(self.fit)[0], self.verdict)
        shown = {
            "prediction": prediction, "report": report, "study": None if study is None else read_study(study),
            "figures": prediction.figures() | report.figures(), "captions": CAPTIONS,
            "outputs": Path(self.outputs).name, "seed": self.seed,
        }  # fmt: skip
        write_text(page, render("demo.html.j2", shown))

    def _places(self) -> dict[str, str]:
        """What lies where."""
        return {
            "The law: every figure, table and the card": str(self.fit / "index.html"),
            "The record of all predictions": str(Path(self.outputs) / "verdicts" / "index.html"),
            "The model, as a Hugging Face folder": str(Path(self.record.folder) / "model"),
            "Checkpoints, curves, figures, settings": self.record.folder,
            "Corpus and its report": str(self.data.corpus),
            "Tokenizer and its report": str(self.data.tokenizer),
            "Token shards": str(self.data.folder),
            "Every run’s parameters, curves and figures": self.tracking.uri or str(Path(self.outputs) / "mlflow.db"),
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
