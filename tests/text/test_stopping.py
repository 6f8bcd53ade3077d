"""Stop strings, wherever they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.artifacts import ConfigError
from maquette.text.stream import StopText


def read(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """All that is shown, and the stop string that was found."""
    text = StopText(stops)
    shown = "".join(text.push(piece) for piece in pieces)
    return shown + text.flush(), text.matched


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        ([], ["a", "b"], ("ab", None)),
        (["\n\n"], ["one\n", "\ntwo"], ("one", "\n\n")),
        (["\n\n"], ["one\n", "two\n"], ("one\ntwo\n", None)),
        (["aab"], ["a", "a", "a", "b", "c"], ("a", "aab")),
        (["END", "N"], ["THE E", "ND"], ("THE E", "N")),  # complete first
        (["bc", "abc"], ["xabcd"], ("x", "abc")),  # complete together: the longer
    ],
)
def test_cases(stops: list[str], pieces: list[str], expected: tuple[str, str | None]) -> None:
    assert read(stops, pieces) == expected


def test_holds_back_only_what_may_become_a_stop_string() -> None:
    text = StopText(["<end>"])
    assert [text.push(piece) for piece in ("hello <", "e", "ggs", " <end", "> x")] == ["hello ", "", "<eggs", " ", ""]


@given(st.text("ab\n", max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), st.data())
def test_does_not_depend_on_how_text_is_cut(whole: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    borders = [0, *cuts, len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(borders)]
    shown, result = read(stops, pieces)
    assert (shown, result) == read(stops, list(whole))
    assert not any(stop in shown for stop in stops)
    assert (shown + (result or "")) == whole[: len(shown + (result or ""))]


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        StopText(["a", ""])
