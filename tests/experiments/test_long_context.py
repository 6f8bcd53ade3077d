"""Short and long contexts at equal tokens: bad settings, the table, and the study end to end."""

from pathlib import Path

import long_context
import pandas as pd
import pytest

from maquette.tracking.config import TrackingConfig
from maquette.training.record import read_record


@pytest.mark.parametrize(("settings", "words"), [({"multiple": 1}, "multiple=1"), ({"stretch": 1.0}, "stretch=1.0")])
def test_settings_that_make_no_sense_are_named(settings: dict[str, float], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        long_context.run(long_context.Settings(**settings))  # type: ignore[arg-type]


def test_intervals_need_seeds() -> None:
    rows = [{"variant": "short", "seed": seed, "loss_8": 3.0 + seed, "copying_4": 0.1} for seed in (0, 1)]
    (one,) = long_context.summary(pd.DataFrame(rows[:1]))
    (two,) = long_context.summary(pd.DataFrame(rows))
    assert one["loss_8"] == "3.000" and two["loss_8"].startswith("3.500 (")
    assert set(long_context.columns(pd.DataFrame(rows))) == {
        "context in training", "seeds", "loss in pieces of 8", "copied over 4 tokens",
    }  # fmt: skip


@pytest.mark.slow(reason="trains three models")
def test_three_variants(tmp_path: Path) -> None:
    settings = long_context.Settings(
        outputs=str(tmp_path), tracking=TrackingConfig(enabled=False), seeds=[0], size="40k", tokens="40k", context=16,
        multiple=4, held_out=2000, limit=60,
    )  # fmt: skip
    folder = long_context.run(settings)
    table = pd.read_csv(folder / "long_context.csv")
    assert table.variant.tolist() == ["short", "long at the end", "long"]
    assert {"loss_16", "loss_64", "copying_8", "copying_16", "copying_32"} <= set(table)
    assert table.tokens.nunique() == 1 and table.loss_64.between(2, 12).all()
    short, phased, long = (read_record(tmp_path / "runs" / run) for run in table.run)
    assert [one.spec.architecture.max_position_embeddings for one in (short, phased, long)] == [16, 64, 64]
    runs = sorted((tmp_path / "runs").iterdir())
    assert long_context.run(settings) == folder and sorted((tmp_path / "runs").iterdir()) == runs
