import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.corpus.hashing import characters, sequence_hashes, tokenize, window_hashes

ASCII = st.text(st.characters(min_codepoint=9, max_codepoint=126), max_size=60)


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def hashes(text: str) -> list[int]:
    return tokenize(characters(text))[1].tolist()


@given(ASCII | st.text("aé ß_1ж.-\n\t\u00a0", max_size=40))
def test_tokens_are_words_and_punctuation_marks(text: str) -> None:
    starts, result = tokenize(characters(text))
    assert starts.tolist() == [match.start() for match in re.finditer(r"\w+|[^\w\s]", text)]
    assert len(set(result.tolist())) == len(set(words(text)))


@given(ASCII, ASCII)
def test_equal_tokens_have_equal_hashes_whatever_is_between(left: str, right: str) -> None:
    assert (hashes(left) == hashes(right)) == (words(left) == words(right))
    assert hashes(f"  {left}\n\n{right} ") == hashes(left) + hashes(right)


def test_every_letter_is_a_token_where_words_are_not_parted() -> None:
    assert len(hashes("สวัสดี")) == 6
    assert len(hashes("言語 モデル")) == 5
    assert len(hashes("𠀀𠀁")) == len(set(hashes("𠀀𠀁"))) == 2
    assert len(hashes("한국어 모델")) == 2


@pytest.mark.parametrize("text", ["", " ", "\n\n\t"])
def test_nothing_has_no_tokens(text: str) -> None:
    assert hashes(text) == []


def test_very_long_words_are_told_apart() -> None:
    assert hashes("a" * 5000) != hashes("a" * 5001)


def test_hashes_are_the_same_everywhere() -> None:
    assert hashes("Hello, world") == [5364366719387728277, 2917668999698670249, 4160489664314162120]


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 33))
def test_windows_are_equal_where_their_tokens_are(values: list[int], length: int) -> None:
    tokens = np.array(values, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    result = window_hashes(tokens, length).tolist()
    expected = [tuple(values[place : place + length]) for place in range(len(values) - length + 1)]
    assert len(result) == len(expected)
    assert len(set(result)) == len(set(expected)) == len(set(zip(result, expected, strict=True)))


def test_sequences_are_equal_where_their_tokens_are_in_order() -> None:
    tokens = np.array([1, 2, 3, 1, 2, 3, 3, 2, 1, 1, 2], np.uint64)
    first, second, third, fourth = sequence_hashes(tokens, np.array([0, 3, 6, 9])).tolist()
    assert first == second
    assert len({first, third, fourth}) == 3
