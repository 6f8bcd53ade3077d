"""A model's own chat template (Jinja, as `transformers` renders it), and which of its tokens the assistant wrote.

The whole conversation is rendered to text and encoded at once, special tokens recognised, which gives the ids of
`apply_chat_template`. The assistant's part is where the template says so (`{% generation %}`), else what its turn adds
to the rendering of all before it with the turn opened; that these are prefixes of each other is checked, in text and in
ids. Where the first token of an answer would merge with the end of the prompt, the two are encoded apart, so that a
prompt has the same ids in training as in generation.

A template that asks for today's date (`strftime_now`) is told none, so that the same conversation has the same ids
tomorrow; those of Llama 3 have a date of their own for that.

A special token that is spelled out in what somebody says stays plain text: it is encoded in two pieces.
"""

import functools
import itertools
import json
import threading
import typing
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.reading import reading, short
from maquette.text.template_sandbox import MAX_CHARACTERS, EndingSandbox, too_long

if TYPE_CHECKING:
    from collections.abc import Iterator

STOCK = {"chatml": ("<|im_start|>", "<|im_end|>"), "plain": ()}
"""Templates in templates/, and the special tokens that each needs."""

_BREAK = "\ufdd0"
"""No character (Unicode keeps it for use within a program): where a spelled-out special token is cut."""

_RAISED = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, RecursionError, ArithmeticError,
    MemoryError,
)  # fmt: skip
"""What a template's own expressions can raise."""

_RENDERING = threading.Lock()
"""One conversation at a time: a template notes its spans in itself."""

Span = tuple[int, int]
"""Where a part of a text begins and ends, in characters."""


class _GenerationBlocks(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}`: notes which characters of the output lie inside."""

    tags = {"generation"}  # noqa: RUF012 (as in the class above)

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.spans: list[Span] | None = None
        self.written: list[str] = []

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Any) -> str:
        text: str = caller()
        if self.spans is not None:
            start = len("".join(self.written))
            self.spans.append((start, start + len(text)))
        return text

    @contextmanager
    def noting(self) -> "Iterator[tuple[list[str], list[Span]]]":
        self.written, self.spans = [], []
        try:
            yield self.written, self.spans
        finally:
            self.spans = None


def template_text(name: str) -> str:
    """A template by its name in `STOCK`, or out of a file. Raises `ConfigError` where there is neither, `StageError`
    where it is not Jinja."""
    path = Path(__file__).with_name("templates") / f"{name}.jinja" if name in STOCK else Path(name)
    if not path.is_file():
        raise ConfigError(f"chat={name} is not a chat template.", f"Allowed: {', '.join(STOCK)}, or a file with Jinja.")
    with reading(path):
        source = path.read_text(encoding="utf-8")
    _compiled(source)
    return source


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    """Raises `StageError` for a template that is not Jinja."""
    environment = EndingSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise StageError(f"The chat template can't be read: {short(error)}.", "Mend it, or give chat=<file>.") from None


def rendered(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    open_assistant: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **values: Any,
) -> tuple[str, list[Span]]:
    """The text of a conversation and the spans of its `{% generation %}` blocks, if the template has any.

    `open_assistant`: the text ends where an answer begins. `values`: what else the template may ask for, such as
    `bos_token`. Raises `StageError` with the template's own words where it refuses the messages.
    """
    template = _compiled(source)
    tracker: Any = next(one for one in template.environment.extensions.values() if isinstance(one, _GenerationBlocks))
    context = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": open_assistant}
    try:
        with _RENDERING, tracker.noting() as (written, spans):
            typing.cast("EndingSandbox", template.environment).start()
            length = 0
            for piece in template.root_render_func(template.new_context(values | context)):
                written.append(piece)
                length += len(piece)
                if length > MAX_CHARACTERS:
                    raise too_long()
            return "".join(written), list(spans)
    except _RAISED as error:
        raise StageError(
            f"The model's chat template refuses this conversation: {short(error) or type(error).__name__}.",
            "Bring the messages into the form that it asks for, or give another template with chat=.",
        ) from None


class RenderedEncoder(Protocol):
    """What a template needs of a tokenizer."""

    leading_space: bool

    @property
    def special_ids(self) -> dict[str, int]: ...

    def encode_rendered(self, text: str) -> list[int]: ...


class TemplateChat:
    """Conversations in the form of a model's own template; `special`: bos_token, eos_token, ... as it names them."""

    def __init__(self, source: str, tokenizer: RenderedEncoder, special: Mapping[str, Any]) -> None:
        self._source, self._tokenizer, self._values = source, tokenizer, dict(special)
        # Longest first, so that "<|im_end|>" is not cut as "<|im" would be
        self._names = sorted((name for name in tokenizer.special_ids if len(name) > 1), key=len, reverse=True)

    def ids(self, messages: Sequence[Mapping[str, Any]], *, open_assistant: bool) -> tuple[list[int], list[bool]]:
        """(ids, whether the assistant wrote each). Raises `StageError` as `rendered`, and where a turn can't be told
        from what stands before it."""
        messages = [{**message, "content": self._cut(message["content"])} for message in messages]
        text, spans = self._text(messages, open_assistant)
        for place, message in enumerate(messages):
            if message["role"] != "assistant" and message["content"].strip() not in text:
                raise StageError(
                    f"The model's chat template leaves out message {place + 1}, the {message['role']}'s.",
                    "Remove it from the conversation, or give another template with chat=.",
                )
        if not spans:  # the template has no {% generation %}
            spans = [
                self._turn(messages, place, text)
                for place, message in enumerate(messages)
                if message["role"] == "assistant"
            ]
        turns = [message for message in messages if message["role"] == "assistant"]
        if len(spans) == len(turns):
            spans = [span for span, turn in zip(spans, turns, strict=True) if turn.get("weight", 1) != 0]
        elif any(turn.get("weight", 1) == 0 for turn in turns):
            raise StageError(
                f"The chat template marks {len(spans)} parts as the assistant's, the conversation has {len(turns)}.",
                "Messages with weight 0 need one part for each turn.",
            )
        return self._encoded(text, spans)

    def _text(self, messages: Sequence[Mapping[str, Any]], open_assistant: bool) -> tuple[str, list[Span]]:
        return rendered(self._source, messages, open_assistant=open_assistant, **self._values)

    def _turn(self, messages: Sequence[Mapping[str, Any]], place: int, text: str) -> Span:
        """Where the turn at `place` lies in the text: its content and the special token that ends it."""
        before, _ = self._text(messages[:place], True) if place else ("", [])
        through, _ = self._text(messages[: place + 1], False)
        differ = (place for place, pair in enumerate(zip(through, text, strict=False)) if pair[0] != pair[1])
        start, end = len(before), next(differ, min(len(through), len(text)))
        turn, content = text[start:end], messages[place]["content"].strip()
        behind = turn.find(content) + len(content)
        ends = [at + len(name) for name in self._names if (at := turn.find(name, behind)) >= 0]
        if not text.startswith(before) or content not in turn or not (ends or end == len(through)):
            raise StageError(
                f"Which part of message {place + 1} the assistant wrote can't be told: the chat template renders a "
                "conversation's beginning in another way than the whole.",
                "Mark it in the template with {% generation %}, leave earlier answers out, or give chat=<file>.",
            )
        return start, start + min(ends) if ends else end

    def _encoded(self, text: str, spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
        """Ids of the whole, cut at the spans: at once where that leaves each beginning as it is alone, else apart."""
        cuts = sorted({0, len(text), *(place for span in spans for place in span)})
        ids = self._plain(text)
        places = []
        for cut in cuts:
            beginning = self._plain(text[:cut]) if cut < len(text) else ids
            if ids[: len(beginning)] != beginning:
                return self._apart(text, cuts, spans)
            places.append(len(beginning))
        at = dict(zip(cuts, places, strict=True))
        mask = [False] * len(ids)
        for start, end in spans:
            mask[at[start] : at[end]] = [True] * (at[end] - at[start])
        return ids, mask

    def _apart(self, text: str, cuts: Sequence[int], spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
        if self._tokenizer.leading_space:
            raise StageError(
                "An answer can't be told from its prompt in tokens: the tokenizer merges the end of one with the "
                "beginning of the other.",
                "Answers that begin with a space or a new line do so; strip them.",
            )
        ids: list[int] = []
        mask: list[bool] = []
        for start, end in itertools.pairwise(cuts):
            piece = self._plain(text[start:end])
            ids += piece
            mask += [any(first <= start and end <= last for first, last in spans)] * len(piece)
        return ids, mask

    def _cut(self, content: str) -> str:
        """What somebody says, with a mark inside each special token that is spelled out in it."""
        if _BREAK in content:
            raise StageError(f"A message holds U+{ord(_BREAK):04X}, which is not a character.", "Leave it out.")
        for name in self._names:
            if name in content:
                content = content.replace(name, name[0] + _BREAK + name[1:])
        return content

    def _plain(self, text: str) -> list[int]:
        """The ids of rendered text."""
        ids: list[int] = []
        if _BREAK in text and self._tokenizer.leading_space:
            raise StageError(
                "A message spells out a special token, which this tokenizer can't write as plain text.",
                "Leave such text out.",
            )
        for piece in text.split(_BREAK):
            ids += self._tokenizer.encode_rendered(piece)
        return ids
