"""Records taken out of a sentence: `name|age|town` of one of two people, in that form and nothing else.

    Meet Ann, aged 34, from Oslo, and Ben, aged 51, from Lima. Write Ben as name|age|town.     ->     Ben|51|Lima

What an instruction-tuned model that was never shown the form gets wrong, and a program can verify. `verify` is a reward
as anybody would write one: `reward.callable=maquette.feedback.tasks.records:verify`.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maquette.objectives.completions import Completion

NAMES = (
    "Ann", "Ben", "Cora", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jan", "Kim", "Leo", "Mia", "Nora", "Otto",
    "Paul", "Rosa", "Sam", "Tess", "Vera",
)  # fmt: skip
TOWNS = (
    "Oslo", "Lima", "Cairo", "Delhi", "Quito", "Perth", "Turin", "Osaka", "Accra", "Leeds", "Miami", "Porto", "Lagos",
    "Dublin", "Boston", "Vienna",
)  # fmt: skip
AGES = range(18, 91)

_ONE = (
    "{name} is {age} years old and lives in {town}.",
    "Aged {age}, {name} has moved to {town}.",
    "Meet {name}, aged {age}, from {town}.",
    "In {town} lives {name}, who is {age}.",
)
_ASKED = ("Write {name} as name|age|town.", "Give name|age|town of {name}.", "As name|age|town, give {name}.")


def draw_record(numbers: random.Random) -> tuple[str, str, str]:
    """An instruction about one of two people, whom it asks for, and the right answer: from random numbers alone."""
    people = list(zip(numbers.sample(NAMES, 2), numbers.sample(AGES, 2), numbers.sample(TOWNS, 2), strict=True))
    sentences = [numbers.choice(_ONE).format(name=name, age=age, town=town) for name, age, town in people]
    name, age, town = numbers.choice(people)
    return " ".join([*sentences, numbers.choice(_ASKED).format(name=name)]), name, f"{name}|{age}|{town}"


def record_reward(answer: str, right: str) -> float:
    """Share of the fields that are right, in their place; 0 for what is not one line of as many fields. 1 is the right
    answer and nothing else."""
    given, fields = answer.strip().split("|"), right.split("|")
    if len(given) != len(fields) or "\n" in answer.strip():
        return 0.0
    return sum(one == other for one, other in zip(given, fields, strict=True)) / len(fields)


def verify(completions: "Sequence[Completion]") -> list[float]:
    """`record_reward` of each completion of a prompt of the task `record`."""
    return [record_reward(one.answer, one.facts["answer"][0]) for one in completions]
