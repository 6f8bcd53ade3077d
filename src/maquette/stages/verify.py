"""`maquette verify`: what came out, beside what was predicted; and the record over all predictions of these outputs."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import read_runs
from maquette.reports import render
from maquette.reports.figures import save_figure
from maquette.scaling.predictions.prediction import FOLDER as PREDICTIONS
from maquette.scaling.predictions.prediction import (
    WrittenPrediction,
    broken_links,
    find_prediction,
    read_predictions,
)
from maquette.scaling.predictions.verdict import (
    Outcome,
    Verdict,
    calibration,
    calibration_figure,
    judge,
    refusal,
)
from maquette.stages.law_config import VerifyStage
from maquette.tracking import find_runs, start_run
from maquette.training.record import FINISHED, record_of

FOLDER = "verdicts"


def run(config: VerifyStage) -> list[Verdict]:
    """Judges every prediction whose run is finished (or the one that is named), and writes the record.

    Raises `StageError` where the named one can't be judged, with the reason.
    """
    predictions = read_predictions(config.outputs)
    named = None if config.prediction is None else find_prediction(config.prediction, config.outputs)
    recorded = recorded_predictions(config)
    if not predictions and named is None and not recorded:
        raise StageError(
            f"There is no prediction in {config.outputs} yet.", "Write one first: maquette predict compute=1e13."
        )
    outcomes = finished_runs(config)
    verdicts, refused, waiting = [], broken_links(predictions, recorded), []
    for prediction in predictions:
        verdict, reasons = _judged(prediction, outcomes)
        if verdict is not None:
            verdicts.append(verdict)
        elif reasons:
            refused += [f"{prediction.id}: {reason}" for reason in reasons]
        else:
            waiting.append(prediction)
    _write(config, verdicts, refused, waiting)
    shown = [verdict for verdict in verdicts if named is None or verdict.prediction.id == named.id]
    if named is not None and not shown:
        reasons = [words for words in refused if words.startswith(named.id)]
        raise StageError(
            f"There is no verdict on {named.id}: {'; '.join(reasons) or 'its run is not finished'}.",
            f"Train it: maquette train prediction={named.id}.",
        )
    _tell(config, shown, verdicts, refused, waiting)
    return shown


def recorded_predictions(config: VerifyStage) -> list[str]:
    """Digests of the predictions of these outputs that MLflow knows."""
    if not config.tracking.enabled:
        return []
    frame = find_runs(config.outputs, uri=config.tracking.uri, experiment=config.tracking.experiment)
    if not {"tags.kind", "tags.prediction.digest", "folder"} <= set(frame.columns):
        return []
    root = Path(config.outputs).absolute()
    here = [str(root / name) for name in (PREDICTIONS, FOLDER)]  # the latter once there is a verdict
    rows = frame[(frame["tags.kind"] == "prediction") & frame["folder"].isin(here)]
    return rows["tags.prediction.digest"].dropna().tolist()


def finished_runs(config: VerifyStage) -> list[Outcome]:
    """The finished runs that were trained for a prediction: of these outputs, and those that only the store knows."""
    found = {}
    for folder, content in read_runs(config.outputs).items():
        record = record_of(content, folder)
        if record.status != FINISHED or record.spec.prediction is None or record.validation_loss is None:
            continue
        found[record.name] = Outcome(
            record.name, float(record.spec.size), float(record.spec.parameters.core), float(record.spec.tokens),
            record.validation_loss, record.started, record.spec.prediction, record.spec.digests,
        )  # fmt: skip
    if not config.tracking.enabled:
        return list(found.values())
    frame = find_runs(config.outputs, uri=config.tracking.uri, experiment=config.tracking.experiment)
    if not {"tags.prediction.digest", "N", "validation/loss"} <= set(frame.columns):
        return list(found.values())
    rows = frame[frame["tags.prediction.digest"].notna() & frame["N"].notna() & (frame["status"] == "FINISHED")]
    for _, row in rows.iterrows():
        digests = {
            str(name).removeprefix("tags.digest."): value
            for name, value in row.items()
            if str(name).startswith("tags.digest.") and isinstance(value, str)
        }
        started = row["start"].isoformat(timespec="seconds")
        found.setdefault(
            str(row["name"]),
            Outcome(
                str(row["name"]), float(row["N"]), float(row["N_core"]), float(row["D"]), float(row["validation/loss"]),
                started, row["tags.prediction.digest"], digests,
            ),
        )  # fmt: skip
    return list(found.values())


def _judged(prediction: WrittenPrediction, outcomes: list[Outcome]) -> tuple[Verdict | None, list[str]]:
    """The verdict, or what the runs that claim to decide it have against them."""
    claimants = [run for run in outcomes if run.prediction is not None and run.prediction[:8] == prediction.id]
    reasons = []
    for run in claimants:
        if not (reason := refusal(prediction, run)):
            return judge(prediction, run), []
        reasons.append(reason)
    return None, reasons


def _write(config: VerifyStage, verdicts: list[Verdict], refused: list[str], waiting: list[WrittenPrediction]) -> None:
    folder = Path(config.outputs) / FOLDER
    facts = [verdict.facts() for verdict in verdicts]
    write_json(
        folder / "verdicts.json",
        {
            "verdicts": facts,
            "calibration": calibration(verdicts),
            "refused": refused,
            "waiting": [p.id for p in waiting],
        },
    )
    figure = calibration_figure(verdicts) if verdicts else None
    picture = None if figure is None else save_figure(figure, folder / "calibration")
    page = {
        "record": calibration(verdicts), "verdicts": verdicts, "refused": refused, "waiting": waiting,
        "figures": {"calibration": figure},
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_text(folder / "index.html", render("calibration.html.j2", page))
    _record(config, verdicts, picture)


def _record(config: VerifyStage, verdicts: list[Verdict], picture: Path | None) -> None:
    """Each verdict into the prediction's own run in MLflow, once."""
    if not config.tracking.enabled or not verdicts:
        return
    frame = find_runs(config.outputs, uri=config.tracking.uri, experiment=config.tracking.experiment)
    for verdict in verdicts:
        name = f"prediction-{verdict.prediction.id}"
        rows = frame[frame["name"] == name]
        known = rows.get("verdict/error_nats")
        if not len(rows) or (known is not None and known.notna().any()):
            continue
        folder = Path(config.outputs) / FOLDER
        with start_run(
            config.tracking, outputs=config.outputs, name=name, folder=folder, params={},
            tags={"verdict": verdict.words, "verdict.run": verdict.run}, run_id=str(rows["run_id"].iloc[0]),
        ) as log:  # fmt: skip
            names = ("observed", "error_nats", "error_percent", "inside50", "inside90")
            log.log_metrics({f"verdict/{key}": float(verdict.facts()[key]) for key in names}, 0)
            if picture is not None:
                log.log_artifact(picture, "figures")
                log.log_artifact(picture.with_suffix(".svg"), "figures")


def _tell(
    config: VerifyStage, shown: list[Verdict], verdicts: list[Verdict], refused: list[str],
    waiting: list[WrittenPrediction],
) -> None:  # fmt: skip
    if config.json:
        values: dict[str, Any] = {"verdicts": [v.facts() for v in shown], "calibration": calibration(verdicts)}
        print(json.dumps({**values, "refused": refused, "waiting": [one.id for one in waiting]}, indent=2))
        return
    console = Console()
    for verdict in shown:
        console.print(f"prediction {verdict.prediction.id}, run {verdict.run}", markup=False, highlight=False)
        console.print(f"  {verdict.words}", markup=False, highlight=False)
    for words in refused:
        console.print(f"not counted: {words}", markup=False, highlight=False, style="yellow")
    for one in waiting:
        console.print(f"prediction {one.id} waits for its run: maquette train prediction={one.id}", markup=False)
    if verdicts:
        held = [np.mean([verdict.inside[level] for verdict in verdicts]) for level in (0.5, 0.9)]
        errors = [abs(verdict.relative) for verdict in verdicts]
        console.print(
            f"{len(verdicts)} verdicts: {held[0]:.0%} inside 50%, {held[1]:.0%} inside 90%; mean absolute error "
            f"{np.mean(errors):.2%}", markup=False, highlight=False,
        )  # fmt: skip
    say(f"Open {(Path(config.outputs) / FOLDER / 'index.html').absolute().as_uri()}")
