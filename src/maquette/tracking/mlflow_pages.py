"""How an experiment looks in MLflow's own pages: as model training, with saved views of its runs.

A view is what MLflow's "Share" keeps: a tag of the experiment with columns, filter, charts and their order as JSON, and
an address that names it. Without one MLflow shows no metric in the table, and charts by the alphabet, where the loss
comes last. The experiment's description links them.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

NOTE = "mlflow.note.content"
"""MLflow's tag for the description of a run or an experiment, in Markdown."""

_KIND = "mlflow.experimentKind"
_VIEW = "mlflow.sharedViewState."

_TRAINING = (
    "metrics.`validation/loss`", "metrics.`validation/bits_per_byte`", "params.`size`", "params.`N`", "params.`D`",
    "params.`C`", "params.`optimizer.lr`", "metrics.`tokens_per_second`", "tags.`objective`", "attributes.`Dataset`",
)  # fmt: skip
_SECTIONS = ("validation", "train", "rewards", "objective", "completions", "speed", "copying", "epochs")
"""Groups of metrics that come first, in this order; those that a run has beyond them follow."""

_OTHERS = ("fit", "prediction", "evaluation", "comparison", "ratings", "annotate", "instruct")


def _filter(*kinds: str) -> str:
    return " and ".join(f"tags.kind != '{kind}'" for kind in kinds)


def _views() -> dict[str, tuple[str, dict[str, Any]]]:
    """By its key in the address: what a view is called, and MLflow's state of it."""
    scores = ("metrics.`evaluation/mean_accuracy`", "metrics.`evaluation/bits_per_byte/all`", "tags.`suite`")
    laws = ("tags.`kind`", "attributes.`Description`", "params.`runs`")
    training = _state(_TRAINING, _filter(*_OTHERS)) | _charts(("validation/loss", "train/loss"))
    return {
        "training": ("Models: loss, size, tokens and compute", training),
        "laws": ("Fits and predictions", _state(laws, _filter("train", "trunk", "parent", *_OTHERS[2:]))),
        "evaluation": ("Evaluations", _state(scores, "tags.kind = 'evaluation'")),
    }


def _state(columns: Sequence[str], search: str) -> dict[str, Any]:
    return {"selectedColumns": list(columns), "searchFilter": search}


def _charts(first: Sequence[str]) -> dict[str, Any]:
    """Sections in the order of `_SECTIONS`, and the charts that lead them: over tokens, which runs of different batch
    sizes have in common."""
    sections = [
        {"uuid": name, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": True}
        for name in _SECTIONS
    ]
    charts = [
        {
            "type": "LINE", "uuid": metric, "metricSectionId": metric.partition("/")[0], "metricKey": metric,
            "displayName": metric, "runsCountToCompare": 10, "deleted": False, "isGenerated": True,
            "lineSmoothness": 0, "scaleType": "linear", "xAxisScaleType": "log", "range": {}, "xAxisKey": "metric",
            "selectedXAxisMetricKey": "tokens", "useGlobalXaxisKey": False, "yAxisKey": "metric",
            "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalLineSmoothing": True,
        }
        for metric in first
    ]  # fmt: skip
    return {"compareRunSections": sections, "compareRunCharts": charts, "isAccordionReordered": True}


def experiment_tags() -> dict[str, str]:
    """Tags of an experiment whatever its id: that it is of model training, and its views."""
    views = {f"{_VIEW}{key}": json.dumps(state, separators=(",", ":")) for key, (_, state) in _views().items()}
    return {_KIND: "custom_model_development", **views}


def page_of(experiment_id: str, view: str = "training") -> str:
    """The part of the address behind the server's that shows an experiment by a view."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={view}"


def describe_experiment(client: "MlflowClient", experiment: "Experiment") -> None:
    """Gives an experiment the tags that it lacks, and a description with links to its views; what somebody has written
    there stays."""
    links = [f"- [{title}]({page_of(experiment.experiment_id, key)})" for key, (title, _) in _views().items()]
    wanted = {**experiment_tags(), NOTE: "\n".join(["Runs of Maquette.", "", *links])}
    for key, value in wanted.items():
        before = experiment.tags.get(key)
        if before is None or (key.startswith(_VIEW) and before != value):
            client.set_experiment_tag(experiment.experiment_id, key, value)
