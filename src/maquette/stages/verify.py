"""`maquette verify`: what came out, beside what was predicted; and the record over all predictions of these outputs."""

import datetime
import json
from pathlib import Path

import numpy as np
from rich.console import Console

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.progress import say
from maquette.artifacts.recall import digest_of_files, recall, remember
from maquette.scaling.predictions.outcomes import StoredPredictions, finished_runs, stored_predictions
from maquette.scaling.predictions.prediction import broken_links, find_prediction, read_predictions
from maquette.scaling.predictions.verdict import FOLDER, Verdict, Verdicts, judge_all
from maquette.stages.law_config import VerifyStage


def run(config: VerifyStage) -> list[Verdict]:
    """Judges every prediction whose run is finished (or the one that is named), and writes the record.

    Raises `StageError` where the named one can't be judged, with the reason.
    """
    predictions = read_predictions(config.outputs)
    named = None if config.prediction is None else find_prediction(config.prediction, config.outputs)
    stored = stored_predictions(config.outputs, config.tracking)
    if not predictions and named is None and not stored.digests:
        raise StageError(
            f"There is no prediction in {config.outputs} yet.", "Write one first: maquette predict compute=1e13."
        )
    found = judge_all(predictions, finished_runs(config.outputs, stored), broken_links(predictions, stored.digests))
    _write(config, found)
    _record(config, found, stored)
    shown = [verdict for verdict in found.verdicts if named is None or verdict.prediction.id == named.id]
    if named is not None and not shown:
        reasons = [words for words in found.refused if words.startswith(named.id)]
        raise StageError(
            f"There is no verdict on {named.id}: {'; '.join(reasons) or 'its run is not finished'}.",
            f"Train it: maquette train prediction={named.id}.",
        )
    _tell(config, shown, found)
    return shown


def _write(config: VerifyStage, found: Verdicts) -> None:
    """The record with its page and figure, unless they say so already."""
    folder = Path(config.outputs) / FOLDER
    sources = {"predictions": [one.digest for one in found.waiting], **found.facts()}
    if recall(folder / ".written.json", sources) == digest_of_files(folder, "[!.]*"):
        return
    from maquette.reports import render
    from maquette.reports.figures import save_figure
    from maquette.scaling.predictions.verdict import calibration_figure

    write_json(folder / "verdicts.json", found.facts())
    figure = calibration_figure(found.verdicts) if found.verdicts else None
    if figure is not None:
        save_figure(figure, folder / "calibration")
    page = {
        "record": found.facts()["calibration"], "verdicts": found.verdicts, "refused": found.refused,
        "waiting": found.waiting, "figures": {"calibration": figure},
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_text(folder / "index.html", render("calibration.html.j2", page))
    remember(folder / ".written.json", sources, digest_of_files(folder, "[!.]*"))


def _record(config: VerifyStage, found: Verdicts, stored: StoredPredictions) -> None:
    """Each verdict into the prediction's own run in MLflow, once."""
    folder = Path(config.outputs) / FOLDER
    new = {
        f"prediction-{verdict.prediction.id}": verdict
        for verdict in found.verdicts
        if f"prediction-{verdict.prediction.id}" in stored.unjudged
    }
    for name, verdict in new.items():
        from maquette.tracking import start_run

        with start_run(
            config.tracking, outputs=config.outputs, name=name, folder=folder, params={},
            tags={"verdict": verdict.words, "verdict.run": verdict.run}, run_id=stored.unjudged[name],
        ) as log:  # fmt: skip
            names = ("observed", "error_nats", "error_percent", "inside50", "inside90")
            log.log_metrics({f"verdict/{key}": float(verdict.facts()[key]) for key in names}, 0)
            for ending in (".png", ".svg"):
                log.log_artifact(folder / f"calibration{ending}", "figures")
    if new:
        stored_predictions(config.outputs, config.tracking)  # looked at now, it need not be the next time


def _tell(config: VerifyStage, shown: list[Verdict], found: Verdicts) -> None:
    if config.json:
        facts = found.facts() | {"verdicts": [verdict.facts() for verdict in shown]}
        print(json.dumps(facts, indent=2))
        return
    console = Console()
    for verdict in shown:
        console.print(f"prediction {verdict.prediction.id}, run {verdict.run}", markup=False, highlight=False)
        console.print(f"  {verdict.words}", markup=False, highlight=False)
    for words in found.refused:
        console.print(f"not counted: {words}", markup=False, highlight=False, style="yellow")
    for one in found.waiting:
        console.print(f"prediction {one.id} waits for its run: maquette train prediction={one.id}", markup=False)
    if found.verdicts:
        held = [np.mean([verdict.inside[level] for verdict in found.verdicts]) for level in (0.5, 0.9)]
        errors = [abs(verdict.relative) for verdict in found.verdicts]
        console.print(
            f"{len(found.verdicts)} verdicts: {held[0]:.0%} inside 50%, {held[1]:.0%} inside 90%; mean absolute error "
            f"{np.mean(errors):.2%}", markup=False, highlight=False,
        )  # fmt: skip
    say(f"Open {(Path(config.outputs) / FOLDER / 'index.html').absolute().as_uri()}")
