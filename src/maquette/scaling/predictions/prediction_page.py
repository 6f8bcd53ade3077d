"""A prediction and what came of it, as sections of a page: the verdict, the law behind it, and every form beside it."""

from typing import TYPE_CHECKING

from maquette.artifacts.page import Fact, Page, Picture
from maquette.reports.figures import COLORS
from maquette.scaling.fits.fit_report import CAPTIONS
from maquette.scaling.fits.sweep_figures import isoflop_curves, loss_against_compute
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.fit import Prediction
from maquette.scaling.plans.plan_report import quantity
from maquette.scaling.predictions.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_page(fit: SweepFit, verdict: Verdict, *, footer: str) -> Page:
    """The page's head: what was done, in two sentences."""
    table, told = fit.table, verdict.prediction
    low, high = told.interval90
    return Page(
        "A law, a prediction, and a verdict",
        eyebrow="Maquette demo",
        lead=f"{len(table)} small models were trained and a law fitted to them. It foretold a loss of {told.loss:.3f} "
        f"(90%: {low:.3f} to {high:.3f}) for a model of {told.reach:.3g} times the compute. Then that model was "
        f"trained: {verdict.loss:.3f}.",
        footer=footer,
    )


def add_prediction(page: Page, fit: SweepFit, verdict: Verdict) -> None:
    """What was predicted before training, what came out, and what the other forms would have said."""
    told = verdict.prediction
    low, high = told.interval90
    page.section("The prediction, and what came of it")
    page.facts(
        [
            Fact("Predicted loss", f"{told.loss:.3f}", f"90%: {low:.3f} to {high:.3f}"),
            Fact("Came out", f"{verdict.loss:.3f}", _place(verdict)),
            Fact("Error", f"{verdict.relative:+.1%}", f"{verdict.error:+.3f} nats"),
            Fact("Reach", f"{told.reach:.3g}x", "the compute of the largest budget fitted"),
        ]
    )
    page.text(
        f"Prediction `{told.id}` was written at {told.created[:19]} UTC, from {len(told.runs)} runs, and its digest "
        f"covers all of them; the run `{verdict.run}` began after that. {verdict.words}"
    )
    page.pictures(Picture(prediction_figure(fit, verdict), CAPTIONS["loss"] + " The bar is the prediction (90%)."))
    page.table(
        ("form of law", "would have said", "90%", "came out", "score"),
        [
            (
                f"**{form}**" if form == told.form else form, (said.loss, f"{said.loss:.3f}"),
                f"{said.interval.low:.3f} to {said.interval.high:.3f}",
                f"{verdict.loss / said.loss - 1:+.1%}, {_side(said, verdict.loss)}",
                f"{score:.3f}" if (score := fit.comparison.overall.get(form)) is not None else "none",
            )
            for form, said in _sayings(fit, verdict).items()
        ],
        caption="Score: how each form predicted the larger of the fitted budgets from the smaller ones, miss and width "
        "together; smaller is better. It was known before the run, and nothing else decides.",
    )  # fmt: skip
    page.text(_caution(fit, verdict))


def add_law(page: Page, fit: SweepFit) -> None:
    """The family, and the best size at each budget."""
    table = fit.table
    page.section("The family and its law")
    page.text(
        f"{len(table)} models of {quantity(table.params.min())} to {quantity(table.params.max())} parameters, each "
        f"trained once on as many tokens as its budget pays for. All read the same text in the same order."
    )
    page.pictures(Picture(isoflop_curves(fit), CAPTIONS["isoflop"]))
    if "parabola" in fit.isoflop:
        line = fit.isoflop["parabola"]
        low, high = line.interval
        page.text(
            f"The best size grows as C^{line.exponent:.2f} ({fit.level:.0%}: {low:.2f} to {high:.2f}); "
            "Hoffmann et al. 2022 found about 0.5."
        )
    if fit.comparison.curvature is not None:
        page.text(fit.comparison.curvature.words)
    for warning in fit.warnings:
        page.text(f"**Note.** {warning}")


def prediction_figure(fit: SweepFit, verdict: Verdict) -> "Figure":
    """Loss over compute with all forms, the prediction's interval and the run."""
    figure = loss_against_compute(fit)
    axes, told = figure.axes[0], verdict.prediction
    low, high = told.interval90
    axes.errorbar(
        told.compute, told.loss, yerr=[[told.loss - low], [high - told.loss]], fmt="_", color="black", capsize=5,
        lw=1.6, label="prediction, 90%",
    )  # fmt: skip
    axes.plot(told.compute, verdict.loss, "o", color=COLORS[1], ms=8, zorder=5, label="what came out")
    axes.legend(fontsize=8)
    return figure


def _sayings(fit: SweepFit, verdict: Verdict) -> dict[str, Prediction]:
    """What each form says of the run."""
    told = verdict.prediction
    return {
        form: fit.predict(
            told.params, told.tokens, compute=told.compute, form=None if form == told.form else form, level=0.9
        )
        for form in fit.comparison.fits
    }


def _caution(fit: SweepFit, verdict: Verdict) -> str:
    """Which form would have misled, in a sentence."""
    errors = {form: said.loss / verdict.loss - 1 for form, said in _sayings(fit, verdict).items()}
    worst = max(errors, key=lambda form: abs(errors[form]))
    if worst == verdict.prediction.form:
        return (
            "The form that was chosen was the farthest off this time. One run proves little: `maquette verify` keeps "
            "the record over all predictions of these outputs."
        )
    fitted = fit.comparison.fits[worst]
    return (
        f"A cautionary tale: the {worst} form leaves {fitted.noise:.1%} unexplained of the runs that it was fitted to, "
        f"and would have been {abs(errors[worst]):.1%} {'too high' if errors[worst] > 0 else 'too low'} here. "
        "How well a law fits what is known says little about where it leads."
    )


def _side(said: Prediction, loss: float) -> str:
    return "inside" if said.interval.contains(loss) else "outside"


def _place(verdict: Verdict) -> str:
    if verdict.inside[0.5]:
        return "inside the 50% interval"
    return "inside the 90% interval" if verdict.inside[0.9] else "outside the 90% interval"
