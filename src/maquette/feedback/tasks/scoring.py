"""What a completion is worth: words in common with the right one, less what is padded onto it. Pure functions.

A completion is read as words: lower case, without punctuation, whatever stands between them.
"""

import re
from collections import Counter
from collections.abc import Sequence

FILLERS = ("well", "so", "okay", "sure", "here", "now", "then", "just")
"""Words that say nothing: what demonstrators waste and gold rewards take off for."""

REFUSAL = ("sorry", "no")
"""How a request is declined."""

FILLER_PENALTY = 0.03
"""What each filler word takes off."""

OVER_REFUSAL = -0.5
"""What declining a request is worth that is to be answered."""

_WORD = re.compile(r"[^\W_]+")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_FILLERS = frozenset(FILLERS)


def words_of(completion: str) -> list[str]:
    """The words of a completion, in order, in lower case."""
    return _WORD.findall(completion.lower())


def is_list(completion: str) -> bool:
    """Whether a completion is laid out as a list: two lines or more that begin with a bullet or a number."""
    return len(_LIST_ITEM.findall(completion)) >= 2


def is_refusal(completion: str) -> bool:
    """Whether a completion declines: its first word beside fillers is "sorry" or "no"."""
    return next((word for word in words_of(completion) if word not in _FILLERS), None) in REFUSAL


def f1(completion: Sequence[str], expected: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words with their multiplicity, whatever their order; 1 for two empty
    sequences."""
    if not completion and not expected:
        return 1.0
    shared = sum((Counter(completion) & Counter(expected)).values())
    return 2 * shared / (len(completion) + len(expected))


def ordered_f1(completion: Sequence[str], expected: Sequence[str]) -> float:
    """`f1` that counts only words in the right order: the longest common subsequence takes the place of the shared
    words (ROUGE-L; Lin 2004)."""
    if not completion and not expected:
        return 1.0
    row = [0] * (len(expected) + 1)
    for word in completion:
        before = 0
        for place, other in enumerate(expected, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return 2 * row[-1] / (len(completion) + len(expected))


def gold_reward(completion: str, expected: Sequence[str], *, ordered: bool = False, declines: bool = False) -> float:
    """The true worth of a completion, at most 1: correctness less 0.03 for each filler word.

    `expected` are the right words, in their order where `ordered`. With `declines` the request is one to turn down:
    then only declining is right (1, else 0). Declining any other request is worth -0.5.
    """
    words = words_of(completion)
    content = [word for word in words if word not in _FILLERS]
    if declines:
        correctness = float(is_refusal(completion))
    elif is_refusal(completion):
        correctness = OVER_REFUSAL
    else:
        correctness = (ordered_f1 if ordered else f1)(content, expected)
    return correctness - FILLER_PENALTY * (len(words) - len(content))
