"""The forms of law beside each other, by how they predicted the large budgets from the small ones.

A diagnosis: predictions are made by `predictor.py`. Each form's interval is made as the predictor's is, from the form's
own uncertainty and its own past errors, whoever asks for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from maquette.artifacts.progress import progress
from maquette.scaling.laws.custom_form import CustomForm, custom_form
from maquette.scaling.laws.fitted_form import FittedForm, MinimaBend, by_complexity, fit_form, minima_curvature
from maquette.scaling.laws.forecast import Forecast, make_forecast
from maquette.scaling.laws.rolling_origin import LawScore, rolling_origin, scores, width
from maquette.scaling.laws.runs import LawError, Runs, check_runs, offset_of_kinds, seed_noise

TOO_FEW = "not enough budgets to choose"
ENOUGH_BUDGETS = 5
"""Three budgets give one origin and four give two of a single step: nothing to choose by."""

SIMPLER_WITHIN = 1.1
"""A form with fewer parameters is preferred where its score is at most this many times the best."""


@dataclass(frozen=True)
class FormComparison:
    """The forms by how they extrapolated. `chosen`: the best one, or "not enough budgets to choose".

    `scores`: one row per form and reach; `overall`: each form's mean over reaches. `fits`: each form fitted to all
    runs; `widths`: of its intervals, from its past errors. `seed_noise`: of log loss, nan where nothing was run twice;
    `kind_noise`: of log loss, of the kind of run. `curvature`: of the line through the minima, None where there is
    none.
    """

    chosen: str
    scores: tuple[LawScore, ...]
    overall: Mapping[str, float]
    fits: Mapping[str, FittedForm]
    widths: Mapping[str, float]
    seed_noise: float
    kind_noise: float
    curvature: MinimaBend | None
    largest_budget: float
    level: float
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The form that is shown first: the chosen one, or the simplest of ours (one's own may have no best size)."""
        ours = (name for name, fitted in self.fits.items() if fitted.custom is None)
        return self.chosen if self.chosen != TOO_FEW else next(ours, next(iter(self.fits)))

    def predict(
        self,
        params: ArrayLike,
        tokens: ArrayLike,
        compute: ArrayLike | None = None,
        *,
        form: str | None = None,
        levels: Sequence[float] = (0.5, 0.9),
    ) -> Forecast:
        """The loss of runs by `form` (default: the headline), numbers or arrays, with intervals. `compute` in FLOPs, in
        the convention of the fitted runs (default 6 N D)."""
        name = self.name_of(form)
        flops = 6 * np.asarray(params, float) * np.asarray(tokens, float) if compute is None else compute
        law = self.fits[name].extrapolate
        return make_forecast(law, params, tokens, flops, width=self.widths[name], levels=levels)

    def cost_of(self, form: str) -> str:
        """What it costs to force `form`, in words."""
        self.name_of(form)
        if form not in self.overall:
            return f"{form} could not be tested out of sample on these runs."
        best = min(self.overall, key=lambda name: self.overall[name])
        times = self.overall[form] / self.overall[best]
        worst = max((row for row in self.scores if row.form == form), key=lambda row: abs(row.error))
        return (
            f"{form}: out-of-sample score {self.overall[form]:.4f}, {times:.1f} times that of {best}; "
            f"its largest mean error was {worst.error:+.1%} at {worst.reach:g} times the compute."
        )

    def name_of(self, form: str | None) -> str:
        """A form's name, by it or by the dotted name of one's own. Raises `LawError` where it was not fitted."""
        targets = {fitted.custom.form.target: name for name, fitted in self.fits.items() if fitted.custom}
        name = targets.get(form or "", form or self.headline)
        if name not in self.fits:
            raise LawError(f"form={name} was not fitted to these runs.", f"Fitted: {', '.join(self.fits)}.")
        return name


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
    """Fits and compares the minima's power law, the additive, Kaplan's and the general surface, and Farseer's form,
    columns (n,).

    `compute`: FLOPs of each run; runs of nearly equal compute are one budget, unless `budgets` says what each run's
    budget was. `kinds`: a name for each run where runs differ in kind (one copies from its context and another does not
    yet; depth): an offset between kinds is tested, said, and added to the intervals. `seeds`: of the runs, so that only
    those that differ in the seed are taken for repeats. `forms`: further ones of one's own, each a `LawForm` object or
    class, or its dotted name. `bootstrap`: resamples for the intervals of the forms' parameters. Raises `LawError`
    where the columns are bad or no form can be fitted.
    """
    runs = check_runs(params, tokens, loss, compute, budgets)
    compared = by_complexity([custom_form(form) for form in forms])
    pooled, repeats = seed_noise(runs.params, runs.tokens, runs.loss, seeds)
    warnings: list[str] = []

    def fit(form: str | CustomForm, some: Runs, resamples: int = 0) -> FittedForm:
        fitted = fit_form(form, some, resamples, seed)
        return replace(fitted, noise=max(fitted.noise, pooled)) if repeats else fitted

    steps = np.unique(runs.budget)
    # Five budgets and more leave three to fit at the first origin; fewer leave two, to see some error at all.
    first = 3 if len(steps) >= ENOUGH_BUDGETS else 2
    fits: dict[str, FittedForm] = {}
    held_out = {}
    with progress("Comparing forms", len(compared), unit="forms") as advance:
        for name, form in compared.items():
            try:
                fits[name] = fit(form, runs, bootstrap)
            except LawError as error:
                warnings.append(f"{name} could not be fitted: {error.message}")
            else:
                warnings += [f"{name}: {text}" for text in fits[name].warnings]
                held_out[name] = rolling_origin(partial(fit, form), runs, first=first)
            advance(1)
    if not fits:
        raise LawError("No form could be fitted to these runs.", " ".join(warnings))
    table = [row for name, rows in held_out.items() for row in scores(name, rows, level)]
    overall = {
        name: float(np.mean([row.score for row in table if row.form == name]))
        for name, rows in held_out.items()
        if rows
    }
    chosen = _choose(overall) if len(steps) >= ENOUGH_BUDGETS and overall else TOO_FEW
    if chosen == TOO_FEW:
        warnings.append(f"{len(steps)} budgets are too few to choose a form by; five half decades apart are enough.")
    if not table:
        warnings.append("No budget was left to predict, so intervals count no past error of the form. Add a budget.")
    minima = fits["minima"].isoflop if "minima" in fits else None
    comparison = FormComparison(
        chosen=chosen,
        scores=tuple(table),
        overall=overall,
        fits=fits,
        widths={name: width(rows) for name, rows in held_out.items()},
        seed_noise=pooled,
        kind_noise=0.0,
        curvature=None if minima is None else minima_curvature(minima, level),
        largest_budget=float(steps[-1]),
        level=level,
        warnings=tuple(warnings),
    )
    return comparison if kinds is None else _with_kinds(comparison, runs, np.asarray(kinds))


def _with_kinds(comparison: FormComparison, runs: Runs, kinds: Any) -> FormComparison:
    residual = np.log(runs.loss) - comparison.fits[comparison.headline].log_loss(runs.params, runs.tokens, runs.compute)
    offset, messages = offset_of_kinds(residual, kinds)
    fits = {name: replace(fitted, kind_noise=offset) for name, fitted in comparison.fits.items()}
    return replace(comparison, fits=fits, kind_noise=offset, warnings=(*comparison.warnings, *messages))


def _choose(overall: Mapping[str, float]) -> str:
    """The simplest form among those that score nearly as well as the best; `overall` begins with the simplest."""
    best = min(overall.values())
    return next(name for name in overall if overall[name] <= SIMPLER_WITHIN * best)
