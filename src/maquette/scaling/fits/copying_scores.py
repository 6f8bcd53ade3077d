"""Copying scores of runs that were trained before they were recorded: measured on their exported models."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.files import write_json
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import progress
from maquette.scaling.fits.table import RunTable

FILE = "copying.json"


def find_tokens(outputs: Path | str, digest: str) -> Path | None:
    """The tokens artifact of these outputs whose content has that digest."""
    for path in sorted((Path(outputs) / "artifacts" / "tokens").glob("*/manifest.json")):
        if read_manifest(path.parent).digest == digest:
            return path.parent
    return None


def with_copying(table: RunTable, outputs: Path | str) -> RunTable:
    """The table with every run's score, where the models and the tokens of those that lack it are on this machine.

    Each is measured once: `copying.json` in the run's folder keeps it. Otherwise the table as it is.
    """
    frame = table.frame
    if table.copying is not None or not {"folder", "tags.digest.tokens", "data.sequence_length"} <= set(frame.columns):
        return table
    recorded = frame["copying/score"].tolist() if "copying/score" in frame.columns else [None] * len(table)
    wanted = [index for index, score in enumerate(recorded) if score is None or np.isnan(score)]
    folders = [Path(str(frame["folder"][index])) for index in wanted]
    if not all((folder / "model" / "config.json").is_file() for folder in folders):
        return table
    tokens = {digest: find_tokens(outputs, str(digest)) for digest in set(frame["tags.digest.tokens"][wanted])}
    if None in tokens.values():
        return table
    scores = np.array([np.nan if score is None else float(score) for score in recorded])
    with progress("measuring copying", len(wanted), unit="runs") as advance:
        for index, folder in zip(wanted, folders, strict=True):
            place = tokens[frame["tags.digest.tokens"][index]]
            scores[index] = _score(folder, place, int(frame["data.sequence_length"][index]))
            advance(1)
    return table if np.isnan(scores).any() else dataclasses.replace(table, copying=scores)


def _score(folder: Path, tokens: Path | None, context: int) -> float:
    from maquette.data import TokenShards
    from maquette.objectives.held_out import folder_copying

    path = folder / FILE
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    else:
        assert tokens is not None
        known = dict(folder_copying(folder, TokenShards(tokens), context=context))
        write_json(path, known)
    return float(known.get("copying/score", np.nan))
