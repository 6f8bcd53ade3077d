"""`run.json`, what a run says about itself: the one place that reads it, and refuses what another version wrote.

Two parts: `spec`, what the run is (recipe/run_spec.py), and the outcome, what came out (training/record.py). Here they
are plain containers, so that any package can ask for a run's status without knowing either.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import write_json
from maquette.artifacts.progress import say

FILE = "run.json"

FORMAT = 4
"""Raised when an older file would be read wrongly. 1 and 2: one flat table, without a spec; 3: settings with `tracking`
beside `logger`."""

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
TRIED = "fast_dev_run"
"""The status of a run that ended but was only tried out: it never counts as finished."""


class RunFormatError(StageError):
    """A run that another version of maquette wrote."""


def read_run(folder: Path | str) -> dict[str, Any] | None:
    """What `run.json` in a run's folder says; None where there is none.

    Raises `StageError` where it is damaged, `RunFormatError` where another version wrote it."""
    path = Path(folder) / FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise StageError(f"{path} is damaged: {error}.", "Restore the file, or train again with force=true.") from None
    if not isinstance(raw, dict):
        raise StageError(f"{path} is damaged: it holds no table.", "Restore the file, or train again with force=true.")
    found = raw.get("format", 1)
    if found != FORMAT:
        advice = (
            "Upgrade maquette-lm."
            if isinstance(found, int) and found > FORMAT
            else "An earlier version wrote it: move the folder away, or train the run again with force=true."
        )
        raise RunFormatError(
            f"The run {path.parent} has format {found} in {FILE}; this version reads {FORMAT}.", advice
        )
    return raw


def read_runs(outputs: Path | str) -> dict[Path, dict[str, Any]]:
    """What the runs under `outputs` say, by folder, in the order of their names.

    Runs of another format are left out, which is said; a damaged file raises `StageError`."""
    found: dict[Path, dict[str, Any]] = {}
    refused = []
    for path in sorted((Path(outputs) / "runs").glob(f"*/{FILE}")):
        try:
            raw = read_run(path.parent)
        except RunFormatError:
            refused.append(path.parent.name)
            continue
        if raw is not None:
            found[path.parent] = raw
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        say(f"left out, written by another version of maquette: {', '.join(refused[:3])}{more} in {outputs}/runs")
    return found


def write_run(folder: Path | str, content: Mapping[str, Any]) -> None:
    """Writes `run.json` atomically, with the format's number."""
    write_json(Path(folder) / FILE, {"format": FORMAT, **content})
