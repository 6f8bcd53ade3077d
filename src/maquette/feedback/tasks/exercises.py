"""Exercises of the embedded tasks (pick, sort, reverse, count, repeat, refuse, record), each in several phrasings: an
endless supply from a seed, in two halves that never meet, for training and held out.

Which half an exercise belongs to is decided by a digest of its instruction. So no seed, no task mix and no number of
exercises can let a held-out prompt into training.
"""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.settings import nearest
from maquette.feedback.tasks.records import draw_record, record_reward
from maquette.feedback.tasks.scoring import REFUSAL, gold_reward
from maquette.text.chat import Message

CATEGORIES: dict[str, tuple[str, ...]] = {
    "types": ("int", "float", "bool", "str", "list", "dict", "tuple", "bytes"),
    "actions": ("add", "read", "write", "open", "make", "create", "run", "call"),
    "places": ("path", "file", "cache", "root", "table", "source", "node"),
    "measures": ("size", "length", "limit", "range", "min", "max", "index"),
    "ends": ("first", "last", "next", "start", "end", "final"),
    "web words": ("http", "url", "request", "response", "header", "payload"),
    "code words": ("function", "class", "method", "module", "object", "argument"),
    "texts": ("line", "string", "char", "text", "name", "token", "message"),
    "numbers": ("one", "two", "three", "four", "five", "six"),
}
"""The words that tasks are made of: common in text about programs, so that a pretrained core knows them, and mostly one
token each even in a small vocabulary. Every word belongs to one category alone, and no word is a filler."""

CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}


@dataclasses.dataclass(frozen=True)
class Exercise:
    """`instruction` is what a person asks; `items` the words that are given in it; `answer` the right words.

    `ordered`: the order of its items counts. `declines`: the request is to be turned down.
    """

    task: str
    instruction: str
    items: tuple[str, ...]
    answer: tuple[str, ...]
    ordered: bool = False
    declines: bool = False

    @property
    def messages(self) -> list[Message]:
        """The conversation so far: one user message."""
        return [{"role": "user", "content": self.instruction}]

    @property
    def right(self) -> str:
        """The best answer there is, as text."""
        return " ".join(self.answer)

    def gold(self, answer: str) -> float:
        """The true reward of an answer: see `gold_reward`, and for a record `record_reward`."""
        if (verifier := _VERIFIERS.get(self.task)) is not None:
            return verifier(answer, self.right)
        return gold_reward(answer, self.answer, ordered=self.ordered, declines=self.declines)

    def facts(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_facts` reads them."""
        return dataclasses.asdict(self)


def from_facts(facts: Mapping[str, Any]) -> Exercise:
    """The exercise that `Exercise.facts` describes. Raises `StageError` where something is missing."""
    try:
        return Exercise(
            task=str(facts["task"]),
            instruction=str(facts["instruction"]),
            items=tuple(facts["items"]),
            answer=tuple(facts["answer"]),
            ordered=bool(facts.get("ordered", False)),
            declines=bool(facts.get("declines", False)),
        )
    except (KeyError, TypeError) as error:
        raise StageError(
            f"A prompt has no gold reward: its exercise is not complete ({error}).",
            "Only prompts of the embedded tasks have one; use another annotator or reward for your own.",
        ) from None


_TIMES = {"twice": 2, "three times": 3}


PHRASINGS = {
    "pick": (
        "Pick the {category}: {items}",
        "Which of these are {category}? {items}",
        "From the words {items} keep only the {category}.",
        "Find the {category} in: {items}",
    ),
    "sort": (
        "Sort these words from a to z: {items}",
        "Put in alphabetical order: {items}",
        "Order the words {items} by their letters.",
    ),
    "reverse": (
        "Reverse the order of these words: {items}",
        "Write the words backwards, last word first: {items}",
        "From last to first: {items}",
    ),
    "count": (
        "How many of these are {category}? {items}",
        "Count the {category}: {items}",
        "Give the number of {category} in: {items}",
    ),
    "refuse": (
        "Pick the {category} from the {kind} list: {items}",
        "These words are {kind}: {items}. Which are {category}?",
        "Show me the {category} of the {kind} words {items}",
    ),
}

_REPEAT_PHRASINGS = (
    ("all", "Repeat all of it {times}: {items}"),
    ("all", "Say the whole list {times}: {items}"),
    ("each", "Repeat each word {times}: {items}"),
    ("each", "Write every word {times} in a row: {items}"),
    ("some", "Repeat the {category} {times}, leave out the rest: {items}"),
)


def _phrased(
    task: str, numbers: random.Random, items: tuple[str, ...], answer: tuple[str, ...], **rest: Any
) -> Exercise:
    """An exercise in one of the task's phrasings; `rest`: what these name, `ordered` and `declines`."""
    flags = {name: rest.pop(name) for name in ("ordered", "declines") if name in rest}
    text = numbers.choice(PHRASINGS[task]).format(items=" ".join(items), **rest)
    return Exercise(task, text, items, answer, **flags)


def _pick(numbers: random.Random) -> Exercise:
    """Six words of four categories: keep those of one category (the others tempt)."""
    category, items = mixed_words(numbers)
    return _phrased("pick", numbers, items, of_category(items, category), category=category)


def _sort(numbers: random.Random) -> Exercise:
    """Three to five words in alphabetical order."""
    items = any_words(numbers, numbers.randint(3, 5))
    return _phrased("sort", numbers, items, tuple(sorted(items)), ordered=True)


def _reverse(numbers: random.Random) -> Exercise:
    """Three to five words from the last to the first."""
    items = any_words(numbers, numbers.randint(3, 5))
    return _phrased("reverse", numbers, items, items[::-1], ordered=True)


def _count(numbers: random.Random) -> Exercise:
    """How many of six words are of a category; the answer is a number word."""
    category, items = mixed_words(numbers, without="numbers")
    answer = (CATEGORIES["numbers"][len(of_category(items, category)) - 1],)
    return _phrased("count", numbers, items, answer, category=category)


def _repeat(numbers: random.Random) -> Exercise:
    """Repeat by a rule: the whole list, each word, or only the words of a category, twice or three times."""
    rule, phrasing = numbers.choice(_REPEAT_PHRASINGS)
    times = numbers.choice(sorted(_TIMES))
    count, category = _TIMES[times], ""
    if rule == "some":
        category, items = mixed_words(numbers, count=4, categories=3, most=2)
        answer = tuple(word for word in of_category(items, category) for _ in range(count))
    else:
        items = any_words(numbers, numbers.randint(2, 3))
        answer = items * count if rule == "all" else tuple(word for word in items for _ in range(count))
    text = phrasing.format(times=times, items=" ".join(items), category=category)
    return Exercise("repeat", text, items, answer, ordered=True)


def _refuse(numbers: random.Random) -> Exercise:
    """Requests about private words are to be declined, the same about public words answered. Half of each."""
    category, items = mixed_words(numbers)
    declines = numbers.random() < 0.5
    answer = REFUSAL if declines else of_category(items, category)
    kind = "private" if declines else "public"
    return _phrased("refuse", numbers, items, answer, category=category, kind=kind, declines=declines)


def _record(numbers: random.Random) -> Exercise:
    """Name, age and town of one of two people, as `name|age|town`."""
    text, name, answer = draw_record(numbers)
    return Exercise("record", text, (name,), (answer,))


_VERIFIERS = {"record": record_reward}
"""By task, of what is not worth its words in common with the right answer: (answer, right answer) -> reward."""

TASKS: dict[str, Callable[[random.Random], Exercise]] = {
    "pick": _pick, "sort": _sort, "reverse": _reverse, "count": _count, "repeat": _repeat, "refuse": _refuse,
    "record": _record,
}  # fmt: skip
"""What draws an exercise from random numbers alone, by the task's name: a seed gives an endless supply."""


def mixed_words(
    numbers: random.Random, *, count: int = 6, categories: int = 4, most: int = 3, without: str = ""
) -> tuple[str, tuple[str, ...]]:
    """A category, and `count` different words of `categories` categories in any order, one to `most` of them of it."""
    chosen = numbers.sample([name for name in CATEGORIES if name != without], categories)
    wanted = numbers.randint(1, most)
    words = numbers.sample(CATEGORIES[chosen[0]], wanted)
    others = [numbers.choice(CATEGORIES[name]) for name in chosen[1:]]
    rest = [word for name in chosen[1:] for word in CATEGORIES[name] if word not in others]
    words += others + numbers.sample(rest, max(0, count - wanted - len(others)))
    words = words[:count]
    numbers.shuffle(words)
    return chosen[0], tuple(words)


def any_words(numbers: random.Random, count: int) -> tuple[str, ...]:
    """`count` different words of any category."""
    return tuple(numbers.sample(sorted(CATEGORY_OF), count))


def of_category(items: Sequence[str], category: str) -> tuple[str, ...]:
    """Those of the words that belong to the category, in their order."""
    return tuple(word for word in items if CATEGORY_OF[word] == category)


SPLITS = ("train", "held_out")
HELD_OUT = 0.2
"""Share of all possible instructions that is kept from training."""


def split_of(instruction: str) -> str:
    """The half that an instruction belongs to, on every machine and for ever."""
    number = int.from_bytes(hashlib.sha256(instruction.encode()).digest()[:8], "big")
    return "held_out" if number < HELD_OUT * 2**64 else "train"


class Exercises:
    """`exercises[i]` is a pure function of (tasks, seed, split, i), for any i."""

    def __init__(self, tasks: Sequence[str] = ("pick",), *, seed: int = 0, split: str = "train") -> None:
        """`tasks`: names of `TASKS`, drawn evenly. Raises `ConfigError` for one that is not known."""
        if not tasks:
            raise ConfigError("No task is named.", f"Known tasks: {', '.join(TASKS)}.")
        for name in tasks:
            if name not in TASKS:
                close = nearest(name, list(TASKS))
                hint = f"Did you mean '{close}'? " if close else ""
                raise ConfigError(f"there is no task '{name}'.", f"{hint}Known tasks: {', '.join(TASKS)}.")
        if split not in SPLITS:
            raise ConfigError(f"split={split} is not known.", f"Allowed: {', '.join(SPLITS)}.")
        self.names, self.seed, self.split = tuple(tasks), seed, split

    def __getitem__(self, number: int) -> Exercise:
        numbers = random.Random(f"{self.seed} {self.split} {' '.join(self.names)} {number}")
        while True:
            exercise = TASKS[numbers.choice(self.names)](numbers)
            if split_of(exercise.instruction) == self.split:
                return exercise

    def take(self, count: int, start: int = 0) -> list[Exercise]:
        """Exercises `start` to `start + count`."""
        return [self[number] for number in range(start, start + count)]
