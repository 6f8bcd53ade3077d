"""The demo's page: the law, the prediction and its verdict, what alignment made of the model, and the model itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.files import write_text
from maquette.evaluation import BaselineScore
from maquette.evaluation.run_report import RunReport
from maquette.feedback.study.report import read_study
from maquette.reports import render
from maquette.scaling.fits.stored_fit import load_fit
from maquette.scaling.fits.sweep_figures import CAPTIONS
from maquette.scaling.predictions.prediction_report import PredictionReport
from maquette.scaling.predictions.verdict import Verdict
from maquette.training import RunRecord, read_history


def draw_page(
    path: Path,
    verdict: Verdict,
    fit: Path,
    record: RunRecord,
    study: Path | None,
    *,
    scores: Mapping[str, Any],
    outputs: str,
    seed: int,
    **of_run: Any,
) -> None:
    """Writes the page to `path`. `fit` and `study` are folders; `scores`: the baselines', and the mixture's weights;
    `of_run`: see `RunReport`."""
    report = RunReport(
        record=record,
        history=read_history(Path(record.folder) / "metrics.jsonl"),
        scores=[BaselineScore(**score) for score in scores["scores"]],
        weights=scores["weights"],
        **of_run,
    )
    law, _ = load_fit(fit)
    prediction = PredictionReport(law, verdict)
    shown = {
        "prediction": prediction, "report": report, "study": None if study is None else read_study(study),
        "figures": prediction.figures() | report.figures(), "captions": CAPTIONS, "outputs": outputs, "seed": seed,
    }  # fmt: skip
    write_text(path, render("demo.html.j2", shown))
