"""The chat template: how a conversation becomes ids, for every stage that trains on or generates one.

An imported model has its own (chat_template.py). Models of this project:

    <|document|> <|system|> content <|end_of_turn|> <|user|> content <|end_of_turn|> <|assistant|> content ...

Each content is encoded by itself between special ids. So a conversation's ids begin with the ids of its first
messages (the prefix property, which lets a prompt and a completion be joined without tokenising them again), and
contents that hold "<|user|>" stay plain text and can't open a turn.

`special.jinja_template` says the same in the language of `transformers`' `apply_chat_template`. There a content that
spells a special token becomes that token, which is the tokenizer's way in that library; all other conversations give
equal ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict

from maquette.artifacts import StageError
from maquette.artifacts.reading import short
from maquette.text.special import ASSISTANT, CHAT_TOKENS, END_OF_TURN, SYSTEM, USER

if TYPE_CHECKING:
    from maquette.text.tokenizer import Tokenizer

ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


class Message(TypedDict):
    """One turn, as instruction files have it: `role` is system, user or assistant; what it says is not learned where
    `weight` is 0."""

    role: str
    content: str
    weight: NotRequired[int]


@dataclass(frozen=True)
class Conversation:
    """`ids`, and beside each id whether the assistant wrote it (its content and end of turn): the loss mask."""

    ids: list[int]
    assistant_mask: list[bool]

    def until_the_end(self) -> "Conversation":
        """Without what a template puts behind the last completion, such as a new line: sampling stops before it."""
        end = len(self.ids) - self.assistant_mask[::-1].index(True)
        return Conversation(self.ids[:end], self.assistant_mask[:end])


def render(tokenizer: "Tokenizer", messages: Sequence[Message], *, open_assistant: bool = False) -> Conversation:
    """A conversation's ids and assistant mask.

    With `open_assistant` the ids end in `<|assistant|>`, ready for an answer. Raises `StageError` for a conversation
    that is none (no message, an unknown role, a system message that is not the first, two turns of one role in a row)
    and for a tokenizer without the chat tokens.
    """
    check(messages)
    if open_assistant and messages[-1]["role"] == "assistant":
        raise StageError("The conversation ends with a turn of the assistant.", "Let the user speak last.")
    if tokenizer.template_chat is not None:
        return Conversation(*tokenizer.template_chat.ids(messages, open_assistant=open_assistant))
    document, tokens = _needed_ids(tokenizer)
    ids, mask = [document], [False]
    for message in messages:
        content = [*tokenizer.encode(message["content"]), tokens[END_OF_TURN]]
        ids += [tokens[ROLES[message["role"]]], *content]
        mask += [False, *[message["role"] == "assistant" and message.get("weight", 1) != 0] * len(content)]
    if open_assistant:
        ids.append(tokens[ASSISTANT])
        mask.append(False)
    return Conversation(ids, mask)


def request(tokenizer: "Tokenizer", text: str) -> list[int]:
    """The ids of a request, with the assistant's turn opened."""
    return render(tokenizer, [{"role": "user", "content": text}], open_assistant=True).ids


def check(messages: Sequence[Message]) -> None:
    """Raises `StageError` where messages are no conversation; says which message is wrong."""
    if not messages:
        raise StageError("The conversation has no messages.")
    for place, message in enumerate(messages):
        where = f"Message {place + 1} of {len(messages)}"
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLES:
            raise StageError(f"{where} has the role {short(repr(role), 40)}.", f"Known roles: {', '.join(ROLES)}.")
        if not isinstance(content, str):
            raise StageError(f"{where} has no text as its content, but {content!r:.60}.")
        if role == "system" and place > 0:
            raise StageError(f"{where} is a system message.", "Only the first message can be one.")
        if place and role == messages[place - 1]["role"]:
            raise StageError(
                f"{where} is a second turn of the {role} in a row.", "Join the two, or remove one: turns alternate."
            )


def _needed_ids(tokenizer: "Tokenizer") -> tuple[int, dict[str, int]]:
    known = tokenizer.special_ids
    missing = [name for name in CHAT_TOKENS if name not in known]
    if missing or tokenizer.document_id is None:
        raise StageError(
            "The tokenizer can't write conversations: it has no chat template, and no token "
            f"{', '.join(missing) or 'begins a document'}.",
            "Import the model again with chat=chatml (or plain, or a file with a Jinja template).",
        )
    return tokenizer.document_id, {name: known[name] for name in CHAT_TOKENS}
