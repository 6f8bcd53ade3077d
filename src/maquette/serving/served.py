"""A model that answers several people at once.

Answers are written token by token, and between two tokens another answer may have its turn: nobody waits for somebody
else's long one. A request that is given up costs no further token.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maquette.artifacts import ConfigError
from maquette.model.generation import GeneratedToken, document_prompt, stream
from maquette.model.sampling import Sampling
from maquette.text.chat import Message, render

if TYPE_CHECKING:
    from maquette.model import LanguageModel
    from maquette.text import Tokenizer

MOST_ANSWERS = 16
"""Of one request."""


@dataclass(frozen=True)
class Request:
    """What one answer is asked for: a conversation, or with `text` a beginning to go on from. `seed`: None draws anew.

    `max_tokens`: None until the model's context is full.
    """

    messages: Sequence[Message] = ()
    text: str | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8, top_p=0.95))
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int = 0
    count: int = 1


@dataclass
class ServedModel:
    """`name` as people call it; `assistant` says whether it was trained to answer requests."""

    name: str
    model: "LanguageModel"
    tokenizer: "Tokenizer"
    assistant: bool
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def prompt(self, request: Request) -> list[int]:
        """The ids that an answer goes on from. Raises `StageError` for a conversation that is none."""
        if request.text is not None:
            return document_prompt(self.tokenizer, request.text)
        return render(self.tokenizer, request.messages, open_assistant=True).ids

    def answer(self, request: Request) -> Iterator[GeneratedToken]:
        """The tokens of `count` answers as they are chosen; what is wrong with a request is said before the first.

        Raises `ConfigError` for a prompt that fills the context, and for settings out of range.
        """
        if not 1 <= request.count <= MOST_ANSWERS:
            raise ConfigError(f"n={request.count} is out of range.", f"Allowed: 1 to {MOST_ANSWERS}.")
        pieces = stream(
            self.model, [self.prompt(request)] * request.count, tokenizer=self.tokenizer, sampling=request.sampling,
            max_tokens=request.max_tokens, stop=request.stop, seed=request.seed,
        )  # fmt: skip
        with self._turn:
            first = next(pieces, None)
        return self._rest(first, pieces)

    def _rest(self, piece: GeneratedToken | None, pieces: Iterator[GeneratedToken]) -> Iterator[GeneratedToken]:
        while piece is not None:
            yield piece
            with self._turn:
                piece = next(pieces, None)
