"""The heuristic rules of Gopher, C4 and FineWeb: thresholds on features, each with a name."""

import dataclasses
import re
from collections.abc import Mapping

from maquette.corpus.curation.config import CurationConfig
from maquette.corpus.document import Document

_SCRIPT = re.compile(
    r"\b(enable|activate|turn on|allow|requires?|needs?) (java ?script|cookies)\b"
    r"|\bjava ?script (is|must be|has to be) (disabled|enabled|required|off|turned off|needed)\b"
    r"|\b(terms of (use|service)|privacy policy|cookie policy|uses? cookies|use of cookies)\b",
    re.IGNORECASE,
)
_NOTICE_MARKS = ("javascript", "java script", "cookie", "terms of", "privacy policy")  # each notice has one of these
_LONGEST_NOTICE = 300  # characters: a longer line is text that mentions such things


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A document breaks it where its feature is below (`at_least`) or above the threshold."""

    name: str
    feature: str
    threshold: float
    at_least: bool

    def breaks(self, found: Mapping[str, float]) -> bool:
        """Whether a document with these features breaks the rule."""
        value = found[self.feature]
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
    found: list[Rule] = []
    if config.outliers.soft_404:
        found.append(Rule("page: not found", "soft_404", 0.5, False))
    if config.c4.placeholder_text:
        found.append(Rule("c4: placeholder_text", "placeholder_text", 0.5, False))
    for section, lines in _TABLE.items():
        for name, feature, at_least in lines:
            threshold = getattr(getattr(config, section), name)
            if threshold is not None:
                found.append(Rule(f"{section}: {name}", feature, float(threshold), at_least))
    if config.c4.curly_brackets:
        found.append(Rule("c4: curly_brackets", "curly_brackets", 0.5, False))
    return found


def first_broken(found: Mapping[str, float], rules: list[Rule]) -> Rule | None:
    """The first rule that a document with these features breaks."""
    return next((rule for rule in rules if rule.breaks(found)), None)


def clean_lines(document: Document, config: CurationConfig) -> Document:
    """The document without the lines that C4 takes out: notices about scripts, cookies and terms; where asked for
    also all that do not end in a mark."""
    text = document.text
    if config.c4.script_lines and _has_notice(text) and _SCRIPT.search(text):
        text = "\n".join(line for line in text.split("\n") if len(line) > _LONGEST_NOTICE or not _is_notice(line))
    if config.c4.punctuated_lines_only:
        text = "\n".join(line for line in text.split("\n") if line.rstrip().endswith((".", "!", "?", '"')))
    return document if text is document.text else dataclasses.replace(document, text=text.strip("\n"))


def _has_notice(text: str) -> bool:
    lowered = text.lower()
    return any(mark in lowered for mark in _NOTICE_MARKS)


def _is_notice(line: str) -> bool:
    return _has_notice(line) and _SCRIPT.search(line) is not None
