"""A table of runs at the door: what a law is fitted to, checked before anything is computed.

Every fit takes columns as any array-like (lists, NumPy, pandas): N, D, loss, and compute or budgets where it needs
them. What can't be fitted is refused here with the row's number, so that no fit has to guess what a NaN meant.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution

from maquette.artifacts import ConfigError

Array = NDArray[np.float64]


class LawError(ConfigError, ValueError):
    """A law that is none, a table of runs that no law can be fitted to, or a question that a law can't answer.

    It names the row, setting or value. It is a `ValueError` too, as notebooks expect of numerical functions.
    """


@dataclass(frozen=True)
class Runs:
    """Checked columns (n,), and each run's budget."""

    params: Array
    tokens: Array
    loss: Array
    compute: Array
    budget: Array

    def take(self, rows: NDArray[np.bool_]) -> "Runs":
        """The runs for which `rows` (n,) is true."""
        return Runs(self.params[rows], self.tokens[rows], self.loss[rows], self.compute[rows], self.budget[rows])

    def near_best(self, budget: float, factor: float = 4.0) -> NDArray[np.bool_]:
        """Which runs of a budget are within a `factor` of its best one in N, (n,)."""
        here = np.isclose(self.budget, budget, rtol=1e-9)
        best = self.params[here][np.argmin(self.loss[here])]
        return np.asarray(here & (np.abs(np.log(self.params / best)) <= np.log(factor) + 1e-9))

    def decades_below(self, params: Array, tokens: Array) -> Array:
        """How many decades each run lies below each of other runs (m,), in N and D together, (m, n). In a direction in
        which the run lies beyond it counts for nothing: a ladder's overtrained runs are no nearer for their compute."""
        in_params, in_tokens = np.log10(params[:, None] / self.params), np.log10(tokens[:, None] / self.tokens)
        return np.asarray(np.maximum(0.0, in_params) + np.maximum(0.0, in_tokens))


def positive_column(name: str, values: ArrayLike) -> Array:
    """`values` as floats (n,). Raises `LawError` with the first row that is missing, not finite or not above zero."""
    try:
        column = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise LawError(f"The column {name} is not made of numbers: {error}.") from None
    if column.ndim != 1:
        raise LawError(f"The column {name} has shape {column.shape}.", "Give one number per run.")
    bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
    if len(bad):
        rows = ", ".join(str(row) for row in bad[:3]) + (" ..." if len(bad) > 3 else "")
        raise LawError(
            f"{name} is {column[bad[0]]:g} in row {bad[0]} (counted from 0); it must be finite and above 0.",
            f"Leave such runs out and say so (rows {rows}).",
        )
    return column


def positive_columns(**columns: ArrayLike) -> list[Array]:
    """Each column checked by `positive_column`, and all of one length."""
    checked = {name: positive_column(name, values) for name, values in columns.items()}
    lengths = {name: len(column) for name, column in checked.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise LawError(f"The columns have different lengths: {text}.")
    return list(checked.values())


def check_runs(
    params: ArrayLike, tokens: ArrayLike, loss: ArrayLike, compute: ArrayLike | None, budgets: ArrayLike | None
) -> Runs:
    """Columns (n,), checked. By default `compute` is 6 N D, and runs of nearly equal compute make a budget."""
    sizes, spans, losses = positive_columns(params=params, tokens=tokens, loss=loss)
    flops = 6 * sizes * spans if compute is None else positive_columns(compute=compute, loss=losses)[0]
    budget = group_budgets(flops) if budgets is None else positive_columns(budgets=budgets, loss=losses)[0]
    return Runs(sizes, spans, losses, flops, budget)


def check_grid(params: Array, tokens: Array, parameters: int, sizes: int) -> None:
    """Raises `LawError` where runs are fewer than a law's `parameters`, or sizes or token counts fewer than `sizes`."""
    if len(params) < parameters:
        raise LawError(
            f"{len(params)} runs can't determine {parameters} parameters.",
            "Add runs, or fit a law with fewer parameters.",
        )
    for name, column in (("sizes (params)", params), ("token counts (tokens)", tokens)):
        distinct = len(np.unique(column))
        if distinct < sizes:
            raise LawError(
                f"The runs have {distinct} distinct {name} where the law needs at least {sizes}.",
                "A power law with an offset has a curve only through three values.",
            )


_ONE_BUDGET = 0.02
"""Two values of log compute nearer than this are one budget, hit nearly: several families with the same runs repeat
each run's own value as often as they are many."""


def group_budgets(compute: ArrayLike) -> Array:
    """Each run's budget (n,), from each run's compute.

    Values that each occur at least three times and lie apart are the budgets themselves. Otherwise (a sweep hits its
    budgets only nearly; a ladder has none) neighbours are joined into budgets at most a quarter of a decade wide,
    called by their geometric mean.
    """
    column = positive_column("compute", compute)
    # Equal but for rounding is equal: 6 N D worked out in another order differs in the last digit.
    _, place, group, count = np.unique(
        np.round(np.log(column), 9), return_index=True, return_inverse=True, return_counts=True
    )
    apart = np.diff(np.log(column[place])) > _ONE_BUDGET
    if count.min() >= 3 and apart.all():
        return np.asarray(column[place][group])
    log_compute = np.log10(column)
    order = np.argsort(log_compute, kind="stable")
    ordered, budget, first = log_compute[order], np.empty_like(log_compute), 0
    for index in range(1, len(order) + 1):
        if index == len(order) or ordered[index] - ordered[first] > 0.25:
            budget[order[first:index]] = ordered[first:index].mean()
            first = index
    return np.asarray(10**budget)


def seed_noise(
    params: ArrayLike, tokens: ArrayLike, loss: ArrayLike, seeds: ArrayLike | None = None
) -> tuple[float, int]:
    """Standard deviation of log loss among runs that differ in nothing but the seed, and its degrees of freedom.

    Pooled over all (N, D) that were run more than once; (nan, 0) where none was. `seeds` (n,): runs of one (N, D) that
    have a seed in common differ in something else, and are left out.
    """
    sizes, token_counts, losses = positive_columns(params=params, tokens=tokens, loss=loss)
    if seeds is not None:
        alike = np.stack([sizes, token_counts, np.asarray(seeds, float)])
        _, group, count = np.unique(alike, axis=1, return_inverse=True, return_counts=True)
        single = count[group] == 1
        sizes, token_counts, losses = sizes[single], token_counts[single], losses[single]
        if not len(losses):
            return np.nan, 0
    _, group = np.unique(np.stack([sizes, token_counts]), axis=1, return_inverse=True)
    logs = np.log(losses)
    counts = np.bincount(group)
    means = np.bincount(group, logs) / counts
    freedom = int(np.sum(counts - 1))
    return (float(np.sqrt(np.sum((logs - means[group]) ** 2) / freedom)), freedom) if freedom else (np.nan, 0)


def offset_of_kinds(residual: Array, kinds: NDArray[np.generic]) -> tuple[float, list[str]]:
    """The standard deviation between the kinds' mean log residuals, and what to say; 0 where an F test finds none.

    Where one run copies from its context and another does not yet, or depth changes along the family, one law is fitted
    to two regimes. It can't tell which regime a larger run will be in, so what lies between them is uncertainty.
    `residual` (n,): log of loss over law. `kinds` (n,): each run's kind, by any name.
    """
    if kinds.shape != residual.shape:
        raise LawError(f"kinds has shape {kinds.shape} where there are {len(residual)} runs.")
    names, group = np.unique(kinds, return_inverse=True)
    freedom = len(residual) - len(names)
    if len(names) < 2 or freedom < 1:
        return 0.0, []
    counts = np.bincount(group)
    means = np.bincount(group, residual) / counts
    between = float(counts @ (means - residual.mean()) ** 2) / (len(names) - 1)
    within = float(np.sum((residual - means[group]) ** 2)) / freedom
    p_value = float(f_distribution.sf(between / within, len(names) - 1, freedom)) if within else 0.0
    if p_value >= 0.05:
        return 0.0, []
    offsets = ", ".join(f"{name} {mean:+.1%}" for name, mean in zip(names, means, strict=True))
    message = f"Runs of different kinds lie apart from the law ({offsets}; p = {p_value:.2g}): intervals widened."
    return float(means.std(ddof=1)), [message]
