"""The run's curves in its own folder, as one of its loggers: `metrics.jsonl`, one line a step that has values.

The tracker's store is for looking at; this file is what reports are made from. A run that resumes cuts off the lines
after its checkpoint first, so every step stands in it once.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import explain_os_error, file_digest
from maquette.artifacts.reading import read_log
from maquette.artifacts.run_file import FINISHED, read_run

Row = dict[str, Any]

_ADVICE = "Restore the file, or train the run again with force=true."


def read_history(path: Path | str) -> list[Row]:
    """The rows of a `metrics.jsonl`, by rising `step`, each step once, without a half-written last line. Empty where
    there is none. Raises `StageError` for a damaged line before the last: what stood in it can't be made up for; and
    where the run has ended and its file has changed since."""
    path = Path(path)
    record = read_run(path.parent) or {}
    known = record.get("metrics_sha256") if record.get("status") == FINISHED else None
    if known is not None and path.exists() and file_digest(path) != known:
        raise StageError(f"{path} is damaged: it does not match the checksum in the run's record.", _ADVICE)
    rows: dict[int, Row] = {}
    for where, row in read_log(path, hint=_ADVICE):
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            raise StageError(f"{where} is damaged: it must be an object with a step.", _ADVICE)
        rows.setdefault(row["step"], {}).update(row)
    return [rows[step] for step in sorted(rows)]


class MetricsFile(Logger):
    """A logger that appends to a `metrics.jsonl`. What is logged for one step in parts becomes one line; Lightning's
    own `log` counts steps from 0, so the step before the newest may still get values."""

    def __init__(self, path: Path | str) -> None:
        """Raises `StageError` where the file can't be written."""
        super().__init__()
        self.path = Path(path)
        self._rows: dict[int, Row] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        except OSError as error:
            raise explain_os_error(error, self.path) from error

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
        self.note(step or 0, metrics)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Settings are in the run's record."""

    def note(self, step: int, values: Mapping[str, Any]) -> None:
        """Values of this step."""
        self._rows.setdefault(step, {"step": step}).update(values)
        self._write(before=step - 1)

    def flush(self) -> None:
        """Everything noted is on disk when this returns. Raises `StageError` where the disk is full."""
        try:
            self._write()
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def mark(self) -> dict[str, Any]:
        """What is written: a checkpoint holds it, so that a run that resumes finds its curves and cuts off what came
        after."""
        self._file.flush()
        written = self.path.read_bytes()
        return {"bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()}

    def cut(self, mark: Mapping[str, Any] | None = None) -> None:
        """Removes what was written after `mark`; without one, everything. Raises `StageError` where what stands before
        it is not what it was."""
        self._rows.clear()
        length = 0 if mark is None else int(mark["bytes"])
        if mark is not None:
            with self.path.open("rb") as file:
                if hashlib.sha256(file.read(length)).hexdigest() != mark["sha256"]:
                    raise StageError(
                        f"{self.path} is damaged: it does not match the checksum that the checkpoint has of it.",
                        _ADVICE,
                    )
        self._file.truncate(length)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _write(self, before: float = math.inf) -> None:
        for step in sorted(step for step in self._rows if step < before):
            self._file.write((json.dumps(self._rows.pop(step)) + "\n").encode())
