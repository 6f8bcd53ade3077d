"""Linear classifiers on hashed n-grams (quality, unsafe content, domains), and the list of unsafe words beside them.

A text becomes counts of its words and pairs of words, hashed to 2^18 places, square-rooted and normalised; a logistic
regression (scikit-learn) weighs them. A model is two arrays, so it is stored without pickles and scores anywhere.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.files import atomic_file
from maquette.artifacts.reading import load_arrays
from maquette.corpus.config import SafetyConfig
from maquette.corpus.hashing import Hashes, characters, lower_case_tokens, tokenize, window_hashes, without_digits

_BITS = 18
_LONGEST = 20_000  # characters looked at
FEWEST_EXAMPLES = 20  # of each class: with fewer no model is made

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of a text: places (m,) in the hashed space, ascending, and weights (m,) of length 1 together."""

    places: NDArray[np.int64]
    weights: NDArray[np.float32]


def grams(text: str) -> Grams:
    """Hashed words and pairs of words. Case and digits do not count."""
    _, tokens = tokenize(without_digits(characters(text[:_LONGEST].lower())))
    hashes = np.concatenate([tokens, window_hashes(tokens, 2)]) >> np.uint64(64 - _BITS)
    places, counts = np.unique(hashes.astype(np.int64), return_counts=True)
    weights = np.sqrt(counts).astype(np.float32)
    return Grams(places, weights / max(float(np.linalg.norm(weights)), 1e-9))


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """Classes (K,), weights (K, 2^18), bias (K,); with two classes only the row of the second counts (K = 1)."""

    classes: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(self, text_grams: Grams) -> NDArray[np.float64]:
        """Of each class, `(number of classes,)`."""
        logits = (self.weights[:, text_grams.places] @ text_grams.weights + self.bias).astype(np.float64)
        if len(self.classes) == 2:
            second = 1 / (1 + np.exp(-logits[0]))
            return np.array([1 - second, second])
        odds = np.exp(logits - logits.max())
        shares: NDArray[np.float64] = odds / odds.sum()
        return shares

    def save(self, path: Path) -> None:
        """Writes the model to an .npz file."""
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, classes=np.array(self.classes), weights=self.weights, bias=self.bias)

    @staticmethod
    def load(path: Path) -> "LinearModel":
        """Reads what `save` wrote."""
        archive = load_arrays(path)
        return LinearModel(tuple(archive["classes"].tolist()), archive["weights"], archive["bias"])


@dataclasses.dataclass(frozen=True)
class Training:
    """A model and how it did on held-out examples: their true classes (indices), and probabilities (n, classes)."""

    model: LinearModel
    truth: NDArray[np.int64]
    probabilities: Floats
    examples: int

    def report(self) -> dict[str, Any]:
        """How the model does on its held-out examples."""
        from sklearn.metrics import average_precision_score, precision_recall_curve, precision_recall_fscore_support

        truth, classes = self.truth, self.model.classes
        guess = self.probabilities.argmax(axis=1)
        precision, recall, _, _ = precision_recall_fscore_support(
            truth, guess, labels=range(len(classes)), zero_division=0.0
        )
        report: dict[str, Any] = {
            "classes": list(classes),
            "trained_on": self.examples,
            "held_out": int(truth.size),
            "accuracy": float((guess == truth).mean()),
            "by_class": {
                name: {"precision": float(precision[place]), "recall": float(recall[place])}
                for place, name in enumerate(classes)
            },
        }
        if len(classes) == 2:
            scores = self.probabilities[:, 1]
            precisions, recalls, thresholds = (result[::-1] for result in precision_recall_curve(truth, scores))
            points = np.unique(np.linspace(0, thresholds.size - 1, 60).astype(int))
            report["curve"] = {
                "average_precision": float(average_precision_score(truth, scores)),
                "chance": float(truth.mean()),  # precision of a score that knows nothing
                "thresholds": thresholds[points].tolist(),
                "precision": precisions[1:][points].tolist(),
                "recall": recalls[1:][points].tolist(),
            }
        return report


def train(texts: Sequence[str], labels: Sequence[str]) -> Training | None:
    """Fits a model on four fifths of the examples and evaluates it on the fifth; None where a class has too few.

    Which examples are held out follows from their order alone.
    """
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

    classes = tuple(sorted(set(labels)))
    counts = {name: list(labels).count(name) for name in classes}
    if len(classes) < 2 or min(counts.values()) < FEWEST_EXAMPLES:
        return None
    samples = [grams(text) for text in texts]
    targets = np.array([classes.index(label) for label in labels])
    held = np.zeros(targets.size, np.bool_)
    for number in range(len(classes)):
        held[np.flatnonzero(targets == number)[::5]] = True
    chosen = [one for one, out in zip(samples, held.tolist(), strict=True) if not out]
    # Only what occurs is fitted; all other places have the weight 0.
    occurring, columns = np.unique(np.concatenate([one.places for one in chosen]), return_inverse=True)
    ends = np.append(0, np.cumsum([one.places.size for one in chosen]))
    matrix = csr_array(
        (np.concatenate([one.weights for one in chosen]), columns, ends), shape=(len(chosen), occurring.size)
    )
    regression = LogisticRegression(C=30.0, max_iter=100, tol=1e-3, class_weight="balanced")
    regression.fit(matrix, targets[~held])
    weights = np.zeros((regression.coef_.shape[0], 1 << _BITS), np.float32)
    weights[:, occurring] = regression.coef_
    model = LinearModel(classes, weights, np.atleast_1d(regression.intercept_).astype(np.float32))
    held_out = [one for one, out in zip(samples, held.tolist(), strict=True) if out]
    return Training(model, targets[held], np.array([model.probabilities(one) for one in held_out]), len(chosen))


_FEWEST = 3  # unsafe words: one or two stand in any dictionary, court report or medical page


@functools.cache
def unsafe_words() -> Mapping[str, str]:
    """Each unsafe word's category, from the list that ships."""
    text = resources.files("maquette.corpus.curation").joinpath("unsafe_words.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {word: category for category, _, words in (line.partition(":") for line in lines) for word in words.split()}


@functools.cache
def _unsafe_tokens() -> Hashes:
    return np.unique(np.concatenate([tokenize(characters(word))[1][:1] for word in unsafe_words()]))


def unsafe_share(text: str) -> tuple[float, str]:
    """The share of a text's words that are unsafe, and the category with the most of them (empty where none)."""
    known = unsafe_words()
    # A word of the list is a token wherever it is a word: most texts are through here.
    if np.isin(lower_case_tokens(text), _unsafe_tokens()).sum() < _FEWEST:
        return 0.0, ""
    words = text.lower().split()
    counts: dict[str, int] = {}
    for word in words:
        category = known.get(word) or known.get(word.strip(".,!?:;\"'()"))
        if category:
            counts[category] = counts.get(category, 0) + 1
    count = sum(counts.values())
    if count < _FEWEST:
        return 0.0, ""
    return count / len(words), max(sorted(counts), key=lambda name: counts[name])


def unsafe_reason(
    text: str, config: SafetyConfig, model: LinearModel | None, scores: dict[str, float], text_grams: Grams | None
) -> tuple[str, float, float] | None:
    """The reason, value and threshold by which a text is unsafe. Notes the model's probability in `scores`; `found` are
    the text's n-grams, if they are known."""
    if config.action == "off":
        return None
    share, category = unsafe_share(text)
    if model is not None and config.classifier is not None:
        scores["unsafe"] = float(model.probabilities(text_grams or grams(text))[1])
    if config.words is not None and share >= config.words:
        return f"safety: {category}", share, config.words
    if config.classifier is not None and scores.get("unsafe", 0.0) >= config.classifier:
        return "safety: classifier", scores["unsafe"], config.classifier
    return None
