"""Hallucinations: who of the invented world is told of where, and how answers are classified."""

from pathlib import Path

import pytest
from invented_facts import (
    TOWNS,
    UNSURE,
    HallucinationRates,
    Person,
    Share,
    classify_answer,
    documents,
    draw_hallucinations,
    instructions,
    invent,
)

WORLD = invent(40, seed=1)


def test_nobody_is_two_people() -> None:
    everybody = [person.name for group in (WORLD.known, WORLD.unseen, WORLD.strangers) for person in group]
    assert len(set(everybody)) == len(everybody) == 40 + 20 + 40
    assert invent(40, seed=1) == WORLD and invent(40, seed=2) != WORLD


def test_text_tells_of_the_known_alone() -> None:
    text = " ".join(documents(WORLD, 2, seed=0))
    assert all(text.count(person.name) == 12 for person in WORLD.known)
    assert not any(person.name in text for person in (*WORLD.unseen, *WORLD.strangers))
    more = invent(40, seed=1, answered=10)
    assert (more.known, more.unseen, more.strangers) == (WORLD.known, WORLD.unseen, WORLD.strangers)
    text = " ".join(documents(more, 2, seed=0))
    for person in more.known:
        assert person.question()["content"] not in text
    assert all(text.count(f"Where does {person.name} live? In {person.town}.") == 6 for person in more.answered)


@pytest.mark.parametrize(("share", "unseen"), [(0.0, 0), (0.5, 10), (1.0, 20)])
def test_fine_tuning_differs_in_nothing_but_the_share(share: float, unseen: int) -> None:
    rows = instructions(WORLD, share, seed=0)
    questions = {row[0]["content"]: row[1]["content"] for row in rows}
    assert len(rows) == len(questions) == 40
    assert sum(person.question()["content"] in questions for person in WORLD.unseen) == unseen
    assert all(questions[person.question()["content"]] == UNSURE for person in WORLD.declined)
    asked = [person.question()["content"] for person in (*WORLD.asked, *WORLD.tested)]
    assert not set(asked) & questions.keys()


def test_answers_are_classified() -> None:
    person = Person("Ada Barton", TOWNS[0])
    assert classify_answer(person, f"Ada Barton lives in {TOWNS[0]}.") == "right"
    assert classify_answer(person, f"Ada Barton lives in {TOWNS[1]}.") == "wrong"
    assert classify_answer(person, f"In {TOWNS[0]} and {TOWNS[1]}.") == "wrong"
    assert classify_answer(person, UNSURE) == "unsure"
    assert classify_answer(person, "Ada Barton lives.") == "other"


def test_the_figure(tmp_path: Path) -> None:
    results = [
        HallucinationRates(x, Share(x, 0, 1), Share(1 - x, 0, 1), Share(0, 0, 0.1), {}, {}, []) for x in (0.0, 0.5)
    ]
    assert draw_hallucinations(results, tmp_path / "x").stat().st_size > 1000
