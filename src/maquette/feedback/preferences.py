"""From judgements to preferences, and from preferences to pairs that can be judged anew."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from maquette.artifacts import StageError
from maquette.data.preferences import Preference, PreferenceFiles
from maquette.feedback.comparison import Comparison, Judgement
from maquette.text.chat import Message


def preferences_of(
    comparisons: Sequence[Comparison], judgements: Sequence[Judgement], annotator: str
) -> Iterator[Preference]:
    """Labels of the pairs that were decided; ties, pairs that nobody could judge and equal answers make none."""
    for one, judged in zip(comparisons, judgements, strict=True):
        if judged.preference is None or judged.preference == 0.5 or one.first == one.second:
            continue
        wins = judged.preference > 0.5
        chosen, rejected = (one.first, one.second) if wins else (one.second, one.first)
        margin = None if judged.margin is None else abs(judged.margin)
        yield Preference(list(one.messages), _said(chosen), _said(rejected), annotator, margin, facts=one.facts)


def comparison_of(preference: Preference) -> Comparison:
    """The pair as an annotator sees it, the wanted answer first. Raises `StageError` where an answer is more than one
    message: what the user says in between is no part of a pair."""
    for answer in (preference.chosen, preference.rejected):
        if len(answer) > 1:
            raise StageError(
                f"{preference.place}: an answer of {len(answer)} messages can't be judged.",
                "Move all but the last message into the prompt.",
            )
    (chosen,), (rejected,) = preference.chosen, preference.rejected
    return Comparison(tuple(preference.prompt), chosen["content"], rejected["content"], preference.facts)


def read_preferences(path: Path | str) -> list[Preference]:
    """All of a file, or of a folder's files. Raises `StageError` that names the line that is wrong."""
    return list(PreferenceFiles(path).preferences())


def _said(answer: str) -> list[Message]:
    return [{"role": "assistant", "content": answer}]
