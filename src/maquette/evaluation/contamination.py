"""Was a model trained on a test? Then it finds the examples likelier in their published order than shuffled.

 Oren et al. 2023, "Proving Test Set Contamination in Black Box Language Models", section 3.2 (the sharded rank
comparison test). Examples without a leak are exchangeable: their order tells nothing. The test is cut into shards of
consecutive examples; for each,

    s = log P(examples in order) - mean over permutations of log P(examples permuted),

and a one-sided t-test asks whether the mean of s over shards is above zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import ttest_1samp

from maquette.artifacts import ConfigError

Example = TypeVar("Example")


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
    `many(sequences)`, a shard's orderings are computed in one call. `advance` counts sequences.
    Raises `ConfigError` where a shard would have fewer than two examples (shuffling one changes nothing).
    """
    if permutations < 1 or shards < 2:
        raise ConfigError(f"permutations={permutations}, shards={shards}: at least 1 and 2 are needed.")
    if len(examples) < 2 * shards:
        raise ConfigError(
            f"{len(examples)} examples make no {shards} shards of two or more.",
            f"Use at most {len(examples) // 2} shards, or more examples.",
        )
    many = getattr(log_likelihood, "many", None)
    generator = np.random.default_rng(seed)
    differences = []
    for places in np.array_split(np.arange(len(examples)), shards):
        orders = [places, *(_shuffled(places, generator) for _ in range(permutations))]
        sequences = [[examples[place] for place in order] for order in orders]
        values = many(sequences) if many is not None else [log_likelihood(sequence) for sequence in sequences]
        advance(len(sequences))
        differences.append(float(values[0]) - float(np.mean(values[1:])))
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
