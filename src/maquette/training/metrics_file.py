"""The run's curves in its own folder, as one of its loggers: `metrics.jsonl`, one line a step that has values.

The tracker's store is for looking at; this file is what reports are made from. A run that resumes cuts off the lines
after its checkpoint first, so every step stands in it once.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger

from maquette.artifacts.files import explain_os_error, write_text

Row = dict[str, Any]


def read_history(path: Path | str) -> list[Row]:
    """The rows of a `metrics.jsonl`, by rising `step`, each step once: what was flushed for one in parts is put
    together. Without a half-written last line. Empty where there is none."""
    path = Path(path)
    if not path.exists():
        return []
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if rows and rows[-1]["step"] == row["step"]:
            rows[-1] |= row
        else:
            rows.append(row)
    return rows


class MetricsFile(Logger):
    """A logger that appends to a `metrics.jsonl`. What is logged for one step in parts becomes one line."""

    def __init__(self, path: Path | str, *, last_step: int = 0) -> None:
        """Goes on after `last_step`: later lines are cut off. Raises `StageError` where the file can't be written."""
        super().__init__()
        self.path = Path(path)
        rows = read_history(self.path)
        kept = [row for row in rows if row["step"] <= last_step]
        if len(kept) < len(rows) or not self.path.exists() or not self.path.read_bytes().endswith(b"\n"):
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file: TextIO = self.path.open("a", encoding="utf-8")
        self._row: Row = {}
        self._steps = {row["step"] for row in kept if "train/loss" in row}

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step in self._steps and "train/loss" in metrics:
            return  # logged already before the checkpoint that a run goes on from
        self.note(step or 0, metrics)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Settings are in the run's record."""

    def note(self, step: int, values: Mapping[str, Any]) -> None:
        """Values of this step."""
        if self._row.get("step", step) != step:
            self._write_row()
        self._row = {"step": step, **self._row, **values}

    def flush(self) -> None:
        """Everything noted is on disk when this returns. Raises `StageError` where the disk is full."""
        try:
            self._write_row()
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _write_row(self) -> None:
        if self._row:
            self._file.write(json.dumps(self._row) + "\n")
            self._row = {}
