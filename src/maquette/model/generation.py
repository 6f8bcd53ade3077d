"""Text from a model, token by token: a batch of prompts, one cache, every row on its own clock.

Notable:
- rows that have ended leave the batch, and prompts that wait take their place (running_batch.py)
- each row has random numbers of its own, so what it becomes does not depend on what else is in the batch
- text arrives in whole characters, and a stop string is never shown, not even its beginning
"""

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maquette.artifacts import ConfigError
from maquette.model.heads import LanguageModel, evaluation_mode
from maquette.model.running_batch import RowSettings, RunningBatch
from maquette.model.sampling import Sampling
from maquette.text import StreamDecoder
from maquette.text.stream import StopText

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_FREE_SHARE = 0.25
"""Share of a batch that has to be free before rows are moved: what is kept of their texts is copied then."""

_FREE_SHARE_ON_CPU = 1.0
"""The same before waiting prompts come in, where nobody waits for the first token. On a CPU a step costs nearly as much
as it has rows, and rows that begin at different columns make it dearer: with 64 rows of 1 to 128 tokens replacing rows
took 1.1 to 1.3 times the time of one batch after another, for the same tokens."""


@dataclass(frozen=True)
class GeneratedToken:
    """One more token of one row: its text (often a word, sometimes none yet), and why the row ends, if it does.

    `top`: the likeliest tokens at its place with their log-probabilities, where they were asked for."""

    row: int
    token: int
    log_prob: float
    text: str
    finish_reason: str | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Generation:
    """What a prompt became.

    `tokens`: all that were chosen, a closing stop id included. `log_probs`: of each under the model itself, in nats,
    before temperature and the rest. `text`: without stop id, stop string, special tokens; empty without a tokenizer.
    `finish_reason`: "stop_id", "stop_string", "max_tokens" or "context" (the model's context is full).
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    text: str
    finish_reason: str


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    **options: Any,
) -> list[Generation]:
    """Continues every prompt until it ends; `options` and errors are `stream`'s."""
    prompts = [list(prompt) for prompt in prompts]
    rows = _prepare(model, prompts, **options)
    with cast_once(model):
        for _ in _run(model, rows, options.get("batch")):
            pass
    return [
        Generation(tuple(prompt), tuple(row.tokens), tuple(row.log_probs), row.text, row.finish_reason or "")
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def stream(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: "Tokenizer | None" = None,
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    stop_ids: Sequence[int] | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    top: int = 0,
    batch: int | None = None,
) -> Iterator[GeneratedToken]:
    """Yields each token of each row as soon as it is chosen; rows of one step in order.

    `prompts`: token ids, at least one each. `tokenizer`: for text and stop strings. `sampling`: greedy by default.
    `max_tokens`: by default until the context is full. `stop_ids`: by default the tokenizer's (next document, end of
    turn). Row i draws from `seeds[i]`, by default a number made of `seed` and i. With `top` each token comes with the
    so many likeliest ones under the model itself. At most `batch` rows are computed together (by default all): where
    some have ended, others that wait take their place (on a CPU once all have, which is faster there).

    Raises `ConfigError` for a prompt that is empty or leaves no room in the context, and for stop strings without a
    tokenizer. The model is in evaluation mode meanwhile.
    """
    rows = _prepare(
        model, prompts, tokenizer=tokenizer, sampling=sampling, max_tokens=max_tokens, stop=stop, stop_ids=stop_ids,
        seed=seed, seeds=seeds, top=top,
    )  # fmt: skip
    yield from _run(model, rows, batch)


def _prepare(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: "Tokenizer | None" = None,
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    stop_ids: Sequence[int] | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    top: int = 0,
    batch: int | None = None,
) -> "list[Row]":
    """The rows before their first tokens; arguments and errors are `stream`'s."""
    context = model.config.max_position_embeddings
    _check(prompts, context, max_tokens, stop, tokenizer, seeds)
    ends = frozenset(stop_ids if stop_ids is not None else tokenizer.stop_ids if tokenizer else ())
    return [
        Row(
            index,
            RowSettings(
                prompt, min(context - len(prompt), max_tokens or context), sampling or Sampling(),
                row_seed(seed, index) if seeds is None else seeds[index], top,
            ),
            max_tokens, ends, tokenizer, stop,
        )
        for index, prompt in enumerate(prompts)
    ]  # fmt: skip


def _run(model: LanguageModel, rows: "Sequence[Row]", capacity: int | None) -> Iterator[GeneratedToken]:
    """Computes rows until all have ended, at most `capacity` together."""
    share = _FREE_SHARE_ON_CPU if model.head_weight.device.type == "cpu" else _FREE_SHARE
    together = RowsTogether(model, capacity or max(1, len(rows)), free_share=share)
    together.waiting.extend(rows)
    with evaluation_mode(model):
        while together.waiting or together.active:
            for _, token in together.advance():
                yield token


class RowsTogether:
    """Rows of one model that are computed together, at most `capacity`; those in `waiting` come in where others end,
    as soon as a `free_share` of the places is free."""

    def __init__(self, model: LanguageModel, capacity: int, *, free_share: float = _FREE_SHARE) -> None:
        self.capacity, self.free_share = capacity, free_share
        self.waiting: deque[Row] = deque()
        self.active: list[Row] = []
        self._running = RunningBatch(model)

    def advance(self) -> "list[tuple[Row, GeneratedToken]]":
        """A token more for rows that came in just now, or else for all that are there."""
        running, slots = self._running, [slot for slot, row in enumerate(self.active) if row.finish_reason is None]
        free = self.capacity - len(slots)
        if self.waiting and (not slots or (running.takes_more and free >= self.free_share * self.capacity)):
            receiving = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
            self.active = [*(self.active[slot] for slot in slots), *receiving]
            chosen = [running.exchange(slots, [row.settings for row in receiving])]
        else:
            if len(slots) <= (1 - _FREE_SHARE) * len(self.active):
                self.active = [self.active[slot] for slot in slots]
                if not slots:
                    return []
                running.exchange(slots)
            chosen, receiving = running.step(), self.active
        made: list[tuple[Row, GeneratedToken]] = []
        for step in chosen:
            columns = zip(receiving, step.tokens, step.log_probs, step.likely, strict=True)
            made += [
                (row, row.take(token, log_prob, likely))
                for row, token, log_prob, likely in columns
                if row.finish_reason is None
            ]
        return made


class SharedGeneration:
    """One model that several callers generate with at the same time: whoever wants a token computes one for all.

    `stream` may be called, and its iterators read, from several threads. What it yields depends on its arguments alone.
    """

    def __init__(self, model: LanguageModel, capacity: int = 64) -> None:
        self.model, self.capacity = model.eval(), capacity
        self._turn = threading.Lock()
        self._together = RowsTogether(model, capacity)
        self._made: dict[int, deque[GeneratedToken]] = {}

    def stream(self, prompts: Sequence[Sequence[int]], **options: Any) -> Iterator[GeneratedToken]:
        """As `generation.stream`; errors of the arguments come with the first token."""
        rows = _prepare(self.model, prompts, **options)
        mine: deque[GeneratedToken] = deque()
        with self._turn:
            self._made |= {id(row): mine for row in rows}
            self._together.waiting.extend(rows)
        try:
            while mine or any(row.finish_reason is None for row in rows):
                with self._turn:
                    if not mine:
                        self._advance()
                while mine:
                    yield mine.popleft()
        finally:  # also where nobody reads on
            with self._turn:
                for row in rows:
                    row.finish_reason = row.finish_reason or "given up"
                    self._made.pop(id(row), None)
                self._together.waiting = deque(row for row in self._together.waiting if row.finish_reason is None)

    def _advance(self) -> None:
        try:
            for row, token in self._together.advance():
                self._made[id(row)].append(token)
        except Exception:  # of the model: nobody's row can go on
            for row in (*self._together.active, *self._together.waiting):
                row.finish_reason = row.finish_reason or "given up"
            self._together = RowsTogether(self.model, self.capacity)
            raise


@contextlib.contextmanager
def cast_once(model: nn.Module) -> Iterator[None]:
    """Under autocast, has the weights of a model that is not trained (a reference, a frozen one under an adapter) cast
    once, not at each token: autocast keeps its copies of weights that have gradients, and of no others."""
    frozen: list[nn.Parameter] = []
    if torch.is_autocast_enabled(next(model.parameters()).device.type):
        frozen = [one for one in model.parameters() if not one.requires_grad and one.dtype == torch.float32]
    for one in frozen:
        one.requires_grad_(True)
    try:
        yield
    finally:
        for one in frozen:
            one.requires_grad_(False)


def document_prompt(tokenizer: "Tokenizer", text: str) -> list[int]:
    """The ids of a text as the beginning of a document, as `transformers` would make them with the same files: this
    project's tokenizers, like Llama's, put a token before it; those of GPT-2 and Qwen only where there is no text.
    """
    ids = tokenizer.encode(text)
    begin = tokenizer.backend.encode("").ids
    if not begin and not ids and tokenizer.document_id is not None:
        begin = [tokenizer.document_id]
    return begin + ids


def row_seed(seed: int, row: int) -> int:
    """The seed of one row's random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row}".encode()).digest()[:8], "little") >> 1


def _check(
    prompts: Sequence[Sequence[int]],
    context: int,
    max_tokens: int | None,
    stop: Sequence[str],
    tokenizer: "Tokenizer | None",
    seeds: Sequence[int] | None,
) -> None:
    if max_tokens is not None and max_tokens < 1:
        raise ConfigError(f"max_tokens={max_tokens} is out of range.", "Allowed: at least 1.")
    if stop and tokenizer is None:
        raise ConfigError("Stop strings need the tokenizer.", "Give tokenizer=, or stop_ids= instead.")
    if seeds is not None and len(seeds) != len(prompts):
        raise ConfigError(f"There are {len(seeds)} seeds for {len(prompts)} prompts.", "Give one seed a prompt.")
    for number, prompt in enumerate(prompts, 1):
        if not len(prompt):
            raise ConfigError(f"Prompt {number} is empty.", "Begin with the tokenizer's document_id.")
        if len(prompt) >= context:
            raise ConfigError(
                f"Prompt {number} has {len(prompt):,} tokens; the model's context holds {context:,} with the answer.",
                "Shorten the prompt, or use a model with a longer context.",
            )


class Row:
    """One prompt's continuation so far: keeps its tokens, makes its text and knows when it ends."""

    def __init__(
        self,
        index: int,
        settings: RowSettings,
        max_tokens: int | None,
        ends: frozenset[int],
        tokenizer: "Tokenizer | None",
        stop: Sequence[str],
    ) -> None:
        self.index, self.settings, self.ends = index, settings, ends
        self.full = "max_tokens" if max_tokens is not None and settings.limit == max_tokens else "context"
        self.decoder = StreamDecoder(tokenizer, skip_special=True, continues=True) if tokenizer is not None else None
        self.stop = StopText(stop)
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.text = ""
        self.finish_reason: str | None = None

    def take(self, token: int, log_prob: float, likely: tuple[tuple[int, float], ...]) -> GeneratedToken:
        self.tokens.append(token)
        self.log_probs.append(log_prob)
        text = ""
        if token in self.ends:
            self.finish_reason = "stop_id"
        elif self.decoder is not None:
            text = self.stop.push(self.decoder.push(token))
        if self.stop.matched is None and self.finish_reason is None and len(self.tokens) == self.settings.limit:
            self.finish_reason = self.full
        if self.finish_reason is not None and self.decoder is not None:
            text += self.stop.push(self.decoder.flush()) + self.stop.flush()
        if self.stop.matched is not None:
            self.finish_reason = "stop_string"
        self.text += text
        return GeneratedToken(self.index, token, log_prob, text, self.finish_reason, likely)
