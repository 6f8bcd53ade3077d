"""A prediction and what came of it: what every form of law would have said, and the picture."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from maquette.reports.figures import COLORS
from maquette.scaling.fits.sweep_figures import isoflop_curves, loss_against_compute
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.forecast import Forecast
from maquette.scaling.predictions.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PredictionReport:
    """The law that predicted, and the verdict on what it said."""

    fit: SweepFit
    verdict: Verdict

    @cached_property
    def by_form(self) -> dict[str, Forecast]:
        """What each form of law says of the run, with its 90% interval."""
        prediction = self.verdict.prediction
        return {
            form: self.fit.predict(
                prediction.params,
                prediction.tokens,
                compute=prediction.compute,
                form=form,
            )
            for form in self.fit.forms
        }

    @property
    def worst(self) -> tuple[str, float]:
        """The form that was the farthest off, and its relative error."""
        errors = {form: forecast.loss / self.verdict.loss - 1 for form, forecast in self.by_form.items()}
        form = max(errors, key=lambda name: abs(errors[name]))
        return form, errors[form]

    def figures(self) -> dict[str, "Figure"]:
        """The curves of the family, and loss over compute with the prediction's interval and the run."""
        figure = loss_against_compute(self.fit)
        axes, prediction = figure.axes[0], self.verdict.prediction
        low, high = prediction.interval90
        axes.errorbar(
            prediction.compute, prediction.loss, yerr=[[prediction.loss - low], [high - prediction.loss]],
            fmt="_", color="black", capsize=5, lw=1.6, label="prediction, 90%",
        )  # fmt: skip
        axes.plot(prediction.compute, self.verdict.loss, "o", color=COLORS[1], ms=8, zorder=5, label="observed")
        axes.legend(fontsize=8)
        return {"prediction": figure, "isoflop": isoflop_curves(self.fit)}
