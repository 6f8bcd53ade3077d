"""Which form of law to trust: the one that predicted the large budgets from the small ones.

In sample all forms look alike: where the additive law missed a run of ten times the compute by 15%, its mean error on
the runs it was fitted to was 1%. So each form is fitted to the budgets up to C_k and predicts the runs beyond, for
every k (rolling origin; Tashman 2000). Predictions are scored as intervals, width and miss together (Gneiting and
Raftery 2007), or else the widest would win. What remains of the errors after the form's own uncertainty and the
runs' scatter is how wrong the form is, and grows with the distance; the interval of a prediction counts it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.artifacts.progress import progress
from maquette.scaling.laws.custom_form import custom_form
from maquette.scaling.laws.fit import Prediction
from maquette.scaling.laws.fitted_form import FittedForm, MinimaBend, Runs, by_complexity, fit_form, minima_curvature
from maquette.scaling.laws.runs import Array, LawError, group_budgets, offset_of_kinds, positive_columns, seed_noise
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN
from maquette.statistics import Interval, interval_score, student_interval

TOO_FEW = "not enough budgets to choose"
ENOUGH_BUDGETS = 5
"""Three budgets give one origin and four give two of a single step: nothing to choose by."""

SIMPLER_WITHIN = 1.1
"""A form with fewer parameters is preferred where its score is at most this many times the best."""


class FormScore(NamedTuple):
    """How one form did at one reach: `reach` is the predicted budget over the largest fitted one.

    `score`: mean interval score of log loss (smaller is better). `error`: mean relative error of the
    predicted loss. `covered`: share of runs inside of their intervals. `runs`: how many were predicted.
    """

    form: str
    reach: float
    score: float
    error: float
    covered: float
    runs: int


class Discrepancy(NamedTuple):
    """How wrong a form is beyond what it knows of itself: standard deviation of log loss per decade of reach."""

    per_decade: float
    degrees_of_freedom: int


@dataclass(frozen=True)
class FormComparison:
    """The forms by how they extrapolated. `chosen`: the best one, or "not enough budgets to choose".

    `scores`: one row per form and reach; `overall`: each form's mean over reaches. `headline`: the form to predict
    with (`chosen`, or the minima's power law where nothing could be chosen). `fits`: each form fitted to all runs.
    `discrepancy`: by form. `seed_noise`: of log loss, nan where nothing was run twice; `kind_noise`: of log
    loss, of the kind of run. `curvature`: of the line
    through the minima, None where there is none.
    """

    chosen: str
    headline: str
    scores: tuple[FormScore, ...]
    overall: Mapping[str, float]
    fits: Mapping[str, FittedForm]
    discrepancy: Mapping[str, Discrepancy]
    seed_noise: float
    kind_noise: float
    curvature: MinimaBend | None
    largest_budget: float
    level: float
    warnings: tuple[str, ...]

    def predict(
        self,
        params: float,
        tokens: float,
        *,
        compute: float | None = None,
        form: str | None = None,
        level: float | None = None,
    ) -> Prediction:
        """The loss of one run by `form` (default: the headline), and the interval in which to expect it.

        `compute` in FLOPs, in the convention of the fitted runs (default 6 N D). Four errors are added as variances
        of log loss: the law's, the runs' scatter (at least the seeds'), the form's own per decade of reach, and
        that of mixed kinds of runs. Where no form could be chosen, what the forms disagree about is a fifth.
        """
        fitted = self._fitted(form)
        compute = FLOPS_PER_PARAMETER_AND_TOKEN * params * tokens if compute is None else compute
        at = [np.array([float(value)]) for value in (params, tokens, compute)]
        log_loss = float(fitted.log_loss(*at)[0])
        wrong = self.discrepancy.get(fitted.name, Discrepancy(0.0, 0))
        decades = max(0.0, float(np.log10(compute / self.largest_budget)))
        known = fitted.spread(*at)[0] ** 2 + fitted.noise**2 + self.kind_noise**2
        others = [float(other.log_loss(*at)[0]) - log_loss for other in self.fits.values() if other is not fitted]
        apart = float(np.mean(np.square(others))) if others and form is None and self.chosen == TOO_FEW else 0.0
        parts = np.array([known, (wrong.per_decade * decades) ** 2, apart])
        variance = float(parts.sum())
        # Satterthwaite: an interval resting on few out-of-sample errors is wider than on many runs.
        freedoms = np.array([fitted.degrees_of_freedom, max(wrong.degrees_of_freedom, 1), max(len(others), 1)])
        freedom = variance**2 / float(np.sum(parts**2 / freedoms)) if variance > 0 else 1.0
        low, high = student_interval(log_loss, float(np.sqrt(variance)), freedom, level or self.level)
        return Prediction(float(np.exp(log_loss)), Interval(float(np.exp(low)), float(np.exp(high))))

    def cost_of(self, form: str) -> str:
        """What it costs to force `form`, in words."""
        self._fitted(form)
        if form not in self.overall:
            return f"{form} could not be tested out of sample on these runs."
        best = min(self.overall, key=lambda name: self.overall[name])
        times = self.overall[form] / self.overall[best]
        worst = max((row for row in self.scores if row.form == form), key=lambda row: abs(row.error))
        return (
            f"{form}: out-of-sample score {self.overall[form]:.4f}, {times:.1f} times that of {best}; "
            f"its largest mean error was {worst.error:+.1%} at {worst.reach:g} times the compute."
        )

    def _fitted(self, form: str | None) -> FittedForm:
        targets = {fitted.custom.form.target: name for name, fitted in self.fits.items() if fitted.custom}
        name = targets.get(form or "", form or self.headline)
        if name not in self.fits:
            raise LawError(f"form={name} was not fitted to these runs.", f"Fitted: {', '.join(self.fits)}.")
        return self.fits[name]


def compare_forms(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    compute: ArrayLike,
    *,
    budgets: ArrayLike | None = None,
    kinds: ArrayLike | None = None,
    seeds: ArrayLike | None = None,
    forms: Iterable[Any] = (),
    bootstrap: int = 200,
    seed: int = 0,
    level: float = 0.9,
) -> FormComparison:
    """Fits and compares the minima's power law, the additive, Kaplan's and the general surface, columns (n,).

    `compute`: FLOPs of each run; runs of nearly equal compute are one budget, unless `budgets` says what each run's
    budget was. `kinds`: a name for each run where runs differ in kind (one copies from its context and another does not
    yet; depth): an offset between kinds is tested, said, and added to the intervals. `seeds`: of the runs, so that only
    those that differ in the seed are taken for repeats. `forms`: further ones of one's own, each a `LawForm` object or
    class, or its dotted name. Raises `LawError` where the columns are bad or no form can be fitted.
    """
    sizes, token_counts, losses, flops = positive_columns(params=params, tokens=tokens, loss=loss, compute=compute)
    budget = group_budgets(flops) if budgets is None else positive_columns(budgets=budgets, loss=losses)[0]
    runs = Runs(sizes, token_counts, losses, flops, budget)
    compared = by_complexity([custom_form(form) for form in forms])
    steps = np.unique(runs.budget)
    pooled, repeats = seed_noise(sizes, token_counts, losses, seeds)
    warnings: list[str] = []
    # Five budgets and more leave three to fit at the first origin; fewer leave two, to see some error at all.
    first = 3 if len(steps) >= ENOUGH_BUDGETS else 2
    origins = range(min(first, len(steps)), len(steps) + 1)
    fits: dict[str, FittedForm] = {}
    rows: list[_HeldOutError] = []
    with progress("Comparing forms", len(compared) * len(origins), unit="fits") as advance:
        for name, form in compared.items():
            for origin in origins:
                inside = runs.budget <= steps[origin - 1] * (1 + 1e-9)
                fitted = fit_form(form, runs.take(inside), bootstrap, seed)
                advance(1)
                if isinstance(fitted, str):
                    if origin == len(steps):
                        warnings.append(f"{name} could not be fitted: {fitted}")
                    continue
                if repeats:
                    fitted = replace(fitted, noise=max(fitted.noise, pooled))
                if origin == len(steps):
                    fits[name] = fitted
                    warnings += [f"{name}: {text}" for text in fitted.warnings]
                else:
                    rows += _predict_beyond(fitted, runs, steps, origin, level)
    if not fits:
        raise LawError("No form could be fitted to these runs.", " ".join(warnings))
    scores = _score_table(rows)
    overall = {name: float(np.mean([s.score for s in scores if s.form == name])) for name in fits if _has(scores, name)}
    chosen = _choose(overall) if len(steps) >= ENOUGH_BUDGETS and overall else TOO_FEW
    # Where none can be chosen, the simplest of ours: one's own may have no best size at all.
    simplest = next((name for name, fitted in fits.items() if fitted.custom is None), next(iter(fits)))
    headline = chosen if chosen != TOO_FEW else simplest
    kind_noise = 0.0
    if kinds is not None:
        kind_noise, messages = offset_of_kinds(_log_residuals(fits[headline], runs), np.asarray(kinds))
        warnings += messages
    if chosen == TOO_FEW:
        warnings.append(f"{len(steps)} budgets are too few to choose a form by; five half decades apart are enough.")
    if not rows:
        warnings.append("No budget was left to predict: the intervals count no error of the form.")
    return FormComparison(
        chosen=chosen,
        headline=headline,
        scores=tuple(scores),
        overall=overall,
        fits=fits,
        discrepancy={name: _discrepancy([r for r in rows if r.form == name], len(steps) - first) for name in fits},
        seed_noise=pooled,
        kind_noise=kind_noise,
        curvature=minima_curvature(fits["minima"].isoflop, level)
        if fits.get("minima") and fits["minima"].isoflop
        else None,
        largest_budget=float(steps[-1]),
        level=level,
        warnings=tuple(warnings),
    )


class _HeldOutError(NamedTuple):
    """One held-out budget predicted from one origin: arrays over its runs."""

    form: str
    reach: float
    scores: Array
    errors: Array
    covered: NDArray[np.bool_]
    variance: float


def _predict_beyond(fitted: FittedForm, runs: Runs, budgets: Array, origin: int, level: float) -> list[_HeldOutError]:
    rows = []
    for budget in budgets[origin:]:
        beyond = runs.take(runs.near_best(float(budget)))
        at = beyond.params, beyond.tokens, beyond.compute
        predicted, spread = fitted.log_loss(*at), fitted.spread(*at)
        reaches = student_interval(0.0, 1.0, fitted.degrees_of_freedom, level).high
        half = reaches * np.sqrt(spread**2 + fitted.noise**2)
        observed = np.log(beyond.loss)
        rows.append(
            _HeldOutError(
                fitted.name,
                float(budget / budgets[origin - 1]),
                interval_score(predicted - half, predicted + half, observed, level),
                predicted - observed,
                np.abs(predicted - observed) <= half,
                float(np.mean(spread**2) + fitted.noise**2 / len(observed)),
            )
        )
    return rows


def _score_table(rows: list[_HeldOutError]) -> list[FormScore]:
    """Means by form and reach, the reach rounded to half decades."""
    table = []
    for form, reach in sorted({(row.form, _round_reach(row.reach)) for row in rows}):
        here = [row for row in rows if row.form == form and _round_reach(row.reach) == reach]
        errors = np.concatenate([row.errors for row in here])
        table.append(
            FormScore(
                form=form,
                reach=reach,
                score=float(np.concatenate([row.scores for row in here]).mean()),
                error=float(np.expm1(errors.mean())),
                covered=float(np.concatenate([row.covered for row in here]).mean()),
                runs=len(errors),
            )
        )
    return table


def _round_reach(reach: float) -> float:
    return float(f"{10 ** (max(1, round(2 * np.log10(reach))) / 2):.2g}")


def _has(scores: list[FormScore], form: str) -> bool:
    return any(score.form == form for score in scores)


def _choose(overall: Mapping[str, float]) -> str:
    """The simplest form among those that score nearly as well as the best; `overall` begins with the simplest."""
    best = min(overall.values())
    return next(name for name in overall if overall[name] <= SIMPLER_WITHIN * best)


def _discrepancy(rows: list[_HeldOutError], freedom: int) -> Discrepancy:
    """By moments: the mean square error at each reach, less what the form's own variance explains, per decade."""
    if not rows:
        return Discrepancy(0.0, 0)
    excess = [(row.errors.mean() ** 2 - row.variance) / np.log10(row.reach) ** 2 for row in rows]
    return Discrepancy(float(np.sqrt(max(0.0, float(np.mean(excess))))), max(freedom, 1))


def _log_residuals(fitted: FittedForm, runs: Runs) -> Array:
    return np.asarray(np.log(runs.loss) - fitted.log_loss(runs.params, runs.tokens, runs.compute))
