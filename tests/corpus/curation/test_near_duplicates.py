import random

import numpy as np
import pytest

from maquette.corpus.config import NearDuplicatesConfig
from maquette.corpus.curation.classifiers import LinearModel, Training, grams, train
from maquette.corpus.curation.curate import robust_deviations
from maquette.corpus.near_duplicates import clusters, document_bands, s_curve, without

CONFIG = NearDuplicatesConfig()


def words(chance: random.Random, count: int = 300) -> list[str]:
    return [f"w{chance.randrange(10**6)}" for _ in range(count)]


def test_the_first_of_each_cluster_stands_for_it() -> None:
    chance = random.Random(0)
    a, b, c = (words(chance) for _ in range(3))
    near = [*a]
    near[10] = "other"
    texts = [" ".join(one) for one in (a, b, near, c, b, near[:-1])]
    bands = np.stack([document_bands(text, CONFIG) for text in texts])
    assert clusters(bands).tolist() == [0, 1, 0, 3, 1, 0]


def test_texts_without_a_shingle_are_nobodys_copy() -> None:
    bands = np.stack([document_bands(text, CONFIG) for text in ("a b", "a b", "")])
    assert clusters(bands).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("changes", "similarity"), [(4, 0.875), (8, 0.763), (20, 0.5)])
def test_the_s_curve_is_what_is_observed(changes: int, similarity: float) -> None:
    chance = random.Random(changes)
    joined = 0
    trials = 150
    for _ in range(trials):
        one = words(chance)
        other = [*one]
        for place in range(10, 10 + 14 * changes, 14):  # each changed word changes five shingles
            other[place] = "changed" + str(place)
        left, right = (document_bands(" ".join(text), CONFIG) for text in (one, other))
        joined += int((left == right).any())
    shared = 296 - 5 * changes
    exact = shared / (296 + 5 * changes)
    assert exact == pytest.approx(similarity, abs=0.01)
    expected = s_curve(exact, CONFIG)
    assert joined / trials == pytest.approx(expected, abs=4 * (expected * (1 - expected) / trials) ** 0.5 + 0.01)


def test_a_cluster_without_its_first_has_another_first() -> None:
    result = without(np.array([0, 1, 0, 0]), np.array([True, False, False, False]))
    assert result.tolist() == [0, 1, 2, 2]


def test_deviations_are_from_the_median_in_robust_units() -> None:
    values = np.append(np.random.default_rng(0).normal(5, 2, 2000), 100.0)
    result = robust_deviations(values)
    assert result[-1] == pytest.approx(95 / 2, rel=0.1)
    assert np.median(result) == pytest.approx(0.6745, rel=0.05)
    assert not robust_deviations(values[:50]).any()


def test_a_linear_model_learns_and_is_stored_whole(tmp_path: object) -> None:
    from pathlib import Path

    from maquette.corpus.curation.classifiers import LinearModel

    chance = random.Random(1)
    good = ["the theorem follows from " + " ".join(words(chance, 30)) for _ in range(100)]
    bad = ["buy now and save on " + " ".join(words(chance, 30)) for _ in range(100)]
    training = train([*bad, *good], ["random"] * 100 + ["reference"] * 100)
    assert training is not None
    assert (training.probabilities.argmax(axis=1) == training.truth).mean() > 0.95
    path = Path(str(tmp_path)) / "model.npz"
    training.model.save(path)
    again = LinearModel.load(path)
    result = grams(good[0])
    assert again.probabilities(result).tolist() == training.model.probabilities(result).tolist()
    assert again.probabilities(result)[1] > 0.9
    assert train(good[:5] + bad[:5], ["a"] * 5 + ["b"] * 5) is None


def test_precision_and_recall_by_hand() -> None:
    guess = np.array([0.9, 0.8, 0.7, 0.1])
    model = LinearModel(("a", "b"), np.zeros((1, 4), np.float32), np.zeros(1, np.float32))
    report = Training(model, np.array([1, 0, 1, 0]), np.stack([1 - guess, guess], 1), 10).report()
    assert report["accuracy"] == 0.75 and report["by_class"]["b"] == {"precision": pytest.approx(2 / 3), "recall": 1.0}
    curve = report["curve"]
    assert curve["thresholds"] == [0.9, 0.8, 0.7, 0.1] and curve["chance"] == 0.5
    assert curve["precision"] == [1, 0.5, pytest.approx(2 / 3), 0.5]
    assert curve["recall"] == [0.5, 0.5, 1, 1]
    assert curve["average_precision"] == pytest.approx(0.5 + 0.5 * 2 / 3)
