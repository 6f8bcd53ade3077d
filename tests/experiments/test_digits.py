"""Sums by how numbers are cut: what is learnt, what is asked, what counts as right, and the study end to end."""

import random
from pathlib import Path

import digits
import pandas as pd
import pytest

from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.tracking.config import TrackingConfig

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_held_out_sums_are_of_other_pairs() -> None:
    train, held_out = digits.split_sums(20, random.Random(0))
    assert not set(train) & set(held_out) and len(train) + len(held_out) == 21 * 22 // 2
    assert all(first + second <= 20 for first, second in train)
    (text, *_) = digits.sums_text([(1, 2)] * 17)
    assert text == "1+2=3\n" * 16 and len(digits.sums_text([(1, 2)] * 17)) == 2


@pytest.mark.parametrize(
    ("text", "answer"), [("12\n3+4", 12), (" 7", 7), ("", None), ("1 2\n", None), ("+3\n", None), ("٣\n", None)]
)
def test_only_a_number_is_an_answer(text: str, answer: int | None) -> None:
    assert digits.read_answer(text) == answer


def test_the_tokenizers_cut_as_they_are_called() -> None:
    texts = digits.sums_text(digits.split_sums(300, random.Random(0))[0])
    single, together = (
        train_tokenizer(texts, TokenizerConfig(vocab_size=700, digits=group)).encode("123+45=168") for group in (1, 3)
    )
    assert len(together) == 5 and len(single) >= 8  # 123 + 45 = 168


def test_the_table_has_intervals_over_seeds(tmp_path: Path) -> None:
    rows = [
        {"digits": group, "seed": seed, "accuracy": 0.5 / group + 0.1 * seed, "off": 1.0, "tokens": 1000}
        for group in (1, 3)
        for seed in range(3)
    ]
    single, together = digits.summary(pd.DataFrame(rows))
    assert single["accuracy"] == pytest.approx(0.6) and together["low"] < together["accuracy"] < together["high"]
    assert single["high"] == pytest.approx(0.6 + 4.303 * 0.1 / 3**0.5, rel=1e-3)  # t of 2 degrees of freedom
    assert digits.draw(pd.DataFrame(rows), tmp_path / "digits").exists()


@pytest.mark.slow(reason="trains a model for each way of cutting")
def test_two_models(tmp_path: Path) -> None:
    settings = digits.Settings(
        outputs=str(tmp_path), tracking=TrackingConfig(enabled=False), seeds=[0], largest=60, sums=500, questions=20,
        hidden_size=16, compute="1e9", vocab_size=400,
    )  # fmt: skip
    folder = digits.run(settings)
    table = pd.read_csv(folder / "digits.csv")
    assert table.digits.tolist() == [1, 3] and table.accuracy.between(0, 1).all() and table.run.nunique() == 2
    runs = sorted((tmp_path / "runs").iterdir())
    assert digits.run(settings) == folder and sorted((tmp_path / "runs").iterdir()) == runs
