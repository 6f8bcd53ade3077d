"""The chat template: ids, loss mask, round trip, prefixes; and the same in Jinja."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette.artifacts import StageError
from maquette.text import SPECIAL_TOKENS, Tokenizer, chat

MESSAGES: list[chat.Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 327 + 58?\n"},
    {"role": "assistant", "content": " 385 "},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "ภาษาไทย 🎉"},
]

_CONTENT = st.one_of(st.text(max_size=20), st.sampled_from([*SPECIAL_TOKENS[:6], "<|user|>hi", "{{ x }}", "{% if %}"]))
_TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": _CONTENT})
_SYSTEM = st.fixed_dictionaries({"role": st.just("system"), "content": _CONTENT})
CONVERSATIONS = st.tuples(st.lists(_SYSTEM, max_size=1), st.lists(_TURN, min_size=1, max_size=4)).map(
    lambda p: p[0] + [next(turns) for _, turns in itertools.groupby(p[1], lambda turn: turn["role"])]
)


def test_layout(bpe: Tokenizer) -> None:
    conversation = chat.render(bpe, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    a, b = bpe.encode("a"), bpe.encode("b")
    assert conversation.ids == [0, 3, *a, 5, 4, *b, 5]
    assert conversation.assistant_mask == [False] * (4 + len(a)) + [True] * (len(b) + 1)
    asked = chat.render(bpe, [{"role": "user", "content": "a"}], open_assistant=True)
    assert asked.ids == [0, 3, *a, 5, 4]
    assert not any(asked.assistant_mask)


def read_back(tokenizer: Tokenizer, ids: Sequence[int]) -> list[chat.Message]:
    """The messages of a conversation's ids; the last one may lack its end of turn."""
    roles = {tokenizer.special_ids[name]: role for role, name in chat.ROLES.items()}
    assert ids[0] == tokenizer.document_id
    messages: list[chat.Message] = []
    for is_end, turn in itertools.groupby(ids[1:], lambda id: id == tokenizer.end_of_turn_id):
        if is_end:
            continue
        role, *content = turn
        messages.append({"role": roles[role], "content": tokenizer.decode(content)})
    return messages


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=CONVERSATIONS)
def test_round_trip_prefixes_and_mask(tokenizer: Tokenizer, messages: list[chat.Message]) -> None:
    whole = chat.render(tokenizer, messages)
    assert read_back(tokenizer, whole.ids) == messages
    assert len(whole.ids) == len(whole.assistant_mask)
    assert whole.ids.count(tokenizer.document_id or 0) == 1  # one begin, one end a turn, whatever the contents spell
    assert whole.ids.count(tokenizer.end_of_turn_id or 0) == len(messages)
    for count in range(1, len(messages)):
        part = chat.render(tokenizer, messages[:count])
        assert whole.ids[: len(part.ids)] == part.ids
        assert whole.assistant_mask[: len(part.ids)] == part.assistant_mask
        if messages[count]["role"] == "assistant":
            asked = chat.render(tokenizer, messages[:count], open_assistant=True)
            assert whole.ids[: len(asked.ids)] == asked.ids
    learned = [id for id, wanted in zip(whole.ids, whole.assistant_mask, strict=True) if wanted]
    answers = "".join(message["content"] + "<|end_of_turn|>" for message in messages if message["role"] == "assistant")
    assert tokenizer.decode(learned) == answers


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "no messages"),
        ([{"role": "tool", "content": "x"}], "Message 1 of 1 has the role 'tool'"),
        ([{"content": "x"}], "has the role None"),
        ([{"role": "user", "content": None}], "no text as its content"),
        ([{"role": "user"}], "no text as its content"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}], "Message 2 of 2 is a system message"),
        ([{"role": "user", "content": "x"}] * 2, "Message 2 of 2 is a second turn of the user in a row"),
        ([{"role": "assistant", "content": "x"}] * 2, "a second turn of the assistant in a row"),
    ],
)
def test_messages_that_are_no_conversation(bpe: Tokenizer, messages: list[chat.Message], error: str) -> None:
    with pytest.raises(StageError, match=error):
        chat.render(bpe, messages)


def test_an_answer_does_not_follow_an_answer(bpe: Tokenizer) -> None:
    with pytest.raises(StageError, match="ends with a turn of the assistant"):
        chat.render(bpe, MESSAGES[:3], open_assistant=True)


def test_a_turn_of_weight_0_is_read_and_not_learned(bpe: Tokenizer) -> None:
    draft: chat.Message = {"role": "assistant", "content": "wrong", "weight": 0}
    whole = chat.render(bpe, [MESSAGES[1], draft, *MESSAGES[3:]])
    learned = [id for id, counts in zip(whole.ids, whole.assistant_mask, strict=True) if counts]
    assert bpe.decode(learned) == MESSAGES[4]["content"] + "<|end_of_turn|>"
    assert "wrong" in bpe.decode(whole.ids)


@pytest.mark.slow(reason="imports transformers")
class TestTransformers:
    """`transformers` opens the saved folder as it is and makes the same ids."""

    @pytest.fixture(params=["bpe", "unigram", "char", "byte"])
    def pair(
        self, request: pytest.FixtureRequest, trained: dict[tuple[str, str], Tokenizer], tmp_path: Path
    ) -> tuple[Tokenizer, Any]:
        transformers = pytest.importorskip("transformers")
        tokenizer = trained[request.param, "gpt4"]
        tokenizer.save(tmp_path)
        return tokenizer, transformers.AutoTokenizer.from_pretrained(tmp_path)

    def test_template(self, pair: tuple[Tokenizer, Any]) -> None:
        ours, theirs = pair
        for count in range(1, len(MESSAGES) + 1):
            for ask in (False, True)[: 1 + (MESSAGES[count - 1]["role"] != "assistant")]:
                expected = chat.render(ours, MESSAGES[:count], open_assistant=ask)
                got = theirs.apply_chat_template(
                    MESSAGES[:count], add_generation_prompt=ask, return_dict=True, return_assistant_tokens_mask=True
                )
                assert list(got["input_ids"]) == expected.ids
                assert [bool(each) for each in got["assistant_masks"]] == expected.assistant_mask
                text = theirs.apply_chat_template(MESSAGES[:count], add_generation_prompt=ask, tokenize=False)
                assert text == ours.decode(expected.ids)

    def test_unknown_roles_are_refused_there_too(self, pair: tuple[Tokenizer, Any]) -> None:
        parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        for messages in ([{"role": "tool", "content": ""}], [MESSAGES[1], MESSAGES[0]], [MESSAGES[1]] * 2, parts):
            with pytest.raises(Exception, match=r"Known roles|Only the first|Turns alternate|is a text"):
                pair[1].apply_chat_template(messages, tokenize=False)

    def test_plain_text(self, pair: tuple[Tokenizer, Any], texts: list[str]) -> None:
        ours, theirs = pair
        for text in texts:
            assert theirs.encode(text) == [0, *ours.encode(text)]  # a document begins with its token
            assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
            assert theirs.decode(ours.encode(text)) == text
        assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 0, 1)
        assert len(theirs) == ours.vocab_size
        assert theirs.decode([0, *ours.encode("x"), 5], skip_special_tokens=True) == "x"
