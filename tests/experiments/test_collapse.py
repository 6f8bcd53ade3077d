"""Training on one's own samples: what each generation learns, what is counted, and the study from beginning to end."""

import random
from pathlib import Path

import collapse
import pandas as pd
import pytest

from maquette.tracking.config import TrackingConfig

pytestmark = pytest.mark.usefixtures("no_pictures")

REAL, FIRST, SECOND = ["r1", "r2"], ["a1", "a2"], ["b1", "b2"]


def test_what_a_generation_learns() -> None:
    def texts(mixing: str, *before: list[str]) -> list[str]:
        return collapse.training_texts(mixing, REAL, list(before), random.Random(0))

    for mixing in collapse.MIXINGS:
        assert texts(mixing) == REAL
    assert texts("replace", FIRST, SECOND) == SECOND
    assert texts("accumulate", FIRST, SECOND) == [*REAL, *FIRST, *SECOND]
    real, own = texts("mixed", FIRST, SECOND)
    assert real in REAL and own == "b1"


def test_what_is_counted() -> None:
    assert collapse.diversity(["abcabcab"], 7, size=3) == {"distinct": 0.6, "words": 1, "length": 8.0}
    assert collapse.diversity(["abc", "def g"], 100)["words"] == 3
    assert collapse.cut("abcdéfgh", 3) == ["abc", "dfg"]
    rows = [
        {"mixing": "replace", "seed": seed, "generation": generation, "loss": 2.0 + generation * (1 + seed / 10),
         "distinct": 0.5}
        for seed in range(3) for generation in range(2)
    ]  # fmt: skip
    (row,) = collapse.summary(pd.DataFrame(rows))
    assert row["loss"] == pytest.approx(1.1) and row["distinct"] == row["distinct_low"] == 0.0
    assert row["loss_high"] - row["loss"] == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)  # t of 2 degrees of freedom


@pytest.mark.slow(reason="trains a model for each generation and mixing")
def test_two_generations(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    numbers = random.Random(0)
    for number in range(30):
        text = " ".join("".join(numbers.choices("etaoin", k=4)) for _ in range(100))
        (tmp_path / "books" / f"{number}.txt").write_text(text)
    settings = collapse.Settings(
        outputs=str(tmp_path), tracking=TrackingConfig(enabled=False), source="text", path=str(tmp_path / "books"),
        seeds=[0], generations=1, mixings=["replace", "mixed"], documents=40, length=64, size="5k", tokens="10k",
    )  # fmt: skip
    folder = collapse.run(settings)
    table = pd.read_csv(folder / "collapse.csv")
    assert table.groupby(["mixing", "seed"]).size().tolist() == [2, 2] and table.loss.notna().all()
    assert table[table.generation == 0].groupby("seed").run.nunique().tolist() == [1]  # shared by both mixings
    assert table.run.nunique() == 3 and (folder / "figures" / "collapse.svg").exists()
    runs = sorted((tmp_path / "runs").iterdir())
    assert collapse.run(settings) == folder and sorted((tmp_path / "runs").iterdir()) == runs
