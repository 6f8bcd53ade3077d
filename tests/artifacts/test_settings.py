from dataclasses import dataclass

import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import check, nearest, parse_quantity, setting, walk


@dataclass
class Inner:
    rate: float = setting(0.1, "a rate", minimum=0.0, maximum=1.0)
    kind: str = setting("a", "a kind", choices=("a", "b"))


@dataclass
class Outer:
    inner: Inner = setting(Inner, "the inner one")
    many: list[Inner] = setting(list, "several")
    count: str | None = setting(None, "a count", quantity=True)


def test_walk_gives_dotted_keys_with_help() -> None:
    assert [(item.key, item.default) for item in walk(Outer)] == [
        ("inner.rate", 0.1), ("inner.kind", "a"), ("many", []), ("count", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Outer(inner=Inner(rate=2.0)), ("inner.rate=2.0", "at least 0 and at most 1")),
        (Outer(inner=Inner(kind="c")), ("inner.kind=c", "Allowed: a, b")),
        (Outer(many=[Inner(), Inner(rate=-1)]), ("many[1].rate=-1", "at least 0")),
        (Outer(count="12q"), ("count=12q", "300k")),
    ],
)
def test_check_names_key_and_allowed_values(config: Outer, words: tuple[str, ...]) -> None:
    check(Outer())
    with pytest.raises(ConfigError) as caught:
        check(config)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("300k", 300_000), ("1.5M", 1_500_000), ("2b", 2 * 10**9), ("15T", 15 * 10**12), ("1e13", 10**13), (4096, 4096)],
)
def test_quantities_are_read_as_people_write_them(text: str | int, value: int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "k", "-3", "0", "3q", "1..2", "nan", "inf"])
def test_what_is_not_a_count_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_quantity(text, "size")


def test_nearest_matches_whole_keys_and_their_last_part() -> None:
    known = ["recipe.learning_rate", "seed", "size"]
    assert nearest("recipe.learning_rte", known) == "recipe.learning_rate"
    assert nearest("lerning_rate", known) == "recipe.learning_rate"
    assert nearest("sede", known) == "seed"
    assert nearest("xyzzy", known) is None
