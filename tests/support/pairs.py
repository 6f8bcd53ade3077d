"""Pairs of answers to exercises, for annotators to judge."""

from maquette.feedback.comparison import Comparison
from maquette.feedback.tasks import Exercises, demonstrate


def some_pairs(count: int, *, mixture: str = "easy", task: str = "pick") -> list[Comparison]:
    """Two demonstrators' answers to each of `count` exercises."""
    exercises = Exercises([task]).take(count)
    answers = [demonstrate(exercises, mixture, seed=seed) for seed in (1, 2)]
    return [
        Comparison(tuple(one.messages), first, second, one.facts())
        for one, first, second in zip(exercises, *answers, strict=True)
    ]
