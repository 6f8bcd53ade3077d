"""Rows that are continued together, of which some end and others take their place (continuous batching; Yu et al. 2022,
"Orca", section 3.1).

Notable:
- what is kept of the texts read (cache.py) ends at the same column for all rows, so a row that joins is laid before
  that column, whatever its prompt's length
- prompts that are equal are read once, and share what was read (the completions of a group)
- each row has a sampling and random numbers of its own, so what it becomes does not depend on what else is there
- on a GPU several tokens are chosen before the program looks at one, by a step that is captured once
  (static_decoding.py)
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.model.architecture import MixtureOfExpertsConfig
from maquette.model.cache import Cache, KeyValueCache
from maquette.model.custom import CustomCore
from maquette.model.decoding import Decoder
from maquette.model.heads import LanguageModel
from maquette.model.likelihoods import require_finite
from maquette.model.sampling import Sampling, bend, draw, uniform_numbers
from maquette.model.static_decoding import Chosen, StaticDecoder, StaticSteps
from maquette.model.transformer import Transformer

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_STEPS_AT_ONCE = 16
"""Tokens of a row that are chosen on a GPU before the program waits for them; what follows an end is thrown away."""


@dataclass(frozen=True)
class RowSettings:
    """A row before its first token: at most `limit` of them, drawn with the numbers of `seed`, each with the `top`
    likeliest ones beside it."""

    prompt: Sequence[int]
    limit: int
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    top: int = 0


@dataclass(frozen=True)
class ChosenTokens:
    """A token of each row, its log-probability under the model itself, and the likeliest ones, likeliest first."""

    tokens: list[int]
    log_probs: list[float]
    likely: list[tuple[tuple[int, float], ...]]


def _without_gradients(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """In inference mode, unless there is autocast, which there would cast weights again at each token."""

    @functools.wraps(method)
    def quiet(*arguments: Arguments.args, **settings: Arguments.kwargs) -> Result:
        cast = any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
        with torch.no_grad() if cast else torch.inference_mode():
            return method(*arguments, **settings)

    return quiet


class RunningBatch:
    """The rows that are computed now, in the order in which they came. `ahead`: whether some steps are made before the
    program looks at one, by default on a GPU."""

    def __init__(self, model: LanguageModel, *, ahead: bool | None = None) -> None:
        self.model = model
        self.rows: list[RowSettings] = []
        self._counts: list[int] = []
        device = self._device = model.head_weight.device
        self._cache: Cache | None = None
        self._decoder: Decoder | None = None
        self._steps: StaticSteps | None = None
        self._ahead = device.type != "cpu" if ahead is None else ahead
        self._tokens = torch.zeros(0, dtype=torch.int64, device=device)
        self._seen = torch.zeros(0, 0, dtype=torch.bool, device=device)  # (rows, V) where repetition has a penalty
        # The numbers that rows draw their next tokens with: (rows, tokens to come), those before `_drawn` used up.
        self._uniform, self._drawn = torch.zeros(0, 0, dtype=torch.float64, device=device), 0
        self._parts: list[tuple[Sampling, Tensor]] = []

    @property
    def takes_more(self) -> bool:
        """Whether rows can join those that are there; a user's cache may know no way."""
        return not self.rows or hasattr(self._cache, "join")

    @_without_gradients
    def exchange(self, keep: Sequence[int], new: Sequence[RowSettings] = ()) -> ChosenTokens:
        """Goes on with the rows numbered `keep` and with `new` ones behind them, and gives the first token of each of
        the latter. Raises `StageError` where the model gives what is not a number."""
        index = torch.tensor(list(keep), dtype=torch.int64, device=self._device)
        self._steps = None
        self.rows, self._counts = [self.rows[slot] for slot in keep], [self._counts[slot] for slot in keep]
        self._tokens, self._seen = self._tokens[index], self._seen[index]
        self._uniform, self._drawn = self._uniform[index, self._drawn :], 0
        if not new:
            (self._decoder or self._cache).keep(index)  # type: ignore[union-attr]
            self._parts = self._by_sampling(self.rows)
            return ChosenTokens([], [], [])
        cache, hidden = self._read(new)
        penalized = any(row.sampling.repetition_penalty != 1.0 for row in new)
        width = self.model.config.vocab_size if penalized else 0
        seen = torch.zeros(len(new), width, dtype=torch.bool, device=self._device)
        for place, row in enumerate(new if penalized else ()):
            seen[place, torch.as_tensor(row.prompt, device=self._device)] = True
        uniform = self._numbers(new)
        chosen = self._choose(hidden, new, self._by_sampling(new), uniform[:, :1], seen)
        if self.rows:
            most = max(row.limit - count for row, count in zip(self.rows, self._counts, strict=True))
            running: Any = self._cache  # of the same kind
            running.join(index, cache, max(most, *(row.limit for row in new)))
        else:
            self._cache = cache
        self.rows, self._counts = [*self.rows, *new], [*self._counts, *[1] * len(new)]
        self._tokens, self._seen = torch.cat([self._tokens, chosen[0]]), _side_by_side(self._seen, seen)
        self._uniform = _side_by_side(self._uniform, uniform[:, 1:])
        self._parts, self._decoder = self._by_sampling(self.rows), None
        core = self.model.core
        if isinstance(core, Transformer) and isinstance(self._cache, KeyValueCache) and core.config.attention is None:
            self._decoder = Decoder(core, self._cache)
        return self._as_numbers(tuple(part[None] for part in chosen), new)[0]

    @_without_gradients
    def step(self) -> list[ChosenTokens]:
        """Reads each row's last token and chooses the next; ahead a few times. Raises `StageError` where the model
        gives what is not a number."""
        left = max(row.limit - count for row, count in zip(self.rows, self._counts, strict=True))
        count = min(left, _STEPS_AT_ONCE) if self._ahead else 1
        if self._steps is None and self._ahead and left >= _STEPS_AT_ONCE:
            self._steps = self._static_steps()
        if self._steps is not None:
            made = self._steps.run(count)
            self._tokens, self._drawn = self._steps.tokens.clone(), self._drawn + count
        else:
            chosen = [self._once() for _ in range(count)]
            made = tuple(torch.stack(column) for column in zip(*chosen, strict=True))
        self._counts = [before + count for before in self._counts]
        return self._as_numbers(made, self.rows)

    def _once(self) -> Chosen:
        uniform = self._uniform[:, self._drawn : self._drawn + 1]
        chosen = self._choose(self._next_hidden(), self.rows, self._parts, uniform, self._seen)
        self._tokens, self._drawn = chosen[0], self._drawn + 1
        return chosen

    def _static_steps(self) -> StaticSteps | None:
        """None where a step can't be captured."""
        if self._decoder is None or isinstance(self.model.config, MixtureOfExpertsConfig) or self.model.config.own_code:
            return None
        decoder = StaticDecoder(self._decoder.core, self._decoder.cache)
        rows, parts, seen = self.rows, self._parts, self._seen
        return StaticSteps(
            decoder, lambda hidden, uniform: self._choose(hidden, rows, parts, uniform, seen), self._tokens,
            self._uniform, drawn=self._drawn, most=_STEPS_AT_ONCE, changed=(seen,),
        )  # fmt: skip

    # Reading ----------------------------------------------------------------------------------------------------------

    def _read(self, new: Sequence[RowSettings]) -> tuple[Cache, Tensor]:
        """What is kept of some prompts, and the hidden state after the last token of each, `(N, D)`."""
        texts = [tuple(row.prompt) for row in new]
        shared = not isinstance(self.model.core, CustomCore)  # whose cache is a user's
        distinct = list(dict.fromkeys(texts)) if shared else texts
        longest, most = max(map(len, distinct)), max(row.limit for row in new)
        padded = torch.zeros(len(distinct), longest, dtype=torch.int64)
        for place, text in enumerate(distinct):
            padded[place, longest - len(text) :] = torch.as_tensor(text, dtype=torch.int64)
        starts = torch.tensor([longest - len(text) for text in distinct], device=self._device)
        cache = self.model.new_cache(len(distinct), longest + most - 1, starts=starts)
        hidden = self._through_core(padded.to(self._device), cache)
        if len(distinct) < len(texts):
            places = {text: place for place, text in enumerate(distinct)}
            index = torch.tensor([places[text] for text in texts], device=self._device)
            cache.keep(index)
            hidden = hidden[index]
        return cache, hidden

    def _next_hidden(self) -> Tensor:
        """The hidden state after the last token of each row, `(B, D)`."""
        assert self._cache is not None
        if self._decoder is None:
            return self._through_core(self._tokens[:, None], self._cache)
        positions = self._positions(self._cache, 1)
        return self._decoder(self._tokens, None if positions is None else positions[:, 0])

    def _through_core(self, tokens: Tensor, cache: Cache) -> Tensor:
        positions = self._positions(cache, tokens.size(1))
        hidden: Tensor = self.model.core(tokens, positions=positions, cache=cache)[:, -1]
        return hidden

    def _positions(self, cache: Cache, count: int) -> Tensor | None:
        """Where the next `count` columns stand in their rows. A row that has ended stays at the end of the context."""
        if cache.starts is None:
            return None
        columns = torch.arange(cache.used, cache.used + count, device=self._device)
        return (columns - cache.starts[:, None]).clamp(0, self.model.config.max_position_embeddings - 1)

    # Choosing ---------------------------------------------------------------------------------------------------------

    def _numbers(self, rows: Sequence[RowSettings]) -> Tensor:
        """`(N, most)`, zero beyond a row's limit."""
        if all(row.sampling.greedy for row in rows):
            return torch.zeros(len(rows), 1, dtype=torch.float64, device=self._device)
        most = max(row.limit for row in rows)
        return torch.stack([uniform_numbers(row.seed, most) for row in rows]).to(self._device)

    def _by_sampling(self, rows: Sequence[RowSettings]) -> list[tuple[Sampling, Tensor]]:
        """The numbers of the rows of each sampling."""
        slots: dict[Sampling, list[int]] = {}
        for slot, row in enumerate(rows):
            slots.setdefault(row.sampling, []).append(slot)
        return [(sampling, torch.tensor(mine, device=self._device)) for sampling, mine in slots.items()]

    def _choose(
        self, hidden: Tensor, rows: Sequence[RowSettings], parts: list[tuple[Sampling, Tensor]], uniform: Tensor,
        seen: Tensor,
    ) -> Chosen:  # fmt: skip
        """Tokens and their log-probabilities, `(B,)`, and the likeliest ones and theirs, `(B, top)`. What was chosen
        counts as seen."""
        logits = self.model.logits(hidden).float()
        chosen = torch.empty(len(rows), dtype=torch.int64, device=self._device)
        for sampling, slots in parts:
            whole = len(parts) == 1
            bent = bend(logits if whole else logits[slots], sampling, seen if whole else seen[slots])
            if sampling.greedy:
                tokens = bent.argmax(dim=-1)
            else:
                tokens = draw(bent, uniform[:, 0] if whole else uniform[slots, 0])
            if sampling.repetition_penalty != 1.0:
                seen[slots, tokens] = torch.ones_like(tokens, dtype=torch.bool)
            if whole:
                chosen = tokens
            else:
                chosen[slots] = tokens
        log_probs = logits.log_softmax(dim=-1)
        top = min(max(row.top for row in rows), logits.size(1))
        values, ids = log_probs.topk(top, dim=-1) if top else (log_probs[:, :0], chosen[:, None][:, :0])
        return chosen, log_probs.gather(1, chosen[:, None])[:, 0], ids, values

    def _as_numbers(self, made: tuple[Tensor, ...], rows: Sequence[RowSettings]) -> list[ChosenTokens]:
        """What is `Chosen` in some steps, `(steps, B, ...)`, as numbers: here the program waits for a GPU."""
        tokens, log_probs, ids, values = made
        require_finite(log_probs)
        steps: list[ChosenTokens] = []
        for step in range(len(tokens)):
            likely: list[tuple[tuple[int, float], ...]] = [()] * len(rows)
            if ids.size(-1):
                likely = [
                    tuple(zip(*pair, strict=True))[: row.top]
                    for row, *pair in zip(rows, ids[step].tolist(), values[step].tolist(), strict=True)
                ]
            steps.append(ChosenTokens(tokens[step].tolist(), log_probs[step].tolist(), likely))
        return steps


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """The rows of both, padded to the longer ones by zeros."""
    longest = max(first.size(1), second.size(1))
    return torch.cat([F.pad(one, (0, longest - one.size(1))) for one in (first, second)])
