"""`run.json`, what a run says about itself: the one place that reads it, and refuses what another version wrote.

Two parts: `spec`, what the run is (recipe/run_spec.py), and the outcome, what came out (training/record.py). Here they
are plain containers, so that any package can ask for a run's status without knowing either.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import listed
from maquette.artifacts.progress import say
from maquette.artifacts.reading import CHECKSUM, check_seal, load_table, write_sealed

FILE = "run.json"

FORMAT = 5
"""Raised when an older file would be read wrongly. 1 and 2: one flat table, without a spec; 3: settings with `tracking`
beside `logger`; 4: without a checksum."""

_ADVICE = "Restore the file, or train again with force=true."

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
TRIED = "fast_dev_run"
"""The status of a run that ended but was only tried out: it never counts as finished."""


class RunFormatError(StageError):
    """A run that another version of maquette wrote."""


def read_run(folder: Path | str) -> dict[str, Any] | None:
    """What `run.json` in a run's folder says; None where there is none.

    Raises `StageError` where it is damaged, `RunFormatError` where another version wrote it."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    raw = load_table(path, hint=_ADVICE)
    version = raw.get("format", 1)
    if version != FORMAT:
        advice = (
            "Upgrade maquette-lm."
            if isinstance(version, int) and version > FORMAT
            else "An earlier version wrote it: move the folder away, or train the run again with force=true."
        )
        raise RunFormatError(
            f"The run {path.parent} has format {version} in {FILE}; this version reads {FORMAT}.", advice
        )
    check_seal(raw, path, hint=_ADVICE)
    del raw[CHECKSUM]
    return raw


def read_runs(outputs: Path | str) -> dict[Path, dict[str, Any]]:
    """What the runs under `outputs` say, by folder, in the order of their names.

    Runs of another format are left out, which is said; a damaged file raises `StageError`."""
    runs: dict[Path, dict[str, Any]] = {}
    refused = []
    for path in listed(Path(outputs) / "runs", f"*/{FILE}"):
        try:
            raw = read_run(path.parent)
        except RunFormatError:
            refused.append(path.parent.name)
            continue
        if raw is not None:
            runs[path.parent] = raw
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        say(f"left out, written by another version of maquette: {', '.join(refused[:3])}{more} in {outputs}/runs")
    return runs


def write_run(folder: Path | str, content: Mapping[str, Any]) -> None:
    """Writes `run.json` atomically, with the format's number and a checksum."""
    write_sealed(Path(folder) / FILE, {"format": FORMAT, **content})
