"""Which of a run's loggers is the project's MLflow record, and which are others."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from maquette.tracking.config import TrackingConfig

_OURS = ("maquette.tracking.MLflowLogger", "maquette.tracking.logger.MLflowLogger")


def tracking_of(logger: Mapping[str, Any], tracking: TrackingConfig) -> TrackingConfig:
    """How MLflow records a training run: by the node of `logger=` that is ours, and not at all where there is none.
    `tracking` has what a sweep sets (the parent run), and what the node leaves open."""
    nodes = plain_nodes(logger)
    node = next((one for one in nodes.values() if _is_ours(one)), None)
    if node is None:
        return dataclasses.replace(tracking, enabled=False)
    experiment = node.get("experiment_name", TrackingConfig.experiment)
    return dataclasses.replace(
        tracking,
        uri=node.get("tracking_uri") or tracking.uri,
        experiment=tracking.experiment if experiment == TrackingConfig.experiment else experiment,
        run_name=node.get("run_name") or tracking.run_name,
        parent=tracking.parent or node.get("parent_run_id"),
    )


def other_loggers(logger: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes that are not the project's MLflow record."""
    return {name: node for name, node in plain_nodes(logger).items() if not _is_ours(node)}


def plain_nodes(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group of parts (callbacks, loggers) as plain containers; null leaves one out."""
    return {
        name: dataclasses.asdict(node) if dataclasses.is_dataclass(node) and not isinstance(node, type) else node
        for name, node in group.items()
        if node is not None
    }


def _is_ours(node: Any) -> bool:
    return isinstance(node, Mapping) and node.get("_target_") in _OURS
