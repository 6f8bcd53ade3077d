"""Scores of older runs: measured once each, and only where models and tokens are at hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from maquette.scaling.fits import recorded as copying_scores
from maquette.scaling.fits.recorded import with_copying
from maquette.scaling.fits.table import RunTable


def table(tmp_path: Path, scores: list[float | None]) -> RunTable:
    folders = []
    for index in range(len(scores)):
        folder = tmp_path / "runs" / f"r{index}"
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "model" / "config.json").write_text("{}")
        folders.append(str(folder))
    ones = np.ones(len(scores))
    frame = pd.DataFrame(
        {"folder": folders, "tags.digest.tokens": "t", "data.sequence_length": 32.0, "copying/score": scores}
    )
    return RunTable("runs", tuple(folders), ones, ones, ones, ones, ones, frame)


def test_missing_scores_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(folder: Path, shards: Any, *, context: int) -> dict[str, float]:
        measured.append(folder.name)
        return {"copying/score": 0.25}

    monkeypatch.setattr(copying_scores, "find_tokens", lambda outputs, digest: tmp_path)
    monkeypatch.setattr("maquette.objectives.held_out.folder_copying", measure)
    monkeypatch.setattr("maquette.data.TokenShards", lambda folder: folder, raising=False)
    runs = table(tmp_path, [0.5, None, None])
    result = with_copying(runs, tmp_path)
    assert result.copying is not None and result.copying.tolist() == [0.5, 0.25, 0.25]
    assert sorted(measured) == ["r1", "r2"]
    again = with_copying(runs, tmp_path)
    assert again.copying is not None and again.copying.tolist() == [0.5, 0.25, 0.25] and len(measured) == 2


def test_without_models_or_tokens_the_table_stays(tmp_path: Path) -> None:
    runs = table(tmp_path, [0.5, None])
    assert with_copying(runs, tmp_path) is runs  # no such tokens
    (tmp_path / "runs" / "r1" / "model" / "config.json").unlink()
    assert with_copying(runs, tmp_path) is runs
    bare = RunTable("runs", ("a",), *(np.ones(1) for _ in range(5)), pd.DataFrame({"lr": [1.0]}))
    assert with_copying(bare, tmp_path) is bare
