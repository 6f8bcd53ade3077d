"""Which text training sees, in which order: sequence i is a pure function of (mixture, seed, phase, i).

The order is counted in sequences of one context. It is the same for every model size, batch size, number of
processes and workers; a step's batch is a slice of it. Within a domain the tokens are cut into windows that touch
but do not overlap, visited in a keyed random order, each once before any comes again, across phases too.

A phase may have its own weights, a longer context (then so many sequences of the order, which stand side by side in
the text, are read as one) and its own rotary base. Phases start where the token budget says, not where a batch does.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.settings import nearest
from maquette.data.config import MixtureConfig, PhaseConfig
from maquette.data.order import Integers, Interleaving, derive, key_of, permute

Floats = NDArray[np.float64]

_GROUP = 256
"""Most units of a domain that are shuffled together where contexts of several lengths share an epoch."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of the order from sequence `start` on. `weights` hold each domain's share of the tokens (sum 1)."""

    start: int
    weights: dict[str, float]
    context_multiple: int = 1
    rope_theta: float | None = None


@dataclasses.dataclass(frozen=True)
class SequencePlaces:
    """Where n sequences stand, each field of shape (n,): index of phase, index of domain, first token in its domain. A
    sequence has one context of tokens and one more as the last target; in a phase with a longer context it is a part of
    a longer one."""

    phases: Integers
    domains: Integers
    start_tokens: Integers


@dataclasses.dataclass(frozen=True)
class _Epochs:
    """How one domain is cut: windows of one context, `unit` of them side by side, `group` units shuffled together.

    Where all contexts have one length a unit is a window and a group is one unit.
    """

    tokens: int
    windows: int
    units: int
    group: int


class MixtureOrder:
    """The order of training data.

    `tokens` has the number of training tokens of every domain, `context` the tokens of one sequence; `token_budget`
    places the phases (the order itself has no end). Raises `ConfigError` for an unknown domain, weights that make no
    sense, phases that do not follow each other, or a domain that is too short for one sequence.
    """

    def __init__(
        self, config: MixtureConfig, tokens: Mapping[str, int], *, context: int, token_budget: int, seed: int
    ) -> None:
        self.context = context
        self.seed = seed
        self.domains = tuple(sorted(tokens))
        self._block = config.block
        phases = phase_configs(config)
        self._unit = math.lcm(*(phase.context_multiple for phase in phases))
        self._epochs = [self._cut(tokens[domain]) for domain in self.domains]
        grain = self._unit * self._block
        usual = config.weights or self._by_size(config, token_budget)
        self.phases = tuple(
            Phase(
                start=int(phase.start * token_budget / context) // grain * grain,
                weights=self._weights(phase.weights or usual),
                context_multiple=phase.context_multiple,
                rope_theta=phase.rope_theta,
            )
            for phase in phases
        )
        self._interleavings = [Interleaving([one.weights[domain] for domain in self.domains]) for one in self.phases]
        self._starts = np.array([phase.start for phase in self.phases], dtype=np.int64)
        self._groups = np.array([epochs.group for epochs in self._epochs], dtype=np.int64)
        self._units = np.array([epochs.units for epochs in self._epochs], dtype=np.int64)
        self._keys = np.array([key_of(seed, "domain", domain) for domain in self.domains])
        self._first_groups = self._place_phases()

    def _cut(self, tokens: int) -> _Epochs:
        windows = max(0, tokens - 1) // self.context
        units = windows // self._unit
        group = 1 if self._unit == 1 else min(_GROUP, max(1, units // 64))
        return _Epochs(tokens, windows, units, group)

    def _by_size(self, config: MixtureConfig, token_budget: int) -> dict[str, float]:
        """Every domain's share by its whole sequences: UniMax's, or a power of the size; in proportion by default."""
        longest = self.context * self._unit
        sizes = np.array([cut.units * longest for cut in self._epochs], dtype=np.float64)
        if not sizes.sum():
            raise ConfigError(f"No domain has {longest + 1:,} training tokens.", "Use a shorter context or more text.")
        if config.max_epochs is not None:
            shares = unimax_weights(sizes, token_budget, config.max_epochs)
        else:
            shares = size_weights(sizes, 1.0 if config.temperature is None else 1 / config.temperature)
        return dict(zip(self.domains, shares.tolist(), strict=True))

    def _weights(self, given: Mapping[str, float]) -> dict[str, float]:
        """Every domain's share of the tokens."""
        longest = self.context * self._unit
        for domain, weight in given.items():
            if domain not in self.domains:
                close = nearest(domain, self.domains)
                raise ConfigError(
                    f"The mixture names the domain {domain!r}, which the corpus does not have.",
                    (f"Did you mean {close!r}? " if close else "") + f"Domains: {', '.join(self.domains)}.",
                )
            if not (weight >= 0 and math.isfinite(weight)):
                raise ConfigError(f"The mixture's weight of {domain} is {weight}.", "Weights are 0 or more.")
            cut = self._epochs[self.domains.index(domain)]
            if weight > 0 and not cut.units:
                raise ConfigError(
                    f"The domain {domain} has {cut.tokens:,} training tokens; one sequence takes {longest + 1:,}.",
                    "Use a shorter context, or leave the domain out of the mixture.",
                )
        total = float(sum(given.values()))
        if not total:
            raise ConfigError("All weights of the mixture are 0.", f"Domains: {', '.join(self.domains)}.")
        return {domain: given.get(domain, 0.0) / total for domain in self.domains}

    def _place_phases(self) -> Integers:
        """(phases, domains): the group of each domain's endless row of groups at which a phase starts to read.

        A phase starts with a fresh group, so what an earlier one read in part is not read again in the same epoch.
        """
        first = np.zeros((len(self.phases), len(self.domains)), dtype=np.int64)
        for number in range(1, len(self.phases)):
            before = self.phases[number - 1]
            count = (self.phases[number].start - before.start) // before.context_multiple
            pieces = self._groups * self._unit // before.context_multiple
            first[number] = first[number - 1] - (-self._interleavings[number - 1].counts(count) // pieces)
        return first

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of all that decides the order."""
        return digest(
            {
                "phases": [dataclasses.asdict(phase) for phase in self.phases],
                "tokens": {domain: cut.tokens for domain, cut in zip(self.domains, self._epochs, strict=True)},
                "context": self.context,
                "seed": self.seed,
                "block": self._block,
            }
        )

    def phase_of(self, index: int) -> int:
        """The phase in which sequence `index` stands."""
        return bisect.bisect_right(self.phases, index, key=lambda phase: phase.start) - 1

    def step_phase(self, first: int, stop: int) -> tuple[int, int]:
        """The phase of a step over sequences `first` ... `stop` - 1, and how many contexts it reads as one.

        A step that stands astride the border of two phases belongs to the earlier one, and is read in pieces that
        suit both; so the text does not depend on the batch size, nor the step on how processes share it.
        """
        phases = range(self.phase_of(first), self.phase_of(stop - 1) + 1)
        return phases[0], math.gcd(*(self.phases[phase].context_multiple for phase in phases))

    def locate(self, indices: Integers | Sequence[int]) -> SequencePlaces:
        """Where the sequences `indices` (n,) stand."""
        indices = np.asarray(indices, dtype=np.int64)
        phases = np.searchsorted(self._starts, indices, side="right") - 1
        domains = np.zeros_like(indices)
        starts = np.zeros_like(indices)
        for phase in np.unique(phases):
            here = phases == phase
            domains[here], starts[here] = self._locate_in(int(phase), indices[here])
        return SequencePlaces(phases, domains, starts)

    def _locate_in(self, phase: int, indices: Integers) -> tuple[Integers, Integers]:
        multiple = self.phases[phase].context_multiple
        place, part = np.divmod(indices - self.phases[phase].start, multiple)
        domain, piece = self._deal(phase, place)

        pieces_per_unit = self._unit // multiple
        group, piece = np.divmod(piece, self._groups[domain] * pieces_per_unit)
        group += self._first_groups[phase][domain]
        if self._unit > 1:
            piece = permute(piece, self._groups[domain] * pieces_per_unit, derive(~self._keys[domain], group))
        unit, piece = np.divmod(piece, pieces_per_unit)
        epoch, group = np.divmod(group, self._units[domain] // self._groups[domain])
        unit += group * self._groups[domain]
        unit = permute(unit, self._units[domain], derive(self._keys[domain], epoch))
        return domain, (unit * self._unit + piece * multiple + part) * self.context

    def _deal(self, phase: int, place: Integers) -> tuple[Integers, Integers]:
        """The domain of each place of a phase (n,), and how many places of that domain stand before it (n,).

        The domains' turns are shuffled within each block; a domain's own sequences stay in their order.
        """
        size = self._block
        block, within = np.divmod(place, size)
        blocks, row = np.unique(block, return_inverse=True)
        keys = derive(key_of(self.seed, "block", phase), blocks)
        turns = permute(np.tile(np.arange(size), len(blocks)), np.full(size * len(blocks), size), np.repeat(keys, size))
        domains, numbers = self._interleavings[phase].deal(np.repeat(blocks * size, size) + turns)
        domains, numbers = domains.reshape(-1, size)[row], numbers.reshape(-1, size)[row]
        domain = domains[np.arange(len(place)), within]
        same = domains == domain[:, None]
        first = np.where(same, numbers, np.iinfo(np.int64).max).min(axis=1)
        return domain, first + (same & (np.arange(size) < within[:, None])).sum(axis=1)

    def epochs(self, sequences: int) -> dict[str, float]:
        """How often the first `sequences` sequences have passed over each domain's training tokens."""
        read = np.zeros(len(self.domains))
        stops = [*(phase.start for phase in self.phases[1:]), sequences]
        for phase, interleaving, stop in zip(self.phases, self._interleavings, stops, strict=True):
            count = max(0, min(stop, sequences) - phase.start) // phase.context_multiple
            read += interleaving.counts(count) * phase.context_multiple
        return {
            domain: float(windows * self.context / max(1, cut.tokens))
            for domain, windows, cut in zip(self.domains, read, self._epochs, strict=True)
        }


def phase_configs(config: MixtureConfig) -> list[PhaseConfig]:
    """The phases from the start of training on; the first is the mixture itself unless another starts at 0."""
    starts = [phase.start for phase in config.phases]
    if starts != sorted(set(starts)):
        raise ConfigError(f"The mixture's phases start at {starts}.", "Each phase must start after the one before it.")
    return list(config.phases) if 0.0 in starts else [PhaseConfig(), *config.phases]


def size_weights(tokens: ArrayLike, alpha: float = 1.0) -> Floats:
    """Weights in proportion to tokens^alpha, `(domains,)`: 1 is proportional, 0 uniform; an empty domain gets none.

    With alpha = 1/T this is the temperature sampling of multilingual models. Raises `ConfigError` where all are empty.
    """
    sizes = np.asarray(tokens, np.float64)
    powers: Floats = np.where(sizes > 0, np.maximum(sizes, 1) ** alpha, 0.0)
    return _shares(powers)


def unimax_weights(tokens: ArrayLike, budget: float, max_epochs: float = 4.0) -> Floats:
    """As uniform as can be while no domain is read more than `max_epochs` times (Chung et al. 2023, algorithm 1).

    `budget` is the tokens of training. Where even that many epochs of everything are too few, weights are in
    proportion to size. Raises `ConfigError` where all domains are empty.
    """
    sizes = np.asarray(tokens, np.float64)
    shares, left = np.zeros(sizes.size), float(budget)
    order = np.argsort(sizes, kind="stable")
    for rank, domain in enumerate(order):
        shares[domain] = min(left / (sizes.size - rank), max_epochs * sizes[domain])
        left -= shares[domain]
    return _shares(shares)


def _shares(parts: Floats) -> Floats:
    if not parts.sum():
        raise ConfigError("No domain has tokens.", "Use more text, or a shorter context.")
    return parts / parts.sum()
