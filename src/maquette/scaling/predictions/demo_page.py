"""The demo's page: the law, the prediction and its verdict, what alignment made of the model, and the model itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.evaluation import BaselineScore
from maquette.evaluation.training_runs.run_page import RunReport, add_model
from maquette.feedback.study.report import add_study
from maquette.scaling.fits.stored_fit import load_fit
from maquette.scaling.predictions.prediction_page import add_law, add_prediction, new_page
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
    footer: str,
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
    page = new_page(law, verdict, footer=footer)
    add_prediction(page, law, verdict)
    if study is not None:
        add_study(page, study)
    add_law(page, law)
    add_model(page, report)
    page.write(path)
