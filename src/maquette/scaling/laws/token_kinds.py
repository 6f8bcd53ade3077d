"""The loss by kind of token, each with a law of its own, and their mixture.

Of each token the two before it are looked up in the context so far: the pair is `new` there, or it stood there before
and this token is the one that followed it then (a `hit`), or another (a `miss`). What a model gains when it begins to
copy from its context it gains on hits; the laws of new tokens and of misses go on as before. So the mixture announces
what a law of the total can not see:

    L = sum_k share_k L_k,   ln L_hit = law - ONSET score

The law of hits is fitted to what they would cost without copying, ln L_hit + ONSET score of each run: so it is one law
on both sides of the onset. The score of a larger run is carried on along tokens seen, in log-log, from the best runs of
the last two budgets. How much a score takes off the hits was measured on one family to 1e14 FLOPs, and the score itself
is a guess: half of what it is to gain yet moves the middle, twice of it the low end, none the high one. Scores too
small to announce anything are noise, and are not carried on: then hits may fall lower after a decade without a warning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls
from scipy.stats import t

from maquette.scaling.laws.forecast import FREEDOM, Forecast
from maquette.scaling.laws.predictor import Predictor, fit_predictor
from maquette.scaling.laws.regimes import BEGINS, Onset, copying_onset
from maquette.scaling.laws.runs import Array, LawError, positive_columns

FORM = "kinds"
"""What the mixture is called among the laws that can predict."""

COPIED = "hit"
"""The kind of token that copying helps."""

ONSET = 3.3
"""How much ln L of hits falls where the copying score rises by one: from .019 to .147 it fell by .42."""

MOST = 0.5
"""A score is carried on no farther."""


@dataclass(frozen=True)
class KindPredictor:
    """`kinds`: of each kind of token its predictor, of hits without copying; `shares`: what it counts in the total.
    `scores`: tokens seen and copying score of the best run at each budget, (budgets, 2), None where not measured.
    `onset`: how much lower hits may come out where the scores do not announce copying yet."""

    kinds: Mapping[str, Predictor]
    shares: Mapping[str, float]
    copied: str
    scores: Array | None
    onset: Onset

    @property
    def score_now(self) -> float:
        """Copying score of the best run at the largest budget."""
        return 0.0 if self.scores is None else float(self.scores[-1, 1])

    @property
    def leads(self) -> bool:
        """Whether the mixture sees what a law of the total does not: copying is setting in, or has."""
        return self.score_now >= BEGINS

    @property
    def width(self) -> float:
        """Of its intervals, against the usual: the kinds' mean."""
        widths = [self.shares[name] * one.widths[one.form] for name, one in self.kinds.items()]
        return float(sum(widths) / sum(self.shares.values()))

    def score(self, tokens: ArrayLike) -> Array:
        """The copying score of a run that has seen so many `tokens`, carried on from the family's own."""
        if self.scores is None:
            return np.zeros(np.shape(tokens))
        seen, known = np.log(self.scores.T)
        at, now, high = np.log(np.asarray(tokens, float)), seen[-1], known[-1]
        rises = self.leads and len(seen) > 1 and now > seen[-2]
        slope = max(0.0, (high - known[-2]) / (now - seen[-2])) if rises else 0.0
        further = np.minimum(np.exp(high + slope * (at - now)), max(MOST, np.exp(high)))
        order = np.argsort(seen)
        return np.where(at > now, further, np.exp(np.interp(at, seen[order], known[order])))

    def predict(
        self,
        params: ArrayLike,
        tokens: ArrayLike,
        compute: ArrayLike | None = None,
        levels: Sequence[float] = (0.5, 0.9),
    ) -> tuple[Forecast, dict[str, Forecast]]:
        """The total's forecast, and each kind's. The kinds' errors are taken to go together."""
        kinds = {name: one.predict(params, tokens, compute, levels) for name, one in self.kinds.items()}
        further = self.score(tokens)
        known = np.minimum(further, self.score_now)
        hits = _lowered(kinds[self.copied], ONSET * known, ONSET * (further - known))
        kinds[self.copied] = _with_onset(hits, self.onset)
        return _mixed(list(kinds.values()), [self.shares[name] for name in kinds]), kinds

    def reach_down(
        self, total: Forecast, params: ArrayLike, tokens: ArrayLike, compute: ArrayLike | None = None
    ) -> Forecast:
        """A forecast of the `total` by a law of its own. Where copying may set in unannounced, its low ends are drawn
        over a decade to those of the mixture where these lie lower: the more hits, the more of the loss may go."""
        below = self.onset.below(np.log10(total.reach))
        if not np.any(below > 0):
            return total
        mixture, _ = self.predict(params, tokens, compute, tuple(total.intervals))
        share = np.minimum(below / self.onset.per_decade, 1.0)
        intervals = {
            level: (low * np.minimum(1.0, mixture.intervals[level][0] / low) ** share, high)
            for level, (low, high) in total.intervals.items()
        }
        return replace(total, intervals=intervals)


def fit_kinds(
    params: ArrayLike,
    tokens: ArrayLike,
    losses: Mapping[str, ArrayLike],
    total: ArrayLike,
    compute: ArrayLike | None = None,
    *,
    shares: Mapping[str, float] | None = None,
    copied: str = COPIED,
    copying: ArrayLike | None = None,
    **options: Any,
) -> KindPredictor:
    """Predictors of the kinds' `losses` by name and of their mixture, columns (n,); `total`: the loss over all tokens,
    which tells the kinds' `shares` where they are not known; `copied`: the kind that copying helps; `copying`: each
    run's score; `options` as for `fit_predictor`. Raises `LawError` for bad columns."""
    if copied not in losses:
        raise LawError(f"There is no loss of {copied}.", f"Kinds: {', '.join(losses)}.")
    whole, *parts = positive_columns(total=total, **losses)
    if shares is None:
        mixture, _ = nnls(np.stack(parts, axis=1), whole)
        shares = dict(zip(losses, (float(share) for share in mixture), strict=True))
    score = np.zeros_like(whole) if copying is None else np.asarray(copying, float)
    columns = dict(zip(losses, parts, strict=True))
    columns[copied] = columns[copied] * np.exp(ONSET * np.maximum(score, 0.0))
    kinds = {name: fit_predictor(params, tokens, loss, compute, **options) for name, loss in columns.items()}
    onset, _ = copying_onset(copying, kinds[copied].runs)
    best = None if copying is None else _best_scores(kinds[copied], whole, score)
    # From the score on that announces it, the hits' own law carries the onset.
    announced = best is not None and best[-1, 1] >= BEGINS
    # What the total may fall by, hits alone have to fall by.
    of_hits = Onset(onset.per_decade / max(shares[copied], 0.05), onset.after)
    return KindPredictor(kinds, dict(shares), copied, best, Onset() if announced else of_hits)


def _best_scores(predictor: Predictor, loss: Array, score: Array) -> Array:
    runs, rows = predictor.runs, []
    for budget in np.unique(runs.budget):
        here = np.flatnonzero(runs.budget == budget)
        best = here[np.argmin(loss[here])]
        rows.append((runs.tokens[best], max(float(score[best]), 1e-4)))
    return np.array(rows)


def _lowered(forecast: Forecast, known: Array, gain: Array) -> Forecast:
    """The forecast of a kind whose ln L lies below its law by what is `known`, and may fall by a further `gain`, by
    twice as much, or not at all."""
    middle = np.asarray(forecast.loss) * np.exp(-known - gain / 2)
    intervals = {
        level: (np.asarray(low) * np.exp(-known - 2 * gain), np.asarray(high) * np.exp(-known))
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


def _with_onset(forecast: Forecast, onset: Onset) -> Forecast:
    """The forecast with its interval reaching lower by the onset's deviation of ln L; an end at 0 stays there."""
    further = onset.below(np.log10(forecast.reach))
    intervals = {}
    for level, (low, high) in forecast.intervals.items():
        deviation = np.hypot(_log(forecast.loss) - _log(low), t.ppf((1 + level) / 2, FREEDOM) * further)
        intervals[level] = (forecast.loss * np.exp(-deviation), high)
    return Forecast(forecast.loss, intervals, forecast.reach, forecast.slope, forecast.warnings)


def _log(values: Any) -> Array:
    return np.log(values, out=np.full(np.shape(values), -np.inf), where=np.asarray(values) > 0)
