"""Unsafe content: by a word list with categories, and by a classifier (see `models`) where there is one."""

import functools
from collections.abc import Mapping
from importlib import resources

import numpy as np

from maquette.corpus.curation.config import SafetyConfig
from maquette.corpus.curation.models import Grams, LinearModel, grams
from maquette.corpus.hashing import Hashes
from maquette.corpus.lexical import characters, lower_case_tokens, tokenize

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
