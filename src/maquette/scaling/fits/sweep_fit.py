"""Everything that one sweep says: what to expect of larger runs, and all forms and approaches beside each other.

    fit = fit_sweep(read_table("my.csv"))
    fit.best(1e15), fit.predict(*fit.best(1e15), compute=1e15)

The predictor (`laws/predictor.py`) predicts. Beside it, as a diagnosis, stand `compare_forms`, `fit_isoflop`,
`fit_envelope`, `fit_power_law` and `kaplan_convention` over one table, with the reason why for each that could not be
fitted. Nothing here is a method of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.artifacts.settings import is_dotted, parse_quantity
from maquette.recipe.pretraining import Recipe
from maquette.scaling.fits.confounders import Confounder, copying_kinds, find_confounders
from maquette.scaling.fits.recipe_cost import RungCost, recipe_costs
from maquette.scaling.fits.table import RunTable
from maquette.scaling.fits.tasks import fit_tasks, predicted_tasks
from maquette.scaling.laws.counting import ConventionShift, kaplan_convention, vocabulary_law
from maquette.scaling.laws.custom_form import custom_form
from maquette.scaling.laws.downstream import TaskLaw
from maquette.scaling.laws.extrapolation import FormComparison, compare_forms
from maquette.scaling.laws.fit import SurfaceFit
from maquette.scaling.laws.forecast import Forecast
from maquette.scaling.laws.isoflop import EnvelopeFit, IsoflopFit, fit_envelope, fit_isoflop
from maquette.scaling.laws.minimum import METHODS, CurveMinimum, curve_minimum
from maquette.scaling.laws.power_law import PowerLawFit, fit_power_law
from maquette.scaling.laws.predictor import SURFACE, Predictor, fit_predictor
from maquette.scaling.laws.runs import Array, LawError
from maquette.scaling.laws.surface import Allocation
from maquette.scaling.laws.token_kinds import COPIED, FORM, KindPredictor, fit_kinds
from maquette.statistics import Interval

T = TypeVar("T")

_RESAMPLES = 500
"""Of the power laws with a floor."""


@dataclass(frozen=True)
class BudgetCurve:
    """One budget's runs (indices into the table) and their minimum by each method; none with fewer than three sizes."""

    budget: float
    rows: NDArray[np.intp]
    minimum: Mapping[str, CurveMinimum]


@dataclass(frozen=True)
class KaplanView:
    """The same runs as someone sees them who counts the core only, with C = 6 N D of it.

    `exponent`: of N* fitted to the runs so counted, None where their minima can't be. `shift`: what counting alone does
    to the fitted surface.
    """

    exponent: float | None
    interval: Interval | None
    shift: ConventionShift


@dataclass(frozen=True)
class SweepFit:
    """All fits of one table. `form`: the law that predicts, the predictor's or one that was `forced`; `forms`: all that
    can. `kinds`: the laws by kind of token, whose mixture predicts where copying sets in; None where the runs do not
    have them. `tasks`: the laws of every task that runs were evaluated on.

    `isoflop`: by method. `power_laws`: of the loss in C, N* and D*, with and without a floor, and their points.
    `recipe_costs`: of the learning rate, at the runs that were also trained at others, which are left out of the laws.
    `missing`: what could not be fitted, and why. `flops_per_product`: compute over N D, typically.
    """

    table: RunTable
    predictor: Predictor
    kinds: KindPredictor | None
    tasks: Mapping[str, TaskLaw]
    comparison: FormComparison
    form: str
    forced: bool
    curves: tuple[BudgetCurve, ...]
    isoflop: Mapping[str, IsoflopFit]
    envelope: EnvelopeFit | None
    power_laws: Mapping[str, PowerLawFit]
    kaplan: KaplanView | None
    confounders: tuple[Confounder, ...]
    recipe_costs: tuple[RungCost, ...]
    missing: Mapping[str, str]
    flops_per_product: float
    bootstrap: int
    seed: int
    warnings: tuple[str, ...]

    @property
    def level(self) -> float:
        return self.comparison.level

    @property
    def forms(self) -> tuple[str, ...]:
        """The laws that can predict, the one that does first."""
        kinds = () if self.kinds is None else (FORM,)
        return tuple(dict.fromkeys((self.form, self.predictor.form, *kinds, *self.comparison.fits)))

    @property
    def own_warnings(self) -> list[str]:
        """What concerns the law that predicts, or the runs."""
        others = self.other_warnings
        return [words for words in self.warnings if words not in others]

    @property
    def other_warnings(self) -> list[str]:
        """What concerns only the laws beside it, whose names such warnings begin with."""
        others = {"minima", "envelope", "isoflop", *self.comparison.fits} - {self.form}
        return [
            words
            for words in self.warnings
            if words.split(" ")[0].rstrip(":") in others or " could not be fitted: " in words
        ]

    @property
    def noise(self) -> Mapping[str, float]:
        """Of each law the deviation of ln L of the runs that it was fitted to."""
        return {form: float(np.std(self.residuals(form))) for form in self.forms}

    @property
    def surface(self) -> SurfaceFit:
        """The surface that further runs are chosen by: that of `form`, or of the best form that has one."""
        fits = self.comparison.fits
        ranked = sorted(fits, key=lambda name: self.comparison.overall.get(name, np.inf))
        for name in (self.form, *ranked):
            if name in fits and (surface := fits[name].surface) is not None:
                return surface
        raise LawError(f"No surface could be fitted to {self.table.source}.", "; ".join(self.missing.values()))

    def residuals(self, form: str | None = None) -> Array:
        """ln of loss over law, (n,)."""
        name, at = form or self.form, (self.table.params, self.table.tokens, self.table.compute)
        if name == FORM:
            return np.asarray(np.log(self.table.loss / self.predict(*at[:2], compute=at[2], form=name).loss))
        law = self.predictor.surface if name == SURFACE else self.comparison.fits[name]
        return np.asarray(np.log(self.table.loss) - law.extrapolate(*at).log_loss)

    def counted(self, run: Recipe) -> tuple[Allocation, float]:
        """N and D, and FLOPs, of a run in the convention of the fit."""
        if self.table.convention == "exact":
            return Allocation(float(run.size), float(run.tokens)), float(run.compute)
        return Allocation(float(run.parameters.core), float(run.tokens)), float(run.kaplan_compute)

    def best(self, compute: float) -> Allocation:
        """N* and D* at `compute` FLOPs: by the line of minima, whichever law predicts the loss."""
        params, _ = self.predictor.best_size(compute)
        return Allocation(params, compute / self.flops_per_product / params)

    def exponent(self, form: str | None = None) -> tuple[float, Interval]:
        """a in N* ~ C^a by a form (default: the one to predict with), and its interval."""
        name = form or self.form
        if name in (SURFACE, FORM):
            return self.predictor.size_line.exponent, self.predictor.size_line.interval
        fitted = self.comparison.fits[name]
        if fitted.surface is not None:
            return fitted.surface.surface.exponent, fitted.surface.interval["exponent"]
        if fitted.custom is not None:
            product = self.comparison.largest_budget / self.flops_per_product
            return fitted.custom.exponent(product, self._usual_params(product), self.level)
        assert fitted.isoflop is not None
        return fitted.isoflop.exponent, fitted.isoflop.interval

    def _usual_params(self, product: float) -> float:
        """Where to look for the best N at N D = `product`: at the tokens a parameter of the table's runs."""
        ratio = np.median(np.log(self.table.tokens / self.table.params))
        return float(np.sqrt(product / np.exp(ratio)))

    def allocation(self, params: float | None, tokens: float | None, compute: float) -> Allocation:
        """N and D of a run of which not all is said: the tokens that `compute` buys, or the best size for it."""
        if params is None:
            return self.best(compute)
        return Allocation(params, compute / (self.flops_per_product * params) if tokens is None else tokens)

    def run_of(self, size: str | None, tokens: str | None, compute: str | None) -> tuple[Allocation, float]:
        """N and D, and FLOPs, of a run by what is given of it: `compute`, or both other quantities."""
        given = {"size": size, "tokens": tokens, "compute": compute}
        params, many, flops = (None if v is None else float(parse_quantity(v, key)) for key, v in given.items())
        if flops is None:
            assert params is not None and many is not None
            flops = self.flops_per_product * params * many
        return self.allocation(params, many, flops), flops

    def predict(
        self,
        params: ArrayLike,
        tokens: ArrayLike,
        *,
        compute: ArrayLike | None = None,
        form: str | None = None,
        levels: Sequence[float] = (0.5, 0.9),
    ) -> Forecast:
        """The loss of runs and its intervals. `compute`: FLOPs as the table counts them; `form`: any of `forms`."""
        if compute is None:
            compute = self.flops_per_product * np.asarray(params, float) * np.asarray(tokens, float)
        name = form or self.form
        if name == FORM and self.kinds is not None:
            return self.kinds.predict(params, tokens, compute, levels)[0]
        if name == SURFACE or name in self.predictor.forms:
            total = self.predictor.predict(params, tokens, compute, levels, form=name)
            return total if self.kinds is None else self.kinds.reach_down(total, params, tokens, compute)
        return self.comparison.predict(params, tokens, compute, form=name, levels=levels)

    def predict_tasks(self, params: float, tokens: float, compute: float) -> dict[str, dict[str, Any]]:
        """What a run is expected to score on every task, as plain values (`predicted_tasks`)."""
        loss = self.predict(params, tokens, compute=compute)
        return predicted_tasks(self.table, self.tasks, (params, tokens, compute), loss)


def fit_sweep(
    table: RunTable,
    *,
    form: str | None = None,
    forms: Sequence[Any] = (),
    bootstrap: int = 200,
    seed: int = 0,
    level: float = 0.9,
    corpus: Mapping[str, Any] | None = None,
) -> SweepFit:
    """Fits everything to `table`. `form` forces one, ours or by its dotted name one's own; `forms`: further ones of
    one's own that take part; `corpus`: what the tokens' manifest says of the text.

    Raises `LawError` where no form can be fitted at all, or `form` can't be.
    """
    own = list(forms)
    if form is not None and is_dotted(form):
        own += [] if form in own else [form]
        form = custom_form(form).name
    table, costs = recipe_costs(table)
    kinds = table.kinds if table.kinds is not None else copying_kinds(table.copying)
    comparison = compare_forms(
        table.params, table.tokens, table.loss, table.compute, budgets=table.budget, kinds=kinds,
        seeds=table.seed, forms=own, bootstrap=bootstrap, seed=seed, level=level,
    )  # fmt: skip
    entropy = None if table.unigram_entropy is None else float(np.median(table.unigram_entropy))
    predictor = fit_predictor(
        table.params, table.tokens, table.loss, table.compute, budgets=table.budget, unigram_entropy=entropy,
        copying=table.copying, seeds=table.seed, forms=own,
    )  # fmt: skip
    missing: dict[str, str] = {}

    def attempt(name: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except LawError as error:
            missing[name] = str(error)
            return None

    token_laws = attempt("kinds of token", partial(_kinds, table, entropy)) if table.token_kinds else None
    known = (SURFACE, *comparison.fits) if token_laws is None else (SURFACE, FORM, *comparison.fits)
    if form is not None and form not in known:
        raise LawError(f"form={form} can't be fitted to these runs.", f"Fitted: {', '.join(known)}.")
    tasks, without = fit_tasks(table)
    missing |= {f"task {task}": why for task, why in without.items()}
    isoflop = {
        method: isoflop_fit
        for method in METHODS
        if (isoflop_fit := attempt(f"isoflop by {method}", partial(_isoflop, table, method, level)))
    }
    envelope = attempt("envelope", lambda: fit_envelope(table.params, table.loss, table.compute, level=level))
    fit = SweepFit(
        table=table,
        predictor=predictor,
        kinds=token_laws,
        tasks=tasks,
        comparison=comparison,
        form=form or (FORM if token_laws and token_laws.leads and predictor.form == SURFACE else predictor.form),
        forced=form is not None,
        curves=_curves(table),
        isoflop=isoflop,
        envelope=envelope,
        power_laws=_power_laws(table, isoflop.get("parabola"), level, seed, attempt),
        kaplan=None,
        confounders=(),
        recipe_costs=costs,
        missing=missing,
        flops_per_product=predictor.surface.flops_per_product,
        bootstrap=bootstrap,
        seed=seed,
        warnings=(),
    )
    kaplan = attempt("kaplan's convention", lambda: _kaplan(fit))
    confounders = find_confounders(table, fit.residuals(), corpus, level, costs)
    return replace(fit, kaplan=kaplan, confounders=confounders, warnings=_warnings(fit, confounders, form))


def _kinds(table: RunTable, entropy: float | None) -> KindPredictor:
    kinds = table.token_kinds
    if COPIED not in kinds:
        raise LawError(f"{table.source} has losses of {', '.join(kinds)}, but none of hits.")
    return fit_kinds(
        table.params, table.tokens, {name: loss for name, (loss, _) in kinds.items()}, table.loss, table.compute,
        shares={name: share for name, (_, share) in kinds.items()}, copying=table.copying, budgets=table.budget,
        unigram_entropy=entropy, seeds=table.seed,
    )  # fmt: skip


def _isoflop(table: RunTable, method: str, level: float) -> IsoflopFit:
    return fit_isoflop(table.params, table.tokens, table.loss, table.budget, method, level=level)


def _curves(table: RunTable) -> tuple[BudgetCurve, ...]:
    curves = []
    for budget in np.unique(table.budget):
        rows = np.flatnonzero(table.budget == budget)
        x, y = np.log(table.params[rows]), np.log(table.loss[rows])
        enough = len(np.unique(x)) >= 3
        curves.append(BudgetCurve(float(budget), rows, {m: curve_minimum(x, y, m) for m in METHODS} if enough else {}))
    return tuple(curves)


def _power_laws(
    table: RunTable,
    isoflop: IsoflopFit | None,
    level: float,
    seed: int,
    attempt: Callable[[str, Callable[[], Any]], Any],
) -> dict[str, PowerLawFit]:
    """L(C), L(N) and L(D) along the best runs: through the minima, or where there are none the best run by budget."""
    if isoflop is not None:
        points = np.array([(o.budget, o.params, o.tokens, o.loss) for o in isoflop.optima])
    else:
        best = [rows[np.argmin(table.loss[rows])] for rows in (c.rows for c in _curves(table))]
        points = np.stack([table.budget, table.params, table.tokens, table.loss], axis=1)[best]
    laws: dict[str, PowerLawFit] = {}
    for name, column in (("L(C)", 0), ("L(N)", 1), ("L(D)", 2)):
        for floor in (False, True):
            called = f"{name} with a floor" if floor else name
            fit = partial(fit_power_law, points[:, column], points[:, 3], floor, bootstrap=_RESAMPLES, seed=seed)
            law = attempt(called, partial(fit, level=level))
            if law is not None:
                laws[called] = law
    return laws


def _kaplan(fit: SweepFit) -> KaplanView:
    table = fit.table
    if table.convention != "exact" or table.core is None:
        raise LawError("The runs do not say which of their parameters are the core's.")
    rest = table.params - table.core
    if not np.all(rest > 0):
        raise LawError("The runs count no vocabulary: both conventions are one.")
    surface = fit.surface.surface
    shift = kaplan_convention(
        surface, vocabulary=vocabulary_law(table.core, rest), sizes=(float(table.core.min()), float(table.core.max()))
    )
    try:
        line = _isoflop(table.in_convention("kaplan"), "parabola", fit.level)
    except LawError:
        return KaplanView(None, None, shift)
    return KaplanView(line.exponent, line.interval, shift)


def _warnings(fit: SweepFit, confounders: tuple[Confounder, ...], form: str | None) -> tuple[str, ...]:
    messages = [*fit.predictor.warnings, *fit.comparison.warnings]
    if form is not None and form in fit.comparison.fits and form != fit.predictor.form:
        messages.insert(0, f"form={form} was forced. {fit.comparison.cost_of(form)}")
    fitted = fit.comparison.fits.get(fit.form)
    if fit.forced and fitted is not None and fitted.custom is not None:
        surfaces = [name for name, one in fit.comparison.fits.items() if one.surface is not None]
        messages.append(
            f"{fit.form} has no surface of ours: `maquette plan` and suggested runs "
            + (f"take that of the {fit.surface.form} form." if surfaces else "will be refused.")
        )
    for method, line in fit.isoflop.items():
        # the comparison has said the parabola's already, as the minima's
        messages += [] if method == "parabola" else [f"isoflop by {method}: {text}" for text in line.warnings]
    if fit.envelope is not None:
        messages += [f"envelope: {text}" for text in fit.envelope.warnings]
    messages += [confounder.words for confounder in confounders if confounder.alarming]
    return tuple(dict.fromkeys(messages))
