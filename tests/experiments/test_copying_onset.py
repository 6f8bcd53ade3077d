"""When copying begins: where a score passes the threshold, what the table says, and the study end to end."""

from pathlib import Path

import copying_onset
import numpy as np
import pandas as pd
import pytest

from maquette.tracking.config import TrackingConfig
from support.small_runs import write_documents


def test_an_onset_lies_between_two_validations() -> None:
    tokens = np.array([100.0, 200.0, 400.0, 800.0])
    between = copying_onset.onset(tokens, np.array([0.0, 0.01, 0.09, 0.2]))
    assert between == pytest.approx(200 * 2**0.5)  # half way from .01 to .09, by log tokens
    assert copying_onset.onset(tokens, np.array([0.06, 0.1, 0.2, 0.3])) == 100
    assert copying_onset.onset(tokens, np.array([0.0, 0.01, 0.02, 0.03])) == np.inf


def rows(variant: str, scores: list[float]) -> list[dict[str, object]]:
    kinds = {f"{kind}_{what}": 0.3 for kind in ("new", "miss", "hit") for what in ("share", "loss")}
    return [
        {"variant": variant, "seed": 0, "tokens": 1000 * 2**place, "score": score, "loss": 3.0, "layers": 2, **kinds}
        for place, score in enumerate(scores)
    ]


def test_the_table_says_when_it_never_began(tmp_path: Path) -> None:
    table = pd.DataFrame(rows("default", [0.0, 0.05]) + rows("prose", [0.0, 0.001]))
    first, second = copying_onset.summary(table)
    assert first["onset"] == "2k" and second["onset"] == "after 2k"
    assert copying_onset.draw(table, tmp_path / "onset").stat().st_size > 5000


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(SystemExit, match="variants=proze is not known"):
        copying_onset.run(copying_onset.Settings(variants=["proze"]))


@pytest.mark.slow(reason="trains three models")
def test_three_variants(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    write_documents(tmp_path / "text")
    settings = copying_onset.Settings(
        outputs=str(tmp_path), tracking=TrackingConfig(enabled=False), variants=["context 64", "one layer"],
        text=str(tmp_path / "text"), size="40k", tokens="20k", validations=2, limit=60,
    )  # fmt: skip
    folder = copying_onset.run(settings)
    table = pd.read_csv(folder / "copying_onset.csv")
    assert table.variant.unique().tolist() == ["context 64", "one layer", "prose"] and len(table) == 6
    assert table[table.variant == "one layer"].layers.eq(1).all() and table.score.between(-1, 1).all()
    runs = sorted((tmp_path / "runs").iterdir())
    assert copying_onset.run(settings) == folder and sorted((tmp_path / "runs").iterdir()) == runs
