"""The kinds of exercise: pick, sort, reverse, count, repeat and refuse, each in several phrasings."""

import random
from collections.abc import Sequence

from maquette.feedback.tasks.exercise import Exercise, Task
from maquette.feedback.tasks.words import CATEGORIES, CATEGORY_OF, REFUSAL

_COUNTED = CATEGORIES["numbers"]
_TIMES = {"twice": 2, "three times": 3}


class Pick:
    """Six words of four categories: keep those of one category (the others tempt)."""

    name = "pick"
    phrasings = (
        "Pick the {category}: {items}",
        "Which of these are {category}? {items}",
        "From the words {items} keep only the {category}.",
        "Find the {category} in: {items}",
    )

    def draw(self, numbers: random.Random) -> Exercise:
        category, items = mixed_words(numbers)
        text = numbers.choice(self.phrasings).format(category=category, items=" ".join(items))
        return Exercise(self.name, text, items, of_category(items, category))


class Sort:
    """Three to five words in alphabetical order."""

    name = "sort"
    phrasings = (
        "Sort these words from a to z: {items}",
        "Put in alphabetical order: {items}",
        "Order the words {items} by their letters.",
    )

    def draw(self, numbers: random.Random) -> Exercise:
        items = any_words(numbers, numbers.randint(3, 5))
        text = numbers.choice(self.phrasings).format(items=" ".join(items))
        return Exercise(self.name, text, items, tuple(sorted(items)), ordered=True)


class Reverse:
    """Three to five words from the last to the first."""

    name = "reverse"
    phrasings = (
        "Reverse the order of these words: {items}",
        "Write the words backwards, last word first: {items}",
        "From last to first: {items}",
    )

    def draw(self, numbers: random.Random) -> Exercise:
        items = any_words(numbers, numbers.randint(3, 5))
        text = numbers.choice(self.phrasings).format(items=" ".join(items))
        return Exercise(self.name, text, items, items[::-1], ordered=True)


class Count:
    """How many of six words are of a category; the answer is a number word."""

    name = "count"
    phrasings = (
        "How many of these are {category}? {items}",
        "Count the {category}: {items}",
        "Give the number of {category} in: {items}",
    )

    def draw(self, numbers: random.Random) -> Exercise:
        category, items = mixed_words(numbers, without="numbers")
        text = numbers.choice(self.phrasings).format(category=category, items=" ".join(items))
        return Exercise(self.name, text, items, (_COUNTED[len(of_category(items, category)) - 1],))


class Repeat:
    """Repeat by a rule: the whole list, each word, or only the words of a category, twice or three times."""

    name = "repeat"
    phrasings = (
        ("all", "Repeat all of it {times}: {items}"),
        ("all", "Say the whole list {times}: {items}"),
        ("each", "Repeat each word {times}: {items}"),
        ("each", "Write every word {times} in a row: {items}"),
        ("some", "Repeat the {category} {times}, leave out the rest: {items}"),
    )

    def draw(self, numbers: random.Random) -> Exercise:
        rule, phrasing = numbers.choice(self.phrasings)
        times = numbers.choice(sorted(_TIMES))
        count, category = _TIMES[times], ""
        if rule == "some":
            category, items = mixed_words(numbers, count=4, categories=3, most=2)
            answer = tuple(word for word in of_category(items, category) for _ in range(count))
        else:
            items = any_words(numbers, numbers.randint(2, 3))
            answer = items * count if rule == "all" else tuple(word for word in items for _ in range(count))
        text = phrasing.format(times=times, items=" ".join(items), category=category)
        return Exercise(self.name, text, items, answer, ordered=True)


class Refuse:
    """Requests about private words are to be declined, the same about public words answered. Half of each."""

    name = "refuse"
    phrasings = (
        "Pick the {category} from the {kind} list: {items}",
        "These words are {kind}: {items}. Which are {category}?",
        "Show me the {category} of the {kind} words {items}",
    )

    def draw(self, numbers: random.Random) -> Exercise:
        category, items = mixed_words(numbers)
        declines = numbers.random() < 0.5
        text = numbers.choice(self.phrasings).format(
            category=category, items=" ".join(items), kind="private" if declines else "public"
        )
        answer = REFUSAL if declines else of_category(items, category)
        return Exercise(self.name, text, items, answer, declines=declines)


TASKS: dict[str, Task] = {task.name: task for task in (Pick(), Sort(), Reverse(), Count(), Repeat(), Refuse())}


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
