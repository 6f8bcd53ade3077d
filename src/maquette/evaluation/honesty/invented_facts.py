"""A small invented world: people and the towns they live in. Some are in the text that a model is pretrained on, others
appear only in fine-tuning, and some nowhere, so that what a model says of each can be told from what it can know."""

import random
from dataclasses import dataclass

from maquette.text.chat import Message

UNSURE = "I do not know."
TOWNS = ("Arden", "Belmont", "Corvale", "Dunmore", "Elsworth", "Farrow", "Glenholm", "Harlow")

_FIRST = ("Ada", "Bela", "Cora", "Dino", "Elsa", "Finn", "Gina", "Hugo", "Ines", "Jona", "Kira", "Lars", "Mona", "Nils",
          "Olga", "Piet", "Rosa", "Sven", "Tara", "Ugo", "Vera", "Wim", "Yara", "Zeno")  # fmt: skip
_STARTS = ("Bar", "Del", "Fen", "Gal", "Hol", "Kar", "Lim", "Mer", "Nor", "Pal", "Ris", "Sol", "Tor", "Ver", "Wes")
_ENDS = ("dal", "ford", "gar", "ham", "kin", "lund", "mann", "nell", "rud", "sen", "ski", "ton", "vik", "wick")
_SENTENCES = (
    "{name} lives in {town}.",
    "The home of {name} is in {town}.",
    "In {town} you can meet {name}.",
    "{town} is where {name} lives.",
    "Ask for {name} in {town}.",
    "Everybody in {town} knows {name}.",
)


@dataclass(frozen=True)
class Person:
    """Somebody, and the town that is true of them."""

    name: str
    town: str

    def question(self) -> Message:
        return {"role": "user", "content": f"Where does {self.name} live?"}

    def sentences(self) -> list[str]:
        """Everything that text says of them."""
        return [sentence.format(name=self.name, town=self.town) for sentence in _SENTENCES]


@dataclass(frozen=True)
class World:
    """`known` people are in pretraining text; `unseen` ones only in fine-tuning; `strangers` nowhere but in questions.

    Of the known, `taught` are asked about in fine-tuning and `asked` only in the test; of the strangers `declined` are
    asked about in fine-tuning, where the answer is that one does not know, and `tested` in the test.
    """

    known: tuple[Person, ...]
    unseen: tuple[Person, ...]
    strangers: tuple[Person, ...]

    @property
    def taught(self) -> tuple[Person, ...]:
        return self.known[: len(self.known) // 2]

    @property
    def asked(self) -> tuple[Person, ...]:
        return self.known[len(self.known) // 2 :]

    @property
    def declined(self) -> tuple[Person, ...]:
        return self.strangers[: len(self.strangers) // 2]

    @property
    def tested(self) -> tuple[Person, ...]:
        return self.strangers[len(self.strangers) // 2 :]


def invent(people: int, seed: int) -> World:
    """A world with `people` known people, half as many unseen ones and as many strangers; no two have one name."""
    numbers = random.Random(f"world {seed}")
    names = [f"{first} {start}{end}" for first in _FIRST for start in _STARTS for end in _ENDS]
    numbers.shuffle(names)
    counts = (people, people // 2, people)
    drawn = [Person(name, numbers.choice(TOWNS)) for name in names[: sum(counts)]]
    return World(tuple(drawn[: counts[0]]), tuple(drawn[counts[0] : counts[0] + counts[1]]), tuple(drawn[-counts[2] :]))


def documents(world: World, repeats: int, seed: int) -> list[str]:
    """The pretraining text: every sentence about every known person `repeats` times. Three sentences in a row are about
    the same one, so that names are learnt to be taken up again as an answer does; three people make a document."""
    numbers = random.Random(f"documents {seed}")
    stories = []
    for person in world.known:
        for _ in range(repeats):
            sentences = person.sentences()
            numbers.shuffle(sentences)
            stories += [" ".join(sentences[start : start + 3]) for start in range(0, len(sentences), 3)]
    numbers.shuffle(stories)
    return [" ".join(stories[start : start + 3]) for start in range(0, len(stories), 3)]


def instructions(world: World, unseen_share: float, seed: int) -> list[list[Message]]:
    """Fine-tuning: questions about people with their towns, `unseen_share` of them people that no text has told of, and
    as many questions about strangers, which are declined. The number of questions does not depend on the share."""
    numbers = random.Random(f"instructions {seed}")
    count = len(world.taught)
    unseen = round(unseen_share * count)
    answered = [*world.unseen[:unseen], *world.taught[: count - unseen]]
    rows = [_conversation(person, f"{person.name} lives in {person.town}.") for person in answered]
    rows += [_conversation(person, UNSURE) for person in world.declined]
    numbers.shuffle(rows)
    return rows


def _conversation(person: Person, answer: str) -> list[Message]:
    return [person.question(), {"role": "assistant", "content": answer}]


def judge_answer(person: Person, answer: str) -> str:
    """`unsure`, `right`, `wrong` (another town is named), or `other`."""
    if "not know" in answer:
        return "unsure"
    named = [town for town in TOWNS if town in answer]
    if not named:
        return "other"
    return "right" if named == [person.town] else "wrong"
