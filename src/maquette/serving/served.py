"""A model that answers several people at once.

Answers are written token by token, all that are wanted at a time together (`generation.SharedGeneration`): nobody waits
for somebody else's long one, and several cost little more than one. A request that is given up costs no further token.
"""

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.artifacts import ConfigError
from maquette.model import count_parameters
from maquette.model.generation import GeneratedToken, SharedGeneration, document_prompt
from maquette.model.loading import load_checkpoint, model_folder, model_names
from maquette.model.next_token import Beam, NextToken, TextEntropy, beam_search, next_token, read_text
from maquette.model.sampling import Sampling
from maquette.text.chat import Message, render
from maquette.training.record import is_assistant
from maquette.training.report import without_front_matter

if TYPE_CHECKING:
    from maquette.model import LanguageModel
    from maquette.model.core_config import ParameterCount
    from maquette.text import Tokenizer

MOST_ANSWERS = 16
_CONTINUATION = 8  # tokens of a beam
"""Of one request."""


@dataclass(frozen=True)
class Request:
    """What one answer is asked for: a conversation, or with `text` or `ids` a beginning to continue.

    `max_tokens`: None until the model's context is full. `top`: how many of the likeliest tokens come beside each.
    """

    messages: Sequence[Message] = ()
    text: str | None = None
    ids: Sequence[int] | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8, top_p=0.95))
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int = 0
    count: int = 1
    top: int = 0


@dataclass
class ServedModel:
    """`name` as people call it; `assistant` says whether it was trained to answer requests; `card`: its model card, in
    Markdown."""

    name: str
    model: "LanguageModel"
    tokenizer: "Tokenizer"
    assistant: bool
    card: str = ""
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @functools.cached_property
    def parameters(self) -> "ParameterCount":
        """Of the model, by part."""
        return count_parameters(self.model.config)

    def __post_init__(self) -> None:
        self._shared = SharedGeneration(self.model)

    def prompt(self, request: Request) -> list[int]:
        """The ids that an answer continues. Raises `StageError` for messages that are not a conversation, and
        `ConfigError` for a prompt so long that it can't fit, before any time goes into encoding it."""
        if request.ids is not None:
            if wrong := [id for id in request.ids if not 0 <= id < self.tokenizer.vocab_size]:
                raise ConfigError(f"{wrong[0]} is not a token.", f"Allowed: 0 to {self.tokenizer.vocab_size - 1}.")
            return list(request.ids)
        contents = [request.text or "", *(str(message.get("content")) for message in request.messages)]
        size, most = sum(len(text.encode("utf-8", "replace")) for text in contents), self._most_bytes
        if size > most:
            context = self.model.config.max_position_embeddings
            raise ConfigError(
                f"The prompt has {size:,} bytes; the model's context holds {context:,} tokens, at most {most:,} bytes.",
                "Shorten the prompt, or use a model with a longer context.",
            )
        if request.text is not None:
            return document_prompt(self.tokenizer, request.text)
        return render(self.tokenizer, request.messages, open_assistant=True).ids

    @functools.cached_property
    def _most_bytes(self) -> int:
        """More bytes than this have more tokens than the context, whatever they are."""
        longest = max((len(token.encode()) for token in self.tokenizer.backend.get_vocab()), default=1)
        slack = 1 if self.tokenizer.backend.normalizer is None else 4  # which may take away what it reads
        return self.model.config.max_position_embeddings * longest * slack

    def predictions(self, request: Request, place: int | None) -> tuple[list[int], TextEntropy, NextToken]:
        """The tokens of what is asked, how the model reads them, and what it predicts behind the first `place` of them
        (None: behind all). Raises as `prompt`, and `ConfigError` for a place that is not there."""
        ids = self.prompt(request)
        place = len(ids) if place is None else place
        if not 1 <= place <= len(ids):
            raise ConfigError(f"place={place} is out of range.", f"Allowed: 1 to {len(ids)}.")
        with self._turn:
            return ids, read_text(self.model, ids), next_token(self.model, ids[:place], request.sampling)

    def continuations(self, ids: Sequence[int], beams: int) -> list[Beam]:
        """The likeliest continuations of a few tokens, by a search with so many beams."""
        with self._turn:
            return beam_search(
                self.model, ids, beams=beams, max_tokens=_CONTINUATION, stop_ids=[*self.tokenizer.stop_ids]
            )

    def answer(self, request: Request) -> Iterator[GeneratedToken]:
        """The tokens of `count` answers as they are chosen; errors of a request come before the first.

        Raises `ConfigError` for a prompt that fills the context, and for settings out of range.
        """
        if not 1 <= request.count <= MOST_ANSWERS:
            raise ConfigError(f"n={request.count} is out of range.", f"Allowed: 1 to {MOST_ANSWERS}.")
        pieces = self._shared.stream(
            [self.prompt(request)] * request.count, tokenizer=self.tokenizer, sampling=request.sampling,
            max_tokens=request.max_tokens, stop=request.stop, seed=request.seed, top=request.top,
        )  # fmt: skip
        first = next(pieces, None)
        return self._rest(first, pieces)

    @staticmethod
    def _rest(piece: GeneratedToken | None, pieces: Iterator[GeneratedToken]) -> Iterator[GeneratedToken]:
        while piece is not None:
            yield piece
            piece = next(pieces, None)


def open_models(folders: Sequence[Path]) -> dict[str, ServedModel]:
    """The models by the names that people see."""
    opened = {}
    for name, folder in zip(model_names(folders), folders, strict=True):
        model, tokenizer = load_checkpoint(folder)
        opened[name] = ServedModel(name, model.eval(), tokenizer, is_assistant(folder, tokenizer), _card(folder))
    return opened


def _card(folder: Path) -> str:
    """README.md of the exported model without its front matter; empty where there is none."""
    path = model_folder(folder) / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return without_front_matter(text)
