"""Preferences that others have given: a preference file read as an annotator."""

from collections.abc import Sequence
from pathlib import Path

from maquette.data.preferences import read_preferences
from maquette.feedback.comparison import Comparison, Judgement, comparison_of


class FileAnnotator:
    """Says what a preference file says of the same two answers, whichever was shown first; nothing of others.

    Several labels of one pair are averaged.
    """

    def __init__(self, path: Path | str) -> None:
        """Raises `StageError` where the file is missing or a line of it is damaged."""
        self.name = f"file:{Path(path).name}"
        votes: dict[str, list[float]] = {}
        for row in read_preferences(path):
            votes.setdefault(comparison_of(row).key, []).append(1.0)
        self._wins = {key: len(found) for key, found in votes.items()}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        judgements = []
        for one in comparisons:
            first, second = self._wins.get(one.key, 0), self._wins.get(one.swapped().key, 0)
            judgements.append(Judgement(first / (first + second) if first + second else None))
        return judgements
