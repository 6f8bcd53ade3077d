"""What a user brings: rewards and annotators in Python, named as `module:function`, and preferences in a file.

    # my_rewards.py, beside where `maquette train objective=ppo reward.callable=my_rewards:reward` is typed
    def reward(completions):                       # objectives.completions.Completion: messages, answer, facts, ...
        return [-len(one.answer) for one in completions]

    # my_annotator.py: maquette annotate feedback=callable feedback.callable=my_annotator:judge
    def judge(comparisons):                        # feedback.comparison.Comparison: messages, first, second, facts
        return [float(len(one.first) < len(one.second)) for one in comparisons]    # 1: first, 0: second, 0.5, None

Either may also be a class (made without arguments), and an annotator an object with `judge`. What goes wrong inside
names the function, its file and its line.
"""

import contextlib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.targets import definition_of, import_target, shown, users_code
from maquette.data.conversations import read_preferences
from maquette.feedback.comparison import Comparison, Judgement, comparison_of

if TYPE_CHECKING:
    from maquette.objectives.completions import Completion


def _find(target: str | None, key: str) -> Any:
    function = import_target(str(target), key=key)
    if isinstance(function, type):
        with users_code(str(target)):
            function = function()
    return function


def _called(name: str, function: Any, given: Sequence[Any], of: str, each: str) -> list[Any]:
    """What the function gives: a value for each of `given`. `of` names these, `each` what is expected for one."""
    with users_code(name, function):
        values = function(given)
        values = values.tolist() if hasattr(values, "tolist") else values
        is_list = isinstance(values, Iterable) and not isinstance(values, str | Mapping)
        values = list(values) if is_list else values
    if not is_list or len(values) != len(given):
        what = f"{len(values)} values" if is_list else shown(values)
        raise StageError(
            f"{name}{definition_of(function)} gave {what} for {len(given)} {of}.", f"Give {each} for each, in order."
        )
    return values


def _finite(value: Any) -> float | None:
    """The number that a value is, None of text, NaN, infinities, lists, numbers too large."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    with contextlib.suppress(OverflowError):
        if isinstance(value, numbers.Real) and math.isfinite(value):
            return float(value)
    return None


class CallableReward:
    """A user's function as a `RewardFunction`. Raises `ConfigError` where there is no such function."""

    def __init__(self, target: str | None) -> None:
        self.name = str(target)
        self._function = _find(target, "reward.callable")
        if not callable(self._function):
            raise ConfigError(f"reward.callable={target} can't be called.", "Name a function of a list of completions.")

    def __call__(self, completions: "Sequence[Completion]") -> list[float]:
        scores = []
        for value in _called(self.name, self._function, completions, "completions", "a number"):
            if (score := _finite(value)) is None:
                raise StageError(
                    f"{self.name}{definition_of(self._function)} gave the score {shown(value)}.",
                    "Give a finite number for each completion, in order.",
                )
            scores.append(score)
        return scores


class CallableAnnotator:
    """A user's function, or object with `judge`, as an `Annotator`. Raises `ConfigError` where there is none."""

    def __init__(self, target: str | None) -> None:
        self.name = str(target)
        function = _find(target, "feedback.callable")
        self._judge = getattr(function, "judge", function)
        if not callable(self._judge):
            raise ConfigError(
                f"feedback.callable={target} can't be called.",
                "Name a function of a list of comparisons, or a class with a method judge.",
            )

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        given = _called(self.name, self._judge, comparisons, "comparisons", "a preference")
        return [self._judgement(one) for one in given]

    def _judgement(self, given: Any) -> Judgement:
        judged = given if isinstance(given, Judgement) else Judgement(given)
        if judged.preference is None:
            return judged
        preference = _finite(judged.preference)
        if preference is None or not 0 <= preference <= 1:
            raise StageError(
                f"{self.name}{definition_of(self._judge)} gave the preference {shown(judged.preference)}.",
                "Give 1 where the first is better, 0 where the second is, between them where undecided, or None.",
            )
        return replace(judged, preference=preference)


class FileAnnotator:
    """Says what a preference file says of the same two completions, whichever was shown first; nothing of others.

    Several labels of one pair are averaged.
    """

    def __init__(self, path: Path | str) -> None:
        """Raises `StageError` where the file is missing or a line of it is damaged."""
        self.name = f"file:{Path(path).name}"
        votes: dict[str, list[float]] = {}
        for row in read_preferences(path):
            votes.setdefault(comparison_of(row).key, []).append(1.0)
        self._wins = {key: len(labels) for key, labels in votes.items()}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        judgements = []
        for one in comparisons:
            first, second = self._wins.get(one.key, 0), self._wins.get(one.swapped().key, 0)
            judgements.append(Judgement(first / (first + second) if first + second else None))
        return judgements
