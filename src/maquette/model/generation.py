"""Text from a model, token by token: a batch of prompts, one cache, every row on its own clock.

Notable:
- keys and values are kept in a cache allocated once; prompts of different lengths are padded on the left and neither
  see the padding nor count it
- each row has random numbers of its own, so what it becomes does not depend on what else is in the batch
- rows that have ended leave the batch when half of it has, and then cost nothing
- text arrives in whole characters, and a stop string is never shown, not even its beginning
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maquette.artifacts import ConfigError
from maquette.model.cache import KeyValueCache
from maquette.model.decoding import Decoder
from maquette.model.heads import LanguageModel
from maquette.model.likelihoods import require_finite
from maquette.model.sampling import Sampling, bend, draw, uniform_numbers
from maquette.model.transformer import Transformer
from maquette.text import StreamDecoder
from maquette.text.stream import StopText

if TYPE_CHECKING:
    from maquette.text import Tokenizer


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
    pieces: list[list[GeneratedToken]] = [[] for _ in prompts]
    for piece in stream(model, prompts, **options):
        pieces[piece.row].append(piece)
    return [
        Generation(
            prompt=tuple(prompt),
            tokens=tuple(piece.token for piece in row),
            log_probs=tuple(piece.log_prob for piece in row),
            text="".join(piece.text for piece in row),
            finish_reason=row[-1].finish_reason or "",
        )
        for prompt, row in zip(prompts, pieces, strict=True)
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
) -> Iterator[GeneratedToken]:
    """Yields each token of each row as soon as it is chosen; rows of one step in order.

    `prompts`: token ids, at least one each. `tokenizer`: for text and stop strings. `sampling`: greedy by default.
    `max_tokens`: by default until the context is full. `stop_ids`: by default the tokenizer's (next document, end of
    turn). Row i draws from `seeds[i]`, by default a number made of `seed` and i. With `top` each token comes with the
    so many likeliest ones under the model itself.

    Raises `ConfigError` for a prompt that is empty or leaves no room in the context, and for stop strings without a
    tokenizer. The model is in evaluation mode meanwhile.
    """
    sampling = sampling or Sampling()
    context = model.config.max_position_embeddings
    _check(prompts, context, max_tokens, stop, tokenizer, seeds)
    ends = frozenset(stop_ids if stop_ids is not None else tokenizer.stop_ids if tokenizer else ())
    rows = [
        _Row(index, min(context - len(prompt), max_tokens or context), max_tokens, ends, tokenizer, stop)
        for index, prompt in enumerate(prompts)
    ]
    if not rows:
        return
    training = model.training
    model.eval()
    try:
        chosen = seeds if seeds is not None else [row_seed(seed, index) for index in range(len(rows))]
        batch = _Batch(model, prompts, sampling, chosen, most=max(row.limit for row in rows), top=top)
        while rows:
            for row, token, log_prob, likely in zip(rows, *batch.step(), strict=True):
                if row.finish_reason is None:
                    yield row.take(token, log_prob, likely)
            unfinished = [slot for slot, row in enumerate(rows) if row.finish_reason is None]
            if 2 * len(unfinished) <= len(rows):
                rows = [rows[slot] for slot in unfinished]
                if rows:
                    batch.keep(unfinished)
    finally:
        model.train(training)


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


class _Row:
    """One prompt's continuation so far: counts its tokens, makes its text and knows when it ends."""

    def __init__(
        self,
        index: int,
        limit: int,
        max_tokens: int | None,
        ends: frozenset[int],
        tokenizer: "Tokenizer | None",
        stop: Sequence[str],
    ) -> None:
        self.index, self.limit, self.ends = index, limit, ends
        self.full = "max_tokens" if max_tokens is not None and limit == max_tokens else "context"
        self.decoder = StreamDecoder(tokenizer, skip_special=True, continues=True) if tokenizer is not None else None
        self.stop = StopText(stop)
        self.count = 0
        self.finish_reason: str | None = None

    def take(self, token: int, log_prob: float, likely: tuple[tuple[int, float], ...]) -> GeneratedToken:
        self.count += 1
        text = ""
        if token in self.ends:
            self.finish_reason = "stop_id"
        elif self.decoder is not None:
            text = self.stop.push(self.decoder.push(token))
        if self.stop.matched is None and self.finish_reason is None and self.count == self.limit:
            self.finish_reason = self.full
        if self.finish_reason is not None and self.decoder is not None:
            text += self.stop.push(self.decoder.flush()) + self.stop.flush()
        if self.stop.matched is not None:
            self.finish_reason = "stop_string"
        return GeneratedToken(self.index, token, log_prob, text, self.finish_reason, likely)


class _Batch:
    """The rows that are still computed: their cache, the tokens to read next, and the numbers that they draw with."""

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        most: int,
        top: int,
    ) -> None:
        self.model, self.sampling, self.top = model, sampling, min(top, model.config.vocab_size)
        device = model.head_weight.device
        longest = max(map(len, prompts))
        padded = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            padded[row, longest - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.int64)
        self.tokens = padded.to(device)
        starts = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
        self.cache = model.new_cache(len(prompts), longest + most - 1, starts=starts)
        self.starts = starts[:, None] if self.cache.starts is not None else None
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1.0:
            self.seen = torch.zeros(len(prompts), model.config.vocab_size, dtype=torch.bool, device=device)
            for row, prompt in enumerate(prompts):
                self.seen[row, torch.as_tensor(prompt, device=device)] = True
        self.uniform: Tensor | None = None
        if not sampling.greedy:
            self.uniform = torch.stack([uniform_numbers(seed, most) for seed in seeds]).to(device)
        self.steps = 0
        self.decoder: Decoder | None = None

    @torch.inference_mode()
    def step(self) -> tuple[list[int], list[float], list[tuple[tuple[int, float], ...]]]:
        """Reads the last tokens and chooses the next: one token, its log-probability and the likeliest ones a row.

        Raises `StageError` where the model gives what is not a number."""
        logits = self.model.logits(self._read()).float()
        bent = bend(logits, self.sampling, self.seen)
        chosen = bent.argmax(dim=-1) if self.uniform is None else draw(bent, self.uniform[:, self.steps])
        all_log_probs = logits.log_softmax(dim=-1)
        log_probs = require_finite(all_log_probs.gather(1, chosen[:, None])[:, 0])
        likely: list[tuple[tuple[int, float], ...]] = [()] * len(chosen)
        if self.top:
            values, ids = all_log_probs.topk(self.top, dim=-1)
            likely = [tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), values.tolist(), strict=True)]
        if self.seen is not None:
            self.seen.scatter_(1, chosen[:, None], True)
        self.tokens = chosen[:, None]
        self.steps += 1
        return chosen.tolist(), log_probs.tolist(), likely

    def _read(self) -> Tensor:
        """The hidden state after the last token of each row, `(B, D)`."""
        positions = self._positions()
        if self.decoder is not None:
            return self.decoder(self.tokens[:, 0], None if positions is None else positions[:, 0])
        core = self.model.core
        hidden = core(self.tokens, positions=positions, cache=self.cache)[:, -1]
        if isinstance(core, Transformer) and isinstance(self.cache, KeyValueCache) and core.config.attention is None:
            self.decoder = Decoder(core, self.cache)
        return hidden

    def _positions(self) -> Tensor | None:
        """Where the tokens stand in their rows. A row that has ended stays at the end of the context."""
        if self.starts is None:
            return None
        columns = torch.arange(self.cache.used, self.cache.used + self.tokens.size(1), device=self.starts.device)
        return (columns - self.starts).clamp(0, self.model.config.max_position_embeddings - 1)

    @torch.inference_mode()
    def keep(self, slots: list[int]) -> None:
        """Goes on with these rows alone."""
        index = torch.tensor(slots, device=self.tokens.device)
        (self.decoder or self.cache).keep(index)
        self.tokens = self.tokens[index]
        if self.starts is not None:
            self.starts = self.starts[index]
        if self.seen is not None:
            self.seen = self.seen[index]
        if self.uniform is not None:
            self.uniform = self.uniform[index]
