"""The loss by kind of token, each with a law of its own, and their mixture.

Of each token the two before it are looked up in the context so far: the pair is `new` there, or it stood there before
and this token is the one that followed it then (a `hit`), or another (a `miss`). What a model gains when it begins to
copy from its context it gains on hits; the laws of new tokens and of misses go on as before. So the mixture announces
what a law of the total can not see:

    L = sum_k share_k L_k,   ln L_hit = law - ONSET (score - score now) / 2

The copying score is carried on along tokens seen, in log-log, from the best runs of the last two budgets. How much a
score takes off the hits was measured on one family to 1e14 FLOPs, and the score itself is a guess: half of the gain
moves the middle, twice of it the low end, none the high one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from maquette.scaling.laws.forecast import Forecast
from maquette.scaling.laws.predictor import Predictor, fit_predictor
from maquette.scaling.laws.runs import Array, LawError, positive_columns

ONSET = 3.3
"""How much ln L of hits falls where the copying score rises by one: from .019 to .147 it fell by .42."""

MOST = 0.5
"""A score is carried on no farther."""


@dataclass(frozen=True)
class KindPredictor:
    """`kinds`: of each kind of token its predictor; `shares`: what it counts in the total. `onset`: tokens seen and
    copying score of the best runs at the last two budgets, (2, 2), None where not measured."""

    kinds: Mapping[str, Predictor]
    shares: Mapping[str, float]
    copied: str
    onset: Array | None

    def score(self, tokens: ArrayLike) -> Array:
        """The copying score of a run that has seen so many `tokens`, carried on from the family's own."""
        if self.onset is None:
            return np.zeros(np.shape(tokens))
        (before, now), (low, high) = np.log(self.onset.T)
        slope = max(0.0, (high - low) / (now - before)) if now > before else 0.0
        return np.minimum(np.exp(high + slope * (np.log(np.asarray(tokens, float)) - now)), max(MOST, np.exp(high)))

    def predict(
        self,
        params: ArrayLike,
        tokens: ArrayLike,
        compute: ArrayLike | None = None,
        levels: Sequence[float] = (0.5, 0.9),
    ) -> tuple[Forecast, dict[str, Forecast]]:
        """The total's forecast, and each kind's. The kinds' errors are taken to go together."""
        kinds = {name: one.predict(params, tokens, compute, levels) for name, one in self.kinds.items()}
        if self.onset is not None:
            gain = ONSET * np.maximum(0.0, self.score(tokens) - self.onset[1, 1])
            kinds[self.copied] = _lowered(kinds[self.copied], gain)
        total = _mixed(list(kinds.values()), [self.shares[name] for name in kinds])
        return total, kinds


def fit_kinds(
    params: ArrayLike,
    tokens: ArrayLike,
    losses: Mapping[str, ArrayLike],
    total: ArrayLike,
    compute: ArrayLike | None = None,
    *,
    copied: str = "hit",
    copying: ArrayLike | None = None,
    **options: Any,
) -> KindPredictor:
    """Predictors of the kinds' `losses` by name and of their mixture, columns (n,); `total`: the loss over all tokens,
    which tells the kinds' shares; `copied`: the kind that copying helps; `copying`: each run's score; `options` as for
    `fit_predictor`. Raises `LawError` for bad columns."""
    if copied not in losses:
        raise LawError(f"There is no loss of {copied}.", f"Kinds: {', '.join(losses)}.")
    whole, *parts = positive_columns(total=total, **losses)
    shares, _ = nnls(np.stack(parts, axis=1), whole)
    kinds = {name: fit_predictor(params, tokens, loss, compute, **options) for name, loss in losses.items()}
    return KindPredictor(
        kinds,
        dict(zip(losses, (float(share) for share in shares), strict=True)),
        copied,
        None if copying is None else _last_two(kinds[copied], whole, np.asarray(copying, float)),
    )


def _last_two(predictor: Predictor, loss: Array, score: Array) -> Array:
    runs, rows = predictor.runs, []
    for budget in np.unique(runs.budget)[-2:]:
        here = np.flatnonzero(runs.budget == budget)
        best = here[np.argmin(loss[here])]
        rows.append((runs.tokens[best], max(float(score[best]), 1e-4)))
    return np.array(rows)


def _lowered(forecast: Forecast, gain: Array) -> Forecast:
    """The forecast of a kind whose ln L may fall by `gain` beside its law, by twice as much, or not at all."""
    middle = np.asarray(forecast.loss) * np.exp(-gain / 2)
    intervals = {
        level: (np.asarray(low) * np.exp(-2 * gain), np.asarray(high))
        for level, (low, high) in forecast.intervals.items()
    }
    return Forecast(middle, intervals, forecast.reach, forecast.slope, forecast.warnings)


def _mixed(forecasts: Sequence[Forecast], shares: Sequence[float]) -> Forecast:
    def mean(values: Sequence[Any]) -> Any:
        return sum(share * np.asarray(value) for share, value in zip(shares, values, strict=True))

    loss = mean([one.loss for one in forecasts])
    intervals = {
        level: (
            mean([one.intervals[level][0] for one in forecasts]),
            mean([one.intervals[level][1] for one in forecasts]),
        )
        for level in forecasts[0].intervals
    }
    slope = mean([one.loss * one.slope for one in forecasts]) / loss
    warnings = tuple(dict.fromkeys(text for one in forecasts for text in one.warnings))
    return Forecast(loss, intervals, forecasts[0].reach, slope, warnings)
