"""Baselines on the same tokens as the model, in the same units."""

import math

import numpy as np
import pytest

from maquette.evaluation import bits_per_byte, score_baselines


def test_bits_per_byte_of_a_fair_coin_per_byte() -> None:
    assert bits_per_byte(10 * math.log(2), 10) == pytest.approx(1.0)


def test_baselines_by_domain() -> None:
    generator = np.random.default_rng(0)
    cycle = np.tile(np.arange(8), 40)
    training = np.stack([cycle[start : start + 21] for start in range(200)])
    validation = {"cycle": training[:5], "noise": generator.integers(0, 8, (50, 21))}
    byte_lengths = np.array([0, 1, 1, 1, 1, 2, 3, 5], np.int32)
    weights = {"cycle": 3.0, "noise": 1.0}
    scores = {
        (s.baseline, s.domain): s
        for s in score_baselines(training, validation, vocab_size=8, byte_lengths=byte_lengths, weights=weights)
    }
    assert scores["uniform bytes", "noise"].bits_per_byte == 8
    tokens = validation["noise"][:, 1:]
    expected = 8 * math.log(2) * byte_lengths[tokens].sum() / tokens.size
    assert scores["uniform bytes", "noise"].loss == pytest.approx(expected)
    assert scores["unigram", "cycle"].loss == pytest.approx(math.log(8), abs=0.01)
    assert scores["unigram", "cycle"].bits_per_byte == pytest.approx(
        3 / (byte_lengths[validation["cycle"][:, 1:]].mean()), abs=0.02
    )
    assert scores["Kneser-Ney 5-gram", "cycle"].loss < 0.2
    assert scores["Kneser-Ney 5-gram", "noise"].loss > math.log(8)
    mixed = scores["unigram", "all"]
    assert mixed.loss == pytest.approx(0.75 * scores["unigram", "cycle"].loss + 0.25 * scores["unigram", "noise"].loss)
    mean_bytes = 0.75 * byte_lengths[validation["cycle"][:, 1:]].mean() + 0.25 * byte_lengths[tokens].mean()
    assert mixed.bits_per_byte == pytest.approx(bits_per_byte(mixed.loss, mean_bytes))
    assert scores["uniform bytes", "all"].bits_per_byte == pytest.approx(8)
