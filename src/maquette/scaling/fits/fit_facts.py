"""A fit as plain values for `fit.json`: everything with its interval, and what was done to get it.

Terminal, MLflow and whoever reads the file later see these; the page draws from the fit itself.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from maquette.reports.tables import error_words, span, terminal_table

if TYPE_CHECKING:
    from maquette.scaling.fits.sweep_fit import SweepFit
    from maquette.scaling.laws.custom_form import CustomFit
    from maquette.scaling.laws.fit import SurfaceFit
    from maquette.scaling.laws.isoflop import IsoflopFit
    from maquette.scaling.laws.power_law import PowerLawFit
    from maquette.scaling.laws.predictor import Predictor
    from maquette.scaling.laws.token_kinds import KindPredictor

REACHES = (1.0, 10.0, 100.0)
"""Forecasts are stated at so many times the largest budget."""

LEVELS = (0.5, 0.9)


def fit_facts(fit: "SweepFit") -> dict[str, Any]:
    """All that a fit found. Intervals are `[low, high]` at the fit's level; what has no end is null."""
    comparison, table = fit.comparison, fit.table
    columns = {"N": table.params, "D": table.tokens, "C": table.compute, "loss": table.loss}
    facts = {
        **_fields(table, "source", "convention", "notes"),
        **_fields(fit, "level", "bootstrap", "seed", "form", "forced", "missing", "warnings"),
        **_fields(comparison, "chosen", "overall", "seed_noise", "kind_noise"),
        "runs": len(table),
        "left_out": [{"run": name, "reason": reason} for name, reason in table.left_out],
        "budgets": np.unique(table.budget),
        "range": {name: [column.min(), column.max()] for name, column in columns.items()},
        "headline": headline(fit),
        "forms": [score._asdict() for score in (*fit.predictor.scores, *comparison.scores)],
        "widths": {**comparison.widths, **fit.predictor.widths, **({"kinds": fit.kinds.width} if fit.kinds else {})},
        "predictor": _predictor(fit.predictor),
        "kinds": None if fit.kinds is None else _kinds(fit, fit.kinds),
        "tasks": _tasks(fit),
        "surfaces": {name: _surface(fitted.surface) for name, fitted in comparison.fits.items() if fitted.surface},
        "custom_forms": {
            name: _custom(fit, name, fitted.custom) for name, fitted in comparison.fits.items() if fitted.custom
        },
        "isoflop": {method: _isoflop(line) for method, line in fit.isoflop.items()},
        "envelope": None,
        "power_laws": {name: _law(law) for name, law in fit.power_laws.items()},
        "curvature": None if comparison.curvature is None else comparison.curvature.__dict__,
        "kaplan": None,
        "recipe_costs": [cost.__dict__ for cost in fit.recipe_costs],
        "confounders": [confounder.__dict__ for confounder in fit.confounders],
        "forecasts": forecasts(fit),
    }
    if (line := fit.envelope) is not None:
        runs = [table.names[row] for row in line.rows]
        envelope = _fields(line, "coefficient", "exponent", "interval")
        facts["envelope"] = envelope | {"loss_law": _law(line.loss_law), "runs": runs}
    if (kaplan := fit.kaplan) is not None:
        fitted = {"fitted_exponent": kaplan.exponent, "fitted_interval": kaplan.interval}
        facts["kaplan"] = fitted | _fields(kaplan.shift, "core_exponent", "total_exponent", "explained")
    plain: dict[str, Any] = _plain(facts)
    return plain


_LARGEST_LOSS = 20.0
"""Nats a token: more than guessing at random costs with any vocabulary (ln of 256,000 is 12.5)."""


def headline(fit: "SweepFit") -> str:
    """The fit in two sentences."""
    exponent = fit.exponent()
    text = f"N* ~ C^{exponent[0]:.3f} ({exponent[1].low:.3f} to {exponent[1].high:.3f}, {fit.level:.0%} interval)"
    names = {
        "minima": "the power law through the minima", "plateau": "the predictor",
        "kinds": "the laws by kind of token, for copying sets in",
    }  # fmt: skip
    name = names.get(fit.form, f"the {fit.form} form")
    how = f"By {name}, which was forced" if fit.forced else f"By {name}"
    forecast = next(row for row in forecasts(fit) if row["reach"] == 10.0 and row["form"] == fit.form)
    low, high = forecast["interval90"]
    if not (math.isfinite(low) and high < _LARGEST_LOSS):
        return (
            f"{how}: {text}. These runs do not determine the loss at ten times the largest budget "
            f"(90%: {low:.3g} to {high:.3g}): more budgets, or larger ones, would."
        )
    worst = max(high / forecast["loss"] - 1, 1 - low / forecast["loss"])
    return (
        f"{how}: {text}. At {forecast['C']:.2g} FLOPs, ten times the largest budget, expect a loss of "
        f"{forecast['loss']:.3f} nats a token (90%: {low:.3f} to {high:.3f}: within "
        f"{error_words(worst, forecast['slope'])})."
    )


def forecasts(fit: "SweepFit") -> list[dict[str, Any]]:
    """What every law expects of the best run at each of `REACHES`."""
    rows = []
    for reach in REACHES:
        compute = float(fit.comparison.largest_budget * reach)
        params, tokens = fit.best(compute)
        for form in fit.forms:
            forecast = fit.predict(params, tokens, compute=compute, form=form, levels=LEVELS)
            rows.append(
                {"reach": reach, "C": compute, "N": params, "D": tokens, "form": form, "loss": forecast.loss}
                | {f"interval{level * 100:.0f}": list(ends) for level, ends in forecast.intervals.items()}
                | {"slope": forecast.slope, "compute_factor": forecast.compute_factor(forecast.intervals[0.9][1])}
            )
    return rows


def tell(facts: Mapping[str, Any]) -> None:
    """Headline, tables and warnings at the terminal."""
    lines = [
        f"{facts['runs']} runs of {facts['source']}, {len(facts['budgets'])} budgets",
        terminal_table(*form_table(facts), "forms of law, by how they extrapolated"),
        terminal_table(*exponent_table(facts), f"N* ~ C^a ({facts['level']:.0%} intervals)"),
        facts["headline"],
        *facts["notes"],
    ]
    if facts["curvature"] is not None:
        lines.append(facts["curvature"]["words"])
    if facts["kinds"] is not None:
        lines.append(facts["kinds"]["words"])
    if facts["tasks"]:
        lines += ["The best run at ten times the largest budget:", *facts["tasks"]["words"]]
    if facts["kaplan"] is not None:
        lines.append(counting_words(facts))
    lines += [one["words"] for one in facts["confounders"] if one["name"] == "recipe" and not one["alarming"]]
    for reason in dict.fromkeys(run["reason"] for run in facts["left_out"]):
        runs = [run["run"] for run in facts["left_out"] if run["reason"] == reason]
        some = ", ".join(runs[:4]) + (" ..." if len(runs) > 4 else "")
        lines.append(f"left out: {len(runs)} ({some}): {reason}")
    _print(lines, facts["warnings"])


def tell_law(facts: Mapping[str, Any]) -> None:
    """What a stored law of another kind says (other_laws.py), at the terminal."""
    _print([facts["words"], *([f"Use it: {facts['use']}"] if facts["use"] else [])], facts["warnings"])


def _print(lines: Sequence[Any], warnings: Sequence[str]) -> None:
    console = Console()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str))
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")


def counting_words(facts: Mapping[str, Any]) -> str:
    """What Kaplan's way of counting does to the exponent, in a sentence or two."""
    kaplan = facts["kaplan"]
    if kaplan is None:
        why = facts["missing"].get("kaplan's convention", "these runs are counted so already.")
        return f"Kaplan's convention (N without the vocabulary's parameters, C = 6 N D of it): {why}"
    interval = span(kaplan["fitted_interval"], 3).replace("none", "no interval")
    fitted = (
        "the minima so counted can't be fitted"
        if kaplan["fitted_exponent"] is None
        else f"the same runs' minima give {kaplan['fitted_exponent']:.3f} ({interval})"
    )
    return (
        f"Someone who counts the core only, with C = 6 N D of it (Kaplan et al. 2020), would read N* ~ "
        f"C^{kaplan['core_exponent']:.3f} off the same surface that gives {kaplan['total_exponent']:.3f} with all "
        f"parameters; {fitted}. Of the distance from {kaplan['total_exponent']:.3f} to Kaplan's 0.73 counting alone "
        f"explains {kaplan['explained']:.0%} at these sizes."
    )


def _shown_reaches(facts: Mapping[str, Any]) -> list[float]:
    """Half a decade, and whole ones: what fits a terminal."""
    return sorted({score["reach"] for score in facts["forms"]} & {3.2, 10.0, 100.0})


def form_table(facts: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The forms by how they extrapolated: headings and rows."""
    reaches = [f"error at {reach:g}x" for reach in _shown_reaches(facts)]
    rows = []
    for forecast in (row for row in facts["forecasts"] if row["reach"] == 10):
        form = forecast["form"]
        errors = {score["reach"]: score for score in facts["forms"] if score["form"] == form}
        shown = [f"{errors[reach]['error']:+.1%}" if reach in errors else "-" for reach in _shown_reaches(facts)]
        score = facts["overall"].get(form)
        mark = " *" if form == facts["form"] else ""
        rows.append(
            (
                form + mark, "-" if score is None else f"{score:.4f}", *shown, f"{forecast['loss']:.3f}",
                span(forecast["interval90"]),
            )
        )  # fmt: skip
    return ["form", "score", *reaches, "loss at 10x", "90%"], rows


def exponent_table(facts: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, str, str, str]]]:
    """The exponent of the best size by every approach, the one that leads first: headings and rows."""
    line = facts["predictor"]["size_line"]
    shrunk = "line of minima, shrunk" + (" *" if facts["form"] in (facts["predictor"]["form"], "kinds") else "")
    rows = [(shrunk, f"{line['exponent']:.3f}", span(line["interval"]), "")]
    if facts["form"] in facts["surfaces"]:
        surface = facts["surfaces"][facts["form"]]
        rows.append(
            (f"{facts['form']} surface *", f"{surface['exponent']:.3f}", span(surface["interval"]["exponent"]), "")
        )
    for form, surface in facts["custom_forms"].items():
        low, high = surface["interval"]["exponent"]
        if not -1 < low < high < 2.5:  # it has no best size near these runs
            continue
        mark = " *" if facts["form"] == form else ""
        rows.append((f"{form}{mark}", f"{surface['exponent']:.3f}", span(surface["interval"]["exponent"]), ""))
    for method, line in facts["isoflop"].items():
        bias = "unknown" if line["bias"] is None else f"{line['bias']['exponent']:+.3f}"
        mark = " *" if facts["form"] == "minima" and method == "parabola" else ""
        rows.append((f"minima by {method}{mark}", f"{line['exponent']:.3f}", span(line["interval"]), bias))
    for form, surface in facts["surfaces"].items():
        if form != facts["form"]:
            rows.append((f"{form} surface", f"{surface['exponent']:.3f}", span(surface["interval"]["exponent"]), ""))
    if facts["envelope"] is not None:
        rows.append(("envelope", f"{facts['envelope']['exponent']:.3f}", span(facts["envelope"]["interval"]), ""))
    return ["approach", "a in N* ~ C^a", "interval", "grid bias"], rows


_OF_A_FIT = ("standard_error", "noise", "degrees_of_freedom", "residuals", "warnings")


def _fields(value: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _predictor(predictor: "Predictor") -> dict[str, Any]:
    line, surface = predictor.size_line, predictor.surface
    size_line = _fields(line, "level", "exponent", "exponent_deviation", "centre", "minima", "interval", "warnings")
    known = {"unigram_entropy": surface.unigram_entropy, "least_noise": surface.least_noise}
    return _fields(predictor, "form", "onset", "warnings") | {"size_line": size_line} | known


def _kinds(fit: "SweepFit", laws: "KindPredictor") -> dict[str, Any]:
    """The laws by kind of token: what they expect of the best run at each of `REACHES`, and the copying score there."""
    rows = []
    for reach in REACHES:
        compute = float(fit.comparison.largest_budget * reach)
        params, tokens = fit.best(compute)
        _, kinds = laws.predict(params, tokens, compute, LEVELS)
        here = {"reach": reach, "C": compute, "copying": laws.score(tokens)}
        rows += [
            here | {"kind": kind, "loss": one.loss, "interval90": one.intervals[0.9]} for kind, one in kinds.items()
        ]
    return _fields(laws, "shares", "scores", "score_now", "leads", "copied") | {"words": kind_words(laws), "rows": rows}


def _tasks(fit: "SweepFit") -> dict[str, Any]:
    """What every task's laws expect of the best run at each of `REACHES`; and what the best run scored."""
    if not fit.tasks:
        return {}
    from maquette.scaling.fits.tasks import task_words

    best = {task: int(np.argmin(law.loss)) for task, law in fit.tasks.items()}
    rows = []
    for reach in REACHES:
        compute = float(fit.comparison.largest_budget * reach)
        params, tokens = fit.best(compute)
        expected = fit.predict_tasks(params, tokens, compute)
        rows += [{"reach": reach, "C": compute, "task": task, **row} for task, row in expected.items()]
    return {
        "rows": rows,
        "words": [words for row in rows if row["reach"] == 10 for words in task_words(row["task"], row)],
        "best": {
            task: {"bits_per_byte": law.bits[best[task]], "accuracy": law.accuracy[best[task]], "runs": len(law.bits)}
            for task, law in fit.tasks.items()
        },
    }


def kind_words(laws: "KindPredictor") -> str:
    """What the laws by kind of token are for here, in a sentence or two."""
    share = (
        f"A pair of tokens that stood in the context before goes on as it did then in {laws.shares[laws.copied]:.0%}"
    )
    state = f"{share} of the text (hits); what a model gains by copying it gains there."
    if laws.scores is None:
        return f"{state} The runs have no copying score: nothing is known of when it sets in."
    if laws.leads:
        return (
            f"{state} The best run's copying score is {laws.score_now:.3f}, so the total is predicted as the mixture "
            "of the kinds, hits with the onset that the scores announce."
        )
    return (
        f"{state} The best run's copying score is {laws.score_now:.3f}: copying does not set in yet, and the total is "
        "predicted by its own law."
    )


def _surface(fit: "SurfaceFit") -> dict[str, Any]:
    surface = _fields(fit.surface, "E", "A", "B", "alpha", "beta", "gamma", "exponent")
    return surface | _fields(fit, "interval", "method", *_OF_A_FIT)


def _custom(sweep: "SweepFit", name: str, fit: "CustomFit") -> dict[str, Any]:
    exponent, interval = sweep.exponent(name)
    ends = {"exponent": exponent, "interval": {**fit.interval, "exponent": interval}}
    return _fields(fit.form, "target", "formula") | ends | _fields(fit, "parameters", *_OF_A_FIT)


def _isoflop(fit: "IsoflopFit") -> dict[str, Any]:
    laws = {name: _law(getattr(fit, name)) for name in ("params_law", "tokens_law", "loss_law")}
    optima = {"optima": [optimum._asdict() for optimum in fit.optima]}
    bias = {"bias": None if fit.bias is None else fit.bias._asdict()}
    return _fields(fit, "coefficient", "exponent", "interval", "warnings") | laws | optima | bias


def _law(fit: "PowerLawFit") -> dict[str, Any]:
    return _fields(fit, "coefficient", "exponent", "floor", "interval", "noise", "warnings")


def _plain(value: Any) -> Any:
    """As JSON has it, without NaN and infinity: null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    return float(value) if np.isfinite(value) else None
