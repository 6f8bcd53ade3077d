"""What a sweep over mixtures says beside its law: the noise of a seed, and whether the order of mixtures at one size is
their order at a larger one (Magnusson et al. 2025, "DataDecide")."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.difference import decision_accuracy
from maquette.scaling.laws.runs import Array, LawError, seed_noise

SAME = 5e-4
"""Of a weight: mixtures that differ by less are one."""


class Mixtures(NamedTuple):
    """Runs of one size, a row for each mixture, its seeds averaged: `first`, the first run of each; `weights` and
    `losses` (mixtures, domains). `noise`: standard deviation of the log of a run's mean loss among seeds, with its
    degrees of `freedom`."""

    first: NDArray[np.intp]
    weights: Array
    losses: Array
    noise: float
    freedom: int


class SizeCheck(NamedTuple):
    """The mixtures at a larger size, N `params` and D `tokens`. `agreement`: share of the pairs of `mixtures` whose
    order is the same as at the law's size, pairs within the noise left out (nan where none is left). `lost`: how much
    higher the loss of the law's size's best mixture is here than that of the best one here, as a share."""

    params: float
    tokens: float
    mixtures: int
    agreement: float
    lost: float

    @property
    def words(self) -> str:
        """In a sentence."""
        if np.isnan(self.agreement):
            order = "no pair differs by more than the noise"
        else:
            order = f"the order of {self.agreement:.0%} of the pairs is the same"
        return (
            f"At {self.params:,.0f} parameters and {self.tokens:,.0f} tokens ({self.mixtures} mixtures) {order}, and "
            f"the mixture that was best at the smaller size loses {self.lost:.2%} against the best there."
        )


def sizes_of(table: RunTable) -> Iterator[NDArray[np.intp]]:
    """The rows of each size and number of tokens, from the smallest N on."""
    keys = np.stack([np.round(np.log(table.params) / 0.01), np.round(np.log(table.tokens) / 0.05)])
    _, group = np.unique(keys, axis=1, return_inverse=True)
    for size in range(int(group.max()) + 1):
        yield np.flatnonzero(group.ravel() == size)


def average_seeds(weights: Array, losses: Array, targets: Array) -> Mixtures:
    """Runs (n, domains) of one size, by mixture; `targets`: of the mean loss whose noise is told."""
    first: list[int] = []
    owner = np.empty(len(weights), int)
    for row, mixture in enumerate(weights):
        near = [place for place, one in enumerate(first) if np.abs(weights[one] - mixture).max() <= SAME]
        owner[row] = near[0] if near else len(first)
        if not near:
            first.append(row)
    means = np.stack([losses[owner == place].mean(axis=0) for place in range(len(first))])
    noise, freedom = seed_noise(owner + 1.0, np.ones(len(owner)), losses @ targets)
    return Mixtures(np.array(first), weights[first], means, noise, freedom)


def check_size(
    small: Mixtures, large: Mixtures, targets: Array, params: float, tokens: float, source: str
) -> SizeCheck:
    """Whether the order of the mixtures that both sizes have is the same in the mean loss weighted by `targets`.

    Raises `LawError` where they have fewer than two mixtures in common.
    """
    pairs = [
        (row, int(distance.argmin()))
        for row, mixture in enumerate(small.weights)
        if (distance := np.abs(large.weights - mixture).max(axis=1)).min() <= SAME
    ]
    if len(pairs) < 2:
        raise LawError(
            f"The runs of {source} differ in size or tokens: a mixing law is of one size, and those with {params:,.0f} "
            f"parameters and {tokens:,.0f} tokens have no mixtures of the smallest to check it.",
            "Name a sweep whose runs differ in their mixture alone, or train the same mixtures at the second size.",
        )
    rows, columns = np.array(pairs).T
    losses = np.column_stack([small.losses[rows] @ targets, large.losses[columns] @ targets])
    (agreement,) = decision_accuracy(losses, np.sqrt(2) * small.noise if small.freedom else 0.0)
    lost = losses[losses[:, 0].argmin(), 1] / losses[:, 1].min() - 1
    return SizeCheck(params, tokens, len(rows), float(agreement), float(lost))


def noise_words(mixtures: Mixtures) -> str:
    """What the seeds say; that there are none, where there are none."""
    if not mixtures.freedom:
        return "No mixture was trained with a second seed: the noise of a run is not known."
    return (
        f"Seeds of one mixture differ by {mixtures.noise:.2%} (standard deviation, {mixtures.freedom} degrees of "
        f"freedom): two runs within {1.96 * np.sqrt(2) * mixtures.noise:.2%} of each other can't be told apart."
    )
