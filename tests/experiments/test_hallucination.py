"""The study of hallucinations, small, from beginning to end."""

import json
from pathlib import Path

import hallucination
import invented_facts
import pytest

from maquette.tracking.config import TrackingConfig

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.mark.slow(reason="trains a base model and one for each share of unseen facts")
def test_unseen_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invented_facts, "_TOKENS", 6)
    settings = hallucination.Settings(
        outputs=str(tmp_path), tracking=TrackingConfig(enabled=False), people=16, shares=[0.0, 1.0], size="20k",
        answered=8,
        tokens="20k", repeats=4, epochs=1,
    )  # fmt: skip
    folder = hallucination.run(settings)
    results = json.loads((folder / "results.json").read_text())
    assert [one["unseen_share"] for one in results["shares"]] == [0.0, 1.0]
    assert sum(results["shares"][0]["strangers"].values()) == 8 and 0 <= results["base_asked"]["value"] <= 1
    table = hallucination.over_seeds({0: folder, 1: folder})
    assert len(table) == 4 and table.made_up.tolist()[:2] == table.made_up.tolist()[2:]
    hallucination.show_over_seeds(table)
    assert (folder / "figures" / "hallucination.svg").exists()
    runs = sorted((tmp_path / "runs").iterdir())
    assert hallucination.run(settings) == folder and sorted((tmp_path / "runs").iterdir()) == runs
