"""Was a model trained on a test? Two answers: the order of examples that it prefers, and n-grams that they share.

`contamination_test` asks the model: trained on a test it finds the examples likelier in their published order than
shuffled. Oren et al. 2023, "Proving Test Set Contamination in Black Box Language Models", section 3.2 (the sharded rank
comparison test). Examples without a leak are exchangeable: their order tells nothing. The test is cut into shards of
consecutive examples; for each,

    s = log P(examples in order) - mean over permutations of log P(examples permuted),

and a one-sided t-test asks whether the mean of s over shards is above zero.

`ngram_overlap` asks the training tokens: which examples stand there, and in which documents. Exact runs find copies,
and nothing else: a translation or a paraphrase passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from maquette.artifacts import ConfigError
from maquette.data import TokenShards
from maquette.data.overlap import covered, run_hashes

Example = TypeVar("Example")


@runtime_checkable
class ManyOrderings(Protocol):
    """A log-likelihood that computes many sequences of examples at once."""

    def many(self, orderings: Sequence[Sequence[Any]]) -> Sequence[float]:
        """The log-likelihood of each."""


@dataclass(frozen=True)
class ContaminationTest:
    """`p_value` of a test without a leak; `statistic` is Student's t of the shards' `differences`, in nats."""

    p_value: float
    statistic: float
    differences: tuple[float, ...] = ()


def contamination_test(
    log_likelihood: Callable[[Sequence[Example]], float],
    examples: Sequence[Example],
    *,
    permutations: int = 30,
    shards: int = 30,
    seed: int = 0,
    advance: Callable[[float], None] = lambda _: None,
) -> ContaminationTest:
    """Tests `examples`, in their published order, against shuffles of it.

    `log_likelihood(sequence)`: of the text of some examples, one after another, in nats. Where it has a method
    `many(sequences)`, a shard's orderings are computed in one call. `advance` is told of each sequence.
    Raises `ConfigError` where a shard would have fewer than two examples (shuffling one changes nothing).
    """
    if permutations < 1 or shards < 2:
        raise ConfigError(f"permutations={permutations}, shards={shards}: at least 1 and 2 are needed.")
    if len(examples) < 2 * shards:
        raise ConfigError(
            f"{len(examples)} examples make no {shards} shards of two or more.",
            f"Use at most {len(examples) // 2} shards, or more examples.",
        )
    generator = np.random.default_rng(seed)
    differences = []
    for places in np.array_split(np.arange(len(examples)), shards):
        orders = [places, *(_shuffled(places, generator) for _ in range(permutations))]
        sequences = [[examples[place] for place in order] for order in orders]
        if isinstance(log_likelihood, ManyOrderings):
            values = [float(value) for value in log_likelihood.many(sequences)]
            advance(len(sequences))
        else:
            values = []
            for sequence in sequences:
                values.append(float(log_likelihood(sequence)))
                advance(1)
        differences.append(values[0] - float(np.mean(values[1:])))
    if not np.all(np.isfinite(differences)):
        raise ConfigError("log_likelihood gave a value that is not finite.", "A sequence may not be impossible.")
    spread, mean = float(np.std(differences)), float(np.mean(differences))
    if spread <= 1e-12 * max(1.0, abs(mean)):  # an order that changes nothing, or each shard by the same
        statistic = 0.0 if abs(mean) <= 1e-9 else float(np.copysign(np.inf, mean))
        return ContaminationTest(0.0 if statistic > 0 else 1.0, statistic, tuple(differences))
    result = ttest_1samp(differences, 0.0, alternative="greater")
    return ContaminationTest(float(result.pvalue), float(result.statistic), tuple(differences))


def _shuffled(places: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Another order of `places`: the published one itself would only dilute the comparison."""
    while True:
        order = generator.permutation(places)
        if not np.array_equal(order, places):
            return order


WINDOW = 24
"""Tokens of a run; a shorter one turns up by chance in code and licences."""

_PIECE = 1 << 22


@dataclass(frozen=True)
class ExampleOverlap:
    """How much of one example was trained on: `share` of its tokens that lie in a run which the training tokens hold
    too, and the `documents` (domain, id) that hold one, at most `MOST_DOCUMENTS`. `tested` is False where the example
    is shorter than a run."""

    share: float
    documents: tuple[tuple[str, str], ...]
    tested: bool


MOST_DOCUMENTS = 20


def ngram_overlap(
    shards: TokenShards,
    examples: Sequence[Sequence[int] | NDArray[np.integer]],
    *,
    window: int = WINDOW,
    split: str = "train",
    advance: Callable[[float], None] = lambda _: None,
) -> list[ExampleOverlap]:
    """Compares `examples`, tokens of the shards' own tokenizer, with all documents of a split.

    Memory is bounded by the examples; training tokens stream past, and `advance` is told how many.
    """
    if window < 2:
        raise ConfigError(f"window={window} is out of range.", "Allowed: at least 2 tokens.")
    tokens = [np.asarray(example, dtype=np.uint32) for example in examples]
    hashes = [run_hashes(row, window) for row in tokens]
    joined = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
    known, places = np.unique(joined, return_inverse=True)
    owner = np.repeat(np.arange(len(tokens)), [len(part) for part in hashes])
    by_hash = np.argsort(places, kind="stable")
    firsts = np.searchsorted(places[by_hash], np.arange(len(known) + 1))
    seen = np.zeros(len(known), bool)
    documents: list[dict[tuple[str, str], None]] = [{} for _ in tokens]
    for domain in shards.domains if len(known) else ():
        if not shards.tokens(split)[domain]:
            continue
        table = shards.documents(domain, split)
        start = 0
        for piece in shards.stream(domain, split).pieces(_PIECE, overlap=window - 1):
            candidates = run_hashes(piece, window)
            nearest = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
            found = np.flatnonzero(known[nearest] == candidates)
            seen[nearest[found]] = True
            holders = np.searchsorted(table.starts, start + found, side="right") - 1
            for key, document in sorted(set(zip(nearest[found].tolist(), holders.tolist(), strict=True))):
                for example in set(owner[by_hash[firsts[key] : firsts[key + 1]]].tolist()):
                    if len(documents[example]) < MOST_DOCUMENTS:
                        documents[example][domain, table.ids[document]] = None
            start += len(piece) - (window - 1)
            advance(len(piece))
    shared = np.split(seen[places], np.cumsum([len(part) for part in hashes])[:-1]) if hashes else []
    return [
        ExampleOverlap(
            float(covered(mask, len(row), window).mean()) if len(mask) else 0.0, tuple(holding), bool(len(mask))
        )
        for mask, row, holding in zip(shared, tokens, documents, strict=True)
    ]
