"""Two ways to spend a month: thirty models of one day each, or three days of small ones and one of 27 days.

The old way tunes the big model: it trains models with settings that somebody might guess, all at an equal share of the
compute, and keeps the best. The new way spends a tenth on small models and gives all the rest to one run.
`compare_pipelines` weighs both on a law; `experiments/pipelines.py` trains both.
"""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from maquette.scaling.laws.runs import LawError
from maquette.scaling.laws.surface import Allocation, LossSurface


@dataclass(frozen=True)
class PipelineComparison:
    """`old` and `new`: the model that each way ends with, and its loss in nats per token.

    `compute_factor`: how many times the old way's whole compute it would need to reach the new way's loss.
    """

    old: Allocation
    new: Allocation
    old_loss: float
    new_loss: float
    compute_factor: float


def compare_pipelines(
    surface: LossSurface,
    flops_per_day: float,
    *,
    days: int = 30,
    small_days: int = 3,
    tuning_spread: float = 0.01,
) -> PipelineComparison:
    """Both ways at equal compute on `surface`.

    `tuning_spread`: standard deviation of log loss between settings that someone would try. The old way's `days`
    trials each draw from it and the best is kept; the new way tunes as many small ones, and its big run gets the
    best of those. Both therefore gain the same share of the loss, and what is left is the size of the run.
    """
    if not 0 < small_days < days:
        raise LawError(f"small_days={small_days} must lie between 0 and days={days}.")
    gain = float(np.exp(tuning_spread * expected_minimum(days)))
    old, new = surface.optimal(flops_per_day), surface.optimal(flops_per_day * (days - small_days))
    old_loss, new_loss = surface.loss(*old) * gain, surface.loss(*new) * gain
    factor = surface.compute_for(new_loss / gain) / flops_per_day
    return PipelineComparison(old, new, old_loss, new_loss, factor)


def expected_minimum(count: int) -> float:
    """Expected least of `count` standard normal numbers: -2.04 of 30."""
    density = quad(lambda x: x * count * norm.pdf(x) * norm.sf(x) ** (count - 1), -12, 12)
    return float(density[0])
