"""A fit in pictures: one function a figure, all on the same runs and in the same colours."""

from typing import TYPE_CHECKING

import numpy as np

from maquette.reports import quantity
from maquette.reports.figures import COLORS, draw_law, new_figure, plain_ticks, size_colors
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.runs import Array
from maquette.scaling.laws.token_kinds import KindPredictor
from maquette.statistics import percentile_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORM_COLORS = {
    "plateau": "black",
    "kinds": COLORS[5],
    "minima": COLORS[0],
    "kaplan": COLORS[2],
    "additive": COLORS[1],
    "general": COLORS[4],
}
FARTHEST = 100.0
"""Extrapolations are drawn up to so many times the largest budget."""

CAPTIONS = {
    "isoflop": "Loss over size at each budget. The minimum of a curve is the best size for that compute; a curve "
    "that still falls at its edge has none.",
    "best": "The best size and the tokens that go with it, over compute; dashed: the largest budget.",
    "loss": "The best loss that compute buys. To the right of the dashed line forms extrapolate, and differ.",
    "token_kinds": "Loss by kind of token of the best run at each budget, and what their laws expect (90%). Hits bend "
    "where copying sets in, as the copying score announces; the others go on.",
    "envelope": "Approach 1 of Hoffmann et al. 2022: it knows only the best run of each budget.",
    "surface": "The fitted surface with the runs on it; the line is the best allocation of each compute.",
    "residuals": "What each form leaves unexplained, run by run, from the smallest models (blue) to the "
    "largest (green). A pattern over compute or size: the form is wrong.",
}


def fit_figures(fit: SweepFit) -> dict[str, "Figure"]:
    """Every figure that the fit allows, by the name of its file."""
    drawn = {"isoflop": isoflop_curves(fit), "loss": loss_against_compute(fit), "residuals": residuals(fit)}
    if fit.isoflop:
        drawn["best"] = best_lines(fit)
    if fit.kinds is not None:
        drawn["token_kinds"] = token_kinds(fit, fit.kinds)
    if fit.envelope is not None:
        drawn["envelope"] = envelope(fit)
    if any(form_fit.surface is not None for form_fit in fit.comparison.fits.values()):
        drawn["surface"] = contours(fit)
    return drawn


def isoflop_curves(fit: SweepFit) -> "Figure":
    """Loss over N at each budget, its parabola, and its minimum by parabola and by Akima's spline."""
    figure, axes = new_figure(width=7.2, height=4.6)
    table, colors = fit.table, size_colors(len(fit.curves))
    marks = {"parabola": "*", "akima": "D"}
    for curve, color in zip(fit.curves, colors, strict=True):
        params, loss = table.params[curve.rows], table.loss[curve.rows]
        axes.plot(params, loss, "o", ms=4, color=color, label=f"{curve.budget:.2g} FLOPs")
        if not curve.minimum:
            continue
        x = np.log(params)
        parabola = np.polyfit(x - x.mean(), np.log(loss), 2)
        fine = np.linspace(x.min(), x.max(), 80)
        axes.plot(np.exp(fine), np.exp(np.polyval(parabola, fine - x.mean())), color=color, lw=1)
        for method, minimum in curve.minimum.items():
            if minimum.edge:
                if method == "parabola":
                    axes.annotate(
                        "edge", (np.exp(minimum.x), np.exp(minimum.y)), textcoords="offset points", xytext=(0, -13),
                        ha="center", fontsize=8, color=COLORS[1],
                    )  # fmt: skip
                continue
            shape = {"marker": marks[method], "ms": 11 if method == "parabola" else 6, "mfc": "none", "ls": ""}
            axes.plot(np.exp(minimum.x), np.exp(minimum.y), color="black", **shape)
    for method, mark in marks.items():
        axes.plot([], [], mark, color="black", mfc="none", label=f"minimum by {method}")
    axes.set(xscale="log", xlabel=_params_label(fit), ylabel="loss (nats per token)", title="IsoFLOP curves")
    axes.legend(fontsize=8, ncols=2)
    return figure


def best_lines(fit: SweepFit) -> "Figure":
    """N*(C) and D*(C): minima by both methods, the lines through them, and their intervals."""
    figure, panels = new_figure(1, 2, width=5.2, height=4.0)
    compute = np.geomspace(fit.table.budget.min(), fit.table.budget.max() * FARTHEST, 60)
    for axes, name in zip(panels, ("params", "tokens"), strict=True):
        for (method, line), color in zip(fit.isoflop.items(), COLORS, strict=False):
            law = line.params_law if name == "params" else line.tokens_law
            points = [(optimum.budget, getattr(optimum, name)) for optimum in line.optima]
            low, high = law.interval["exponent"]
            axes.plot(*np.array(points).T, "o" if method == "parabola" else "D", color=color, ms=5, mfc="none")
            label = f"{method}: C^{law.exponent:.3f}"
            label += f" ({low:.3f} to {high:.3f})" if np.isfinite(high - low) else ""
            draw_law(axes, compute, law, color, label, level=fit.level)
        if name == "tokens" and "parabola" in fit.isoflop:
            twenty = 20 * fit.isoflop["parabola"].params_law.law.value(compute)
            axes.plot(compute, twenty, ":", color="gray", label="20 tokens a parameter")
        axes.axvline(fit.table.budget.max(), color="gray", lw=0.8, ls="--")
        symbol = "parameters N*" if name == "params" else "tokens D*"
        axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel=symbol, title=f"Best {symbol}")
        axes.legend(fontsize=8)
    return figure


def loss_against_compute(fit: SweepFit) -> "Figure":
    """Loss of the best run over compute: the runs' own, and what each form expects beyond them, with intervals."""
    figure, axes = new_figure(width=7.6, height=4.8)
    table = fit.table
    budgets = np.unique(table.budget)
    compute = np.geomspace(budgets[0], budgets[-1] * FARTHEST, 40)
    axes.plot(table.compute, table.loss, ".", color="gray", ms=4, alpha=0.6, label="runs")
    best = np.array([fit.best(float(at)) for at in compute]).T
    for form in fit.forms:
        forecast = fit.predict(*best, compute=compute, form=form)
        beyond = compute > budgets[-1]
        chosen = form == fit.form
        color = FORM_COLORS.get(form, COLORS[3])
        axes.plot(
            compute, forecast.loss, color=color, lw=2.2 if chosen else 1.2, ls="-" if chosen else "--",
            label=form + (" (to predict with)" if chosen else ""),
        )  # fmt: skip
        ends = np.array(forecast.intervals[0.9]).T
        finite = beyond & np.all(np.isfinite(ends), axis=1)
        axes.fill_between(
            compute[finite], ends[finite, 0], ends[finite, 1], color=color, alpha=0.18 if chosen else 0.06, lw=0
        )
    if "parabola" in fit.isoflop:
        optima = fit.isoflop["parabola"].optima
        axes.plot(
            [o.budget for o in optima],
            [o.loss for o in optima],
            "k*",
            ms=10,
            mfc="white",
            label="minima of the budgets",
        )
    axes.axvline(budgets[-1], color="gray", lw=0.8, ls="--")
    farthest = [fit.predict(*best[:, -1], compute=compute[-1], form=form).loss for form in fit.forms]
    axes.set_ylim(0.9 * min(float(table.loss.min()), *farthest), 1.05 * float(np.quantile(table.loss, 0.95)))
    axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel="loss (nats per token)")
    axes.set_title("Loss against compute, and what each form expects (90%)")
    plain_ticks(axes.yaxis)
    axes.legend(fontsize=8)
    return figure


def token_kinds(fit: SweepFit, laws: KindPredictor) -> "Figure":
    """Left the loss by kind of token over compute, right the copying score over tokens seen."""
    figure, (left, right) = new_figure(1, 2, width=5.2, height=4.0)
    table, losses = fit.table, fit.table.token_kinds
    budgets = np.unique(table.budget)
    rows = [here[np.argmin(table.loss[here])] for here in (np.flatnonzero(table.budget == one) for one in budgets)]
    compute = np.geomspace(budgets[0], budgets[-1] * FARTHEST, 40)
    params, tokens = np.array([fit.best(float(at)) for at in compute]).T
    _, forecasts = laws.predict(params, tokens, compute, (0.9,))
    for (kind, forecast), color in zip(forecasts.items(), COLORS, strict=False):
        left.plot(compute, forecast.loss, color=color, label=f"{kind} ({laws.shares[kind]:.0%} of the text)")
        left.fill_between(compute, *forecast.intervals[0.9], where=compute > budgets[-1], color=color, alpha=0.15, lw=0)
        left.plot(table.compute[rows], losses[kind][0][rows], "o", color=color, ms=4)
    left.axvline(budgets[-1], color="gray", lw=0.8, ls="--")
    left.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel="loss (nats per token)")
    left.set_title("Loss by kind of token")
    plain_ticks(left.yaxis)
    left.legend(fontsize=8)
    if table.copying is not None:
        right.plot(table.tokens, table.copying, ".", color="gray", alpha=0.6, label="runs")
    if laws.scores is not None:
        right.plot(*laws.scores.T, "o", color=COLORS[0], label="best run of each budget")
        right.plot(tokens, laws.score(tokens), color=COLORS[0], label="carried on")
        right.legend(fontsize=8)
    right.axvline(table.tokens[rows[-1]], color="gray", lw=0.8, ls="--")
    right.set(xscale="log", xlabel="training tokens D", ylabel="copying score", title="Copying from the context")
    return figure


def envelope(fit: SweepFit) -> "Figure":
    """Approach 1: the runs that no cheaper run beats."""
    figure, axes = new_figure(width=6.6, height=4.2)
    table, fitted = fit.table, fit.envelope
    assert fitted is not None
    rows = np.array(fitted.rows)
    axes.plot(table.compute, table.loss, ".", color="gray", alpha=0.6, label="runs")
    axes.plot(table.compute[rows], table.loss[rows], "o", color=COLORS[0], label="no cheaper run is better")
    compute = np.geomspace(table.compute.min(), table.compute.max() * 10, 50)
    law = fitted.loss_law
    axes.plot(compute, law.law.value(compute), color=COLORS[0], label=f"L ~ C^{law.exponent:.3f}")
    for row in rows:
        axes.annotate(
            quantity(table.params[row]), (table.compute[row], table.loss[row]), textcoords="offset points",
            xytext=(0, -14), ha="center", fontsize=7,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel="loss (nats per token)")
    plain_ticks(axes.yaxis)
    low, high = fitted.interval
    axes.set_title(f"Envelope of final losses: N* ~ C^{fitted.exponent:.3f} ({low:.3f} to {high:.3f})")
    axes.legend(fontsize=8)
    return figure


def contours(fit: SweepFit) -> "Figure":
    """The surface over N and D, the runs on it, and the line of best allocations with its interval."""
    figure, axes = new_figure(width=6.8, height=4.8)
    table, surface = fit.table, fit.surface
    params = np.geomspace(table.params.min() / 2, table.params.max() * 10, 80)
    tokens = np.geomspace(table.tokens.min() / 2, table.tokens.max() * 10, 80)
    loss = surface.surface.loss(params[None, :], tokens[:, None])
    drawn = axes.contour(params, tokens, loss, levels=14, cmap="viridis", linewidths=1)
    axes.clabel(drawn, fontsize=7, fmt="%.2f")
    axes.scatter(
        table.params, table.tokens, c=table.loss, cmap="viridis", norm=drawn.norm, s=22, edgecolors="black",
        linewidths=0.5, zorder=3,
    )  # fmt: skip
    scale = 6 / fit.flops_per_product
    compute = np.geomspace(table.budget.min(), table.budget.max() * FARTHEST, 30)
    best = surface.surface.optimal(compute * scale)
    axes.plot(best.params, best.tokens, color=COLORS[1], lw=2, label=f"best by the {surface.form} form")
    if len(surface.samples):
        low, high = _params_band(surface.samples, compute * scale)
        product = compute / fit.flops_per_product
        axes.fill(
            np.concatenate([low, high[::-1]]), np.concatenate([product / low, (product / high)[::-1]]),
            color=COLORS[1], alpha=0.15, lw=0, label="90% interval",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=_params_label(fit), ylabel="training tokens D")
    axes.set(xlim=(params[0], params[-1]), ylim=(tokens[0], tokens[-1]))
    axes.set_title("Loss surface (nats per token)")
    axes.legend(fontsize=8, loc="lower right")
    return figure


def residuals(fit: SweepFit) -> "Figure":
    """What each form leaves unexplained, run by run, over compute and coloured by size."""
    forms, noises = list(fit.forms), fit.noise
    figure, panels = new_figure(1, len(forms), width=3.4, height=3.4)
    table, by_size = fit.table, np.argsort(fit.table.params)
    for axes, form in zip(np.atleast_1d(panels), forms, strict=True):
        left = 100 * fit.residuals(form)
        axes.scatter(table.compute[by_size], left[by_size], c=size_colors(len(by_size)), s=18)
        axes.axhline(0, color="black", lw=0.8)
        noise = 100 * noises[form]
        axes.axhspan(-noise, noise, color="gray", alpha=0.12, lw=0)
        axes.set(xscale="log", xlabel="compute C (FLOPs)", ylabel="relative residual (%)", title=form)
        # The minima's law speaks of runs near the best size only; far ones must not hide the rest.
        limit = max(1.2 * float(np.quantile(np.abs(left), 0.9)), 2 * noise)
        axes.set_ylim(-limit, limit)
    return figure


def _params_band(samples: Array, compute: Array) -> tuple[Array, Array]:
    """The 90% interval of N* at each compute, from resampled surfaces."""
    _, first, second, alpha, beta, _ = (column[:, None] for column in samples.T)
    with np.errstate(over="ignore"):
        logs = (np.log(alpha * first) - np.log(beta * second)) / (alpha + beta)
    params = np.exp(logs + np.log(compute / 6) * beta / (alpha + beta))
    ends = np.array([percentile_interval(column, 0.9) for column in params.T])
    return ends[:, 0], ends[:, 1]


def _params_label(fit: SweepFit) -> str:
    return "parameters N (core only)" if fit.table.convention == "kaplan" else "parameters N (core and head)"
