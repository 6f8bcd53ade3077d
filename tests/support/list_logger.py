"""A logger that keeps what it is told."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger


class ListLogger(Logger):
    """`rows`: what was logged, with its `step`, in the order in which it came."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        return "list"

    @property
    def version(self) -> str:
        return "0"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append({"step": step or 0, **metrics})

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    def having(self, name: str) -> list[dict[str, float]]:
        """The rows that have a metric."""
        return [row for row in self.rows if name in row]
