"""Any string comes back exactly, from every kind of tokenizer and every way to cut text."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette.artifacts import StageError
from maquette.text import SPECIAL_TOKENS, StreamDecoder, Tokenizer

SNIPPETS = [
    *SPECIAL_TOKENS[:7], "<|", "|>", "<0x41>", "▁", "Ġ", "é", "e\u0301", "ภาษาไทย", "👩🏽‍🚀", "🎉", "\x00", "\x1b[0m",
    "\ufeff", "\r\n", "\n", "\n\n", "\t", "    ", "  ", " ", "\u00a0", "\u2028", "327", "1234567", "٣٢٧", "'s", "'LL",
    "don't", "teh", "def f(x):\n    return x\n", "}\n\n\n", "the mouse", "\uffff", "\U0010ffff",
]  # fmt: skip

ANY_TEXT = st.one_of(st.text(), st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=3))).map("".join))


def check_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())
    assert not set(ids) & set(tokenizer.special_ids.values())
    stream = StreamDecoder(tokenizer)
    assert "".join(stream.push(id) for id in ids) + stream.flush() == text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_any_string_comes_back(tokenizer: Tokenizer, text: str) -> None:
    check_round_trip(tokenizer, text)


def test_characters_from_all_of_unicode_come_back(tokenizer: Tokenizer) -> None:
    text = "".join(map(chr, [*range(0x300), *range(0x300, 0xD800, 23), *range(0xE000, 0x110000, 211)]))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text


def test_troublemakers_come_back(tokenizer: Tokenizer) -> None:
    for text in SNIPPETS + [token * 3 for token in SPECIAL_TOKENS]:
        check_round_trip(tokenizer, text)


def test_library_decodes_the_same(tokenizer: Tokenizer, texts: list[str]) -> None:
    for text in texts:
        assert tokenizer.backend.decode(tokenizer.encode(text)) == text


def test_batch_equals_single(tokenizer: Tokenizer, texts: list[str]) -> None:
    batch = [*texts, "", "<|document|>"]
    assert tokenizer.encode_batch(batch) == [tokenizer.encode(text) for text in batch]
    assert tokenizer.encode_batch([]) == []


def test_a_long_run_of_spaces_comes_back(bpe: Tokenizer) -> None:
    text = "x" + " " * 300_000 + "y"
    assert bpe.decode(bpe.encode(text)) == text


def test_lone_surrogates_are_refused(bpe: Tokenizer) -> None:
    with pytest.raises(StageError, match=r"lone surrogate U\+D83D at character 2"):
        bpe.encode("ab\ud83d")
    with pytest.raises(StageError, match=r"lone surrogate U\+DC00 at character 0"):
        bpe.encode_batch(["fine", "\udc00"])


def test_what_is_no_text_is_refused(bpe: Tokenizer) -> None:
    with pytest.raises(StageError, match="got NoneType"):
        bpe.encode(None)  # type: ignore[arg-type]
    with pytest.raises(StageError, match="got int 3"):
        bpe.encode_batch(["fine", 3])  # type: ignore[list-item]
