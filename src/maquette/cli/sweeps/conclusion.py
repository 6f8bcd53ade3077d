"""What a sweep shows when it has ended, from its runs' records: its picture, and what its branches cost."""

import json
from pathlib import Path

from maquette.cli.sweeps.jobs import Sweep
from maquette.training.record import FINISHED, RunRecord, read_record


def draw_sweep(folder: Path) -> list[Path]:
    """The pictures of the sweep in `folder`, as PNG and SVG; none for a sweep that has none or too few jobs.

    `sft_size`: held-out loss over the number of examples."""
    if not folder.name.startswith("sft_size-"):
        return []
    from maquette.training.report import draw_sizes

    records = [record for record in _finished(folder) if record.facts.get("train")]
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


def branch_bias(sweep: Sweep) -> list[str]:
    """A line for each horizon of each model that was trained as a branch and with a schedule of its own; none where
    nothing was, or not all of it is there yet."""
    if not getattr(getattr(sweep.settings, "sweep", None), "branches", False):
        return []
    branched: dict[tuple[int, int], RunRecord] = {}
    own: dict[tuple[int, int], RunRecord] = {}
    for job in sweep.jobs:
        if job.forecast is None or job.forecast.folder is None:
            continue
        branches = job.forecast.branches
        for folder in branches or (job.forecast.folder,):
            record = read_record(folder)
            if record is not None and record.status == FINISHED and record.validation_loss is not None:
                at = (record.spec.size, record.spec.tokens)
                (branched if branches else own)[at] = record
    both = sorted(branched.keys() & own.keys())
    if not both:
        return []
    lines = ["branches of a trunk against schedules of their own (a bias of the laws fitted to branches):"]
    for size, tokens in both:
        one, other = branched[size, tokens].validation_loss, own[size, tokens].validation_loss
        assert one is not None and other is not None
        lines.append(f"  N {size:,}, D {tokens:,}: {one:.4f} against {other:.4f}, {one / other - 1:+.2%}")
    return lines
