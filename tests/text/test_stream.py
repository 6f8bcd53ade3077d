"""Streaming never shows half a character, and all of it together is the text."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette.text import StreamDecoder, Tokenizer


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 405), max_size=30))
def test_any_ids_stream_to_what_they_decode_to(tokenizer: Tokenizer, ids: list[int]) -> None:
    for skip_special in (False, True):
        stream = StreamDecoder(tokenizer, skip_special=skip_special)
        together = "".join(stream.push(id) for id in ids) + stream.flush()
        assert together == tokenizer.decode(ids, skip_special=skip_special)


def test_a_character_appears_when_it_is_whole(trained: dict[tuple[str, str], Tokenizer]) -> None:
    tokenizer = trained["byte", "gpt4"]
    stream = StreamDecoder(tokenizer)
    assert [stream.push(id) for id in tokenizer.encode("a🎉é")] == ["a", "", "", "", "🎉", "", "é"]
    assert stream.flush() == ""


def test_an_unfinished_character_is_marked_at_the_end(trained: dict[tuple[str, str], Tokenizer]) -> None:
    tokenizer = trained["byte", "gpt4"]
    stream = StreamDecoder(tokenizer)
    assert [stream.push(id) for id in tokenizer.encode("ภ")[:2]] == ["", ""]
    assert stream.flush() == "\ufffd"
