"""Demonstrators of a task, some better than others: right, careless, or wordy answers in set proportions.

Supervised fine-tuning imitates all of them, so it is bound by their mean; what lies between that and the right answers
is for alignment to gain.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from maquette.artifacts import ConfigError
from maquette.feedback.tasks.exercises import CATEGORIES, Exercise, any_words
from maquette.feedback.tasks.scoring import FILLERS, REFUSAL


@dataclass(frozen=True)
class Demonstrators:
    """Shares of the ways to answer; what is left of 1 is `right`.

    `first`: only the first right word. `drop`: one right word is missing. `add`: one wrong word more. `scramble`: words
    of the instruction at random. `filler`: share of answers that open with one to three filler words, and
    `trailing` of those that close with one. `lists`: share that is laid out as a list, one word a line.
    """

    first: float = 0.0
    drop: float = 0.0
    add: float = 0.0
    scramble: float = 0.0
    filler: float = 0.0
    trailing: float = 0.0
    lists: float = 0.0

    def __post_init__(self) -> None:
        flaws = self.first + self.drop + self.add + self.scramble
        shares = (self.first, self.drop, self.add, self.scramble, self.filler, self.trailing, self.lists)
        if min(shares) < 0 or max(shares) > 1 or flaws > 1 + 1e-9:
            raise ConfigError("Shares of demonstrators lie between 0 and 1; first, drop, add, scramble add up to <= 1.")

    @property
    def right(self) -> float:
        """Share of answers with the right words."""
        return 1 - self.first - self.drop - self.add - self.scramble

    def answer(self, exercise: Exercise, numbers: random.Random) -> str:
        """One demonstrator's answer."""
        words = self._content(exercise, numbers)
        opening: tuple[str, ...] = ()
        closing: tuple[str, ...] = ()
        if numbers.random() < self.filler:
            opening = tuple(numbers.choice(FILLERS) for _ in range(numbers.randint(1, 3)))
        if numbers.random() < self.trailing:
            closing = (numbers.choice(FILLERS),)
        if numbers.random() < self.lists:
            return "\n".join([*opening, *(f"- {word}" for word in words), *closing])
        return " ".join([*opening, *words, *closing])

    def _content(self, exercise: Exercise, numbers: random.Random) -> list[str]:
        """The words of an answer without fillers: never empty."""
        words = list(exercise.answer)
        ways = {"first": self.first, "drop": self.drop, "add": self.add, "scramble": self.scramble, "right": self.right}
        way = numbers.choices(list(ways), list(ways.values()))[0]
        if way == "scramble" or (way != "right" and exercise.declines):
            # A request that should be declined is answered, others are answered at random.
            return _scrambled(exercise, numbers)
        if way == "first":
            return words[:1]
        if way == "drop":
            if len(words) == 1:
                return _scrambled(exercise, numbers)
            words.pop(numbers.randrange(len(words)))
        if way == "add":
            wrong = [word for word in exercise.items if word not in words] or list(exercise.items)
            words.insert(numbers.randint(0, len(words)), numbers.choice(wrong))
        return words


def _scrambled(exercise: Exercise, numbers: random.Random) -> list[str]:
    """Words that are likely wrong, as many as the right answer has; for a count, another number."""
    if exercise.task == "count":
        return [numbers.choice([word for word in CATEGORIES["numbers"][:4] if word not in exercise.answer])]
    if exercise.task == "refuse" and not exercise.declines and numbers.random() < 0.3:
        return list(REFUSAL)  # overcautious
    count = min(len(exercise.items), max(1, len(exercise.answer)))
    return numbers.sample(exercise.items, count) if exercise.items else list(any_words(numbers, count))


MIXTURES: dict[str, Demonstrators] = {
    "easy": Demonstrators(drop=0.2, add=0.2, scramble=0.2, filler=0.3, trailing=0.1),
    "harder": Demonstrators(first=0.5, drop=0.1, add=0.1, scramble=0.1, filler=0.65, trailing=0.1),
    "perfect": Demonstrators(),
    "listing": Demonstrators(drop=0.2, add=0.2, scramble=0.2, filler=0.3, lists=0.3),
}
"""By name. `easy`: 40% right; greedy decoding of an imitator is then nearly perfect already. `harder`: 20% right, half
only the first word, 65% with leading filler, so that even the likeliest answer is poor."""


def demonstrate(exercises: Sequence[Exercise], mixture: str, *, seed: int = 0) -> list[str]:
    """One answer to each exercise: a pure function of the exercise, the mixture and the seed.

    Raises `ConfigError` for a mixture that is not known."""
    if mixture not in MIXTURES:
        raise ConfigError(f"demonstrators={mixture} is not known.", f"Allowed: {', '.join(MIXTURES)}.")
    people = MIXTURES[mixture]
    return [
        people.answer(exercise, random.Random(f"{seed} {number} {exercise.instruction}"))
        for number, exercise in enumerate(exercises)
    ]
