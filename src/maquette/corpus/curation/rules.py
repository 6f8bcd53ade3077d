"""The heuristic rules of Gopher, C4 and FineWeb: thresholds, each with a name, on features of a document.

All features are computed in one pass over its words and lines. Words are what white space separates, as in the papers:
with marks counted as words of their own, the rule "80% of words have a letter" would lose most technical text. Shares
of characters are of the words joined by single spaces.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.config import CurationConfig
from maquette.corpus.document import Document
from maquette.corpus.hashing import GOLDEN, Hashes, mix

_SCRIPT = re.compile(
    r"\b(enable|activate|turn on|allow|requires?|needs?) (java ?script|cookies)\b"
    r"|\bjava ?script (is|must be|has to be) (disabled|enabled|required|off|turned off|needed)\b"
    r"|\b(terms of (use|service)|privacy policy|cookie policy|uses? cookies|use of cookies)\b",
    re.IGNORECASE,
)
_NOTICE_MARKS = ("javascript", "java script", "cookie", "terms of", "privacy policy")  # each notice has one of these
_LONGEST_NOTICE = 300  # characters: a longer line is text that mentions such things

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
SHORT_LINE = 30  # characters
_BULLETS = ("•", "‣", "◦", "▪", "- ", "* ", "– ")
_MARKS = (".", "!", "?", '"', "'", "”", "’", "。", "！", "？", "…", ":", ";")
_SENTENCE_END = re.compile(r"""[.!?。！？]["'”’)\]]*(?=\s|$)""")
_LOREM = re.compile(r"lorem ipsum", re.IGNORECASE)
_NOT_FOUND = re.compile(
    r"\b(404\b.{0,40}\b(error|not found)|(error|http)\s*404|(page|file|document|url|article|item)\b.{0,60}"
    r"\b(not (be )?found|does ?n[o']t exist|no longer (exists|available)|could not be found|cannot be found|"
    r"has been (removed|deleted))|nothing (was )?found here)",
    re.IGNORECASE | re.DOTALL,
)
_MULTIPLIER = np.uint64(GOLDEN)


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A document breaks it where its feature is below (`at_least`) or above the threshold."""

    name: str
    feature: str
    threshold: float
    at_least: bool

    def breaks(self, values: Mapping[str, float]) -> bool:
        """Whether a document with these features breaks the rule."""
        value = values[self.feature]
        return value < self.threshold if self.at_least else value > self.threshold


# (rule, feature, at least?): the threshold is the setting of the rule's name in its section of the config
_TABLE = {
    "gopher": (
        ("min_words", "words", True), ("max_words", "words", False),
        ("min_word_length", "word_length", True), ("max_word_length", "word_length", False),
        ("symbols", "symbols", False), ("bullet_lines", "bullet_lines", False),
        ("ellipsis_lines", "ellipsis_lines", False), ("alphabetic_words", "alphabetic_words", True),
        ("stop_words", "stop_words", True),
        *((name, name, False) for name in (
            "duplicate_lines", "duplicate_paragraphs", "duplicate_line_characters", "duplicate_paragraph_characters",
            "top_2_gram", "top_3_gram", "top_4_gram", *(f"duplicate_{n}_grams" for n in range(5, 11)),
        )),
    ),
    "c4": (("min_sentences", "sentences", True),),
    "fineweb": (
        ("punctuated_lines", "punctuated_lines", True), ("duplicate_line_characters", "line_duplicates", False),
        ("short_lines", "short_lines", False),
    ),
}  # fmt: skip


def rules(config: CurationConfig) -> list[Rule]:
    """The rules that a config asks for, in the order in which they are applied."""
    active: list[Rule] = []
    if config.outliers.soft_404:
        active.append(Rule("page: not found", "soft_404", 0.5, False))
    if config.c4.placeholder_text:
        active.append(Rule("c4: placeholder_text", "placeholder_text", 0.5, False))
    for section, lines in _TABLE.items():
        for name, feature, at_least in lines:
            threshold = getattr(getattr(config, section), name)
            if threshold is not None:
                active.append(Rule(f"{section}: {name}", feature, float(threshold), at_least))
    if config.c4.curly_brackets:
        active.append(Rule("c4: curly_brackets", "curly_brackets", 0.5, False))
    return active


def first_broken(values: Mapping[str, float], rules: list[Rule]) -> Rule | None:
    """The first rule that a document with these features breaks."""
    return next((rule for rule in rules if rule.breaks(values)), None)


def clean_lines(document: Document, config: CurationConfig) -> Document:
    """The document without the lines that C4 takes out: notices about scripts, cookies and terms; where asked for
    also all that do not end in a mark."""
    text = document.text
    if config.c4.script_lines and _has_notice(text):
        text = "\n".join(line for line in text.split("\n") if len(line) > _LONGEST_NOTICE or not _has_notice(line))
    if config.c4.punctuated_lines_only:
        text = "\n".join(line for line in text.split("\n") if line.rstrip().endswith((".", "!", "?", '"')))
    return document if text is document.text else dataclasses.replace(document, text=text.strip("\n"))


def _has_notice(text: str) -> bool:
    lowered = text.lower()
    return any(mark in lowered for mark in _NOTICE_MARKS) and _SCRIPT.search(text) is not None


def features(text: str, title: str = "") -> dict[str, float]:
    """Every feature of a text, by its name; zeros where it has no word."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    words = text.split()
    if not words:
        return dict.fromkeys(FEATURES, 0.0)
    distinct = dict.fromkeys(words)
    for number, word in enumerate(distinct):
        distinct[word] = number
    places = np.fromiter(map(distinct.__getitem__, words), np.int64, len(words))
    lengths = np.fromiter(map(len, distinct), np.int64, len(distinct))[places]
    has_letter = np.fromiter(map(_has_letter, distinct), np.bool_, len(distinct))[places]
    paragraphs = [paragraph for paragraph in (part.strip() for part in text.split("\n\n")) if paragraph]
    duplicate_lines, duplicate_line_characters = _duplicates(lines)
    duplicate_paragraphs, duplicate_paragraph_characters = _duplicates(paragraphs)
    count, line_count = len(words), max(len(lines), 1)
    collapsed = int(lengths.sum()) + count - 1
    values = {
        "words": float(count),
        "word_length": float(lengths.mean()),
        "symbols": max(text.count("#"), text.count("...") + text.count("…")) / count,
        "bullet_lines": sum(line.startswith(_BULLETS) for line in lines) / line_count,
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in lines) / line_count,
        "alphabetic_words": float(has_letter.mean()),
        "stop_words": float(len(STOP_WORDS.intersection(map(str.lower, distinct)))),
        "duplicate_lines": duplicate_lines / line_count,
        "duplicate_paragraphs": duplicate_paragraphs / max(len(paragraphs), 1),
        "duplicate_line_characters": duplicate_line_characters / collapsed,
        "duplicate_paragraph_characters": duplicate_paragraph_characters / collapsed,
    }
    values |= _n_gram_shares(places, lengths, collapsed)
    early = f"{title}\n{text[:300]}"
    values |= {
        "sentences": float(len(_SENTENCE_END.findall(text))),
        "placeholder_text": float("ipsum" in text.lower() and bool(_LOREM.search(text))),
        "curly_brackets": float("{" in text),
        "punctuated_lines": sum(line.endswith(_MARKS) for line in lines) / line_count,
        "line_duplicates": duplicate_line_characters / max(sum(map(len, lines)), 1),
        "short_lines": sum(len(line) <= SHORT_LINE for line in lines) / line_count,
        "soft_404": float(count < 200 and bool(_NOT_FOUND.search(early))),
    }
    return values


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))


def _duplicates(pieces: Sequence[str]) -> tuple[int, int]:
    """How many pieces stand earlier already, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for piece in pieces:
        if piece in seen:
            count += 1
            characters += len(piece)
        else:
            seen.add(piece)
    return count, characters


def _n_gram_shares(places: NDArray[np.int64], lengths: NDArray[np.int64], characters: int) -> dict[str, float]:
    """Shares of characters in the commonest 2- to 4-gram, and in 5- to 10-grams that stand earlier (Rae et al. 2021).

    Characters that lie in several such n-grams count once.
    """
    shares = {f"top_{n}_gram": 0.0 for n in (2, 3, 4)} | {f"duplicate_{n}_grams": 0.0 for n in range(5, 11)}
    word = mix(places.astype(np.uint64) + np.uint64(1))
    ends = np.append(0, np.cumsum(lengths + 1))
    grams: Hashes = word
    repeated = np.ones(word.size, np.bool_)  # whether the n-gram that begins here stands twice: else no longer one does
    for n in range(2, 11):
        if grams.size < 2:
            break
        grams = grams[:-1] * _MULTIPLIER + word[n - 1 :]
        candidates = np.flatnonzero(repeated[:-1] & repeated[1:])
        order = candidates[np.argsort(grams[candidates], kind="stable")]
        ordered = grams[order]
        repeats = ordered[1:] == ordered[:-1]
        if not repeats.any():
            break
        later = order[1:][repeats]
        repeated = np.zeros(grams.size, np.bool_)
        repeated[later] = repeated[order[:-1][repeats]] = True
        if n < 5:
            starts = np.flatnonzero(np.append(True, ~repeats))
            counts = np.diff(starts, append=ordered.size)
            size = ends[order[starts] + n] - ends[order[starts]] - 1
            commonest = counts == counts.max()
            shares[f"top_{n}_gram"] = min(float(counts.max() * size[commonest].max()) / characters, 1.0)
        else:
            edges = np.zeros(places.size + 1, np.int64)
            np.add.at(edges, later, 1)
            np.add.at(edges, later + n, -1)
            covered = np.cumsum(edges[:-1]) > 0
            shares[f"duplicate_{n}_grams"] = min(float((lengths[covered] + 1).sum()) / characters, 1.0)
    return shares


FEATURES = tuple(features("word"))
"""Names of all features."""
