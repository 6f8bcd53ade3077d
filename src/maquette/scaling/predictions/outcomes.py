"""What became of predictions: the runs that were trained for them, in these outputs and in the MLflow store.

What the store says is kept in `<outputs>/verdicts/` until anything is recorded in it: with nothing new MLflow is not
imported.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.manifest import recall, remember
from maquette.artifacts.run_file import FINISHED, read_runs
from maquette.scaling.predictions.prediction import FOLDER as PREDICTIONS
from maquette.scaling.predictions.prediction import read_predictions
from maquette.scaling.predictions.verdict import FOLDER, Outcome, Verdicts
from maquette.tracking import find_runs, start_run, store_digest
from maquette.tracking.config import TrackingConfig
from maquette.training.record import record_of

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class StoredPredictions:
    """What the store says of predictions: `digests` of those of these outputs; `outcomes`: the finished runs that were
    trained for any; `unjudged`: MLflow's run of a prediction that has no verdict yet, by its name."""

    digests: list[str]
    outcomes: list[Outcome]
    unjudged: dict[str, str]


def stored_predictions(outputs: Path | str, tracking: TrackingConfig) -> StoredPredictions:
    """Nothing where tracking is off."""
    if not tracking.enabled:
        return StoredPredictions([], [], {})
    path = Path(outputs) / FOLDER / ".store.json"
    sources = {
        "store": store_digest(tracking, outputs), "experiment": tracking.experiment,
        "outputs": str(Path(outputs).absolute()),
    }  # fmt: skip
    if (memory := recall(path, sources)) is not None:
        return StoredPredictions(**memory | {"outcomes": [Outcome(**one) for one in memory["outcomes"]]})
    frame = find_runs(outputs, uri=tracking.uri, experiment=tracking.experiment)
    predictions = StoredPredictions(_digests(frame, outputs), _outcomes(frame), _unjudged(frame))
    remember(path, sources, dataclasses.asdict(predictions))
    return predictions


def _digests(frame: "pd.DataFrame", outputs: Path | str) -> list[str]:
    if not {"tags.kind", "tags.prediction.digest", "folder"} <= set(frame.columns):
        return []
    root = Path(outputs).absolute()
    here = [str(root / name) for name in (PREDICTIONS, FOLDER)]  # the latter once there is a verdict
    rows = frame[(frame["tags.kind"] == "prediction") & frame["folder"].isin(here)]
    return [str(digest) for digest in rows["tags.prediction.digest"].dropna()]


def _outcomes(frame: "pd.DataFrame") -> list[Outcome]:
    if not {"tags.prediction.digest", "N", "validation/loss"} <= set(frame.columns):
        return []
    rows = frame[frame["tags.prediction.digest"].notna() & frame["N"].notna() & (frame["status"] == "FINISHED")]
    return [
        Outcome(
            str(row["name"]), float(row["N"]), float(row["N_core"]), float(row["D"]), float(row["validation/loss"]),
            row["start"].isoformat(timespec="seconds"), row["tags.prediction.digest"],
            {
                str(name).removeprefix("tags.digest."): value
                for name, value in row.items()
                if str(name).startswith("tags.digest.") and isinstance(value, str)
            },
            _kinds({str(name): value for name, value in row.items()}),
        )
        for _, row in rows.iterrows()
    ]  # fmt: skip


def _unjudged(frame: "pd.DataFrame") -> dict[str, str]:
    named = frame[frame["name"].astype(str).str.startswith("prediction-")]
    judged = named["verdict/error_nats"].notna() if "verdict/error_nats" in frame.columns else None
    judged_names = set() if judged is None else set(named.loc[judged, "name"])
    reasons: dict[str, str] = {}
    for name, run_id in zip(named["name"], named["run_id"], strict=True):
        if name not in judged_names:
            reasons.setdefault(str(name), str(run_id))  # the newest comes first
    return reasons


def finished_runs(outputs: Path | str, stored: StoredPredictions) -> list[Outcome]:
    """The finished runs that were trained for a prediction: of these outputs, and those that only the store knows."""
    outcomes: dict[str, Outcome] = {}
    for folder, content in read_runs(outputs).items():
        record = record_of(content, folder)
        if record.status != FINISHED or record.spec.prediction is None or record.validation_loss is None:
            continue
        outcomes[record.name] = Outcome(
            record.name, float(record.spec.size), float(record.spec.parameters.core), float(record.spec.tokens),
            record.validation_loss, record.started, record.spec.prediction, record.spec.digests, _kinds(record.metrics),
        )  # fmt: skip
    for run in stored.outcomes:
        outcomes.setdefault(run.name, run)
    if not any(one.tasks for one in read_predictions(outputs)):
        return list(outcomes.values())
    from maquette.scaling.fits.tasks import read_scores

    scores = read_scores(outputs, set(outcomes))
    return [dataclasses.replace(run, tasks=_by_digest(scores.get(name, []))) for name, run in outcomes.items()]


def _kinds(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The loss by kind of token, where it was recorded."""
    losses = [name for name in metrics if name.startswith("token_kinds/") and name.endswith("_loss")]
    return {
        name.removeprefix("token_kinds/").removesuffix("_loss"): float(metrics[name])
        for name in losses
        if metrics[name] == metrics[name]  # a run that lacks it has NaN
    }


def _by_digest(newest_first: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    tasks: dict[str, dict[str, dict[str, float]]] = {}
    for scores in newest_first:
        for task, row in scores.items():
            tasks.setdefault(task, {}).setdefault(row["digest"], row)
    return tasks


def record_verdicts(
    verdicts: Verdicts, folder: Path, stored: StoredPredictions, outputs: Path | str, tracking: TrackingConfig
) -> None:
    """Each verdict into the prediction's own run in MLflow, once. `folder`: where the figure of all of them lies."""
    new = {
        name: verdict
        for verdict in verdicts.verdicts
        if (name := f"prediction-{verdict.prediction.id}") in stored.unjudged
    }
    for name, verdict in new.items():
        with start_run(
            tracking, outputs=outputs, name=name, folder=folder, params={},
            tags={"verdict": verdict.words, "verdict.run": verdict.run}, run_id=stored.unjudged[name],
        ) as log:  # fmt: skip
            names = ("observed", "error_nats", "error_percent", "inside50", "inside90")
            log.log_metrics({f"verdict/{key}": float(verdict.facts()[key]) for key in names}, 0)
            for ending in (".png", ".svg"):
                log.log_artifact(folder / f"calibration{ending}", "figures")
    if new:
        stored_predictions(outputs, tracking)  # looked at now, it need not be the next time
