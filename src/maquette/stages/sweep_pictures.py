"""The picture of a sweep, drawn from the records of its finished jobs when it ends."""

import json
from pathlib import Path

from maquette.training import RunRecord, read_record
from maquette.training.report import draw_sizes


def draw_sweep(folder: Path) -> list[Path]:
    """The pictures of the sweep in `folder`, as PNG and SVG; none for a sweep that has none or too few jobs.

    `sft_size`: held-out loss over the number of examples."""
    if not folder.name.startswith("sft_size-"):
        return []
    records = [record for record in _finished(folder) if record.spec.objective == "sft" and record.facts]
    if len({record.facts["train"]["examples"] for record in records}) < 2:
        return []
    picture = draw_sizes(records, folder / "figures" / "sft_size")
    return [picture, picture.with_suffix(".svg")]


def _finished(folder: Path) -> list[RunRecord]:
    found = []
    for path in sorted((folder / "jobs").glob("*.json")):
        outcome = json.loads(path.read_text(encoding="utf-8"))
        record = read_record(outcome["result"]) if outcome.get("result") else None
        if record is not None:
            found.append(record)
    return found
