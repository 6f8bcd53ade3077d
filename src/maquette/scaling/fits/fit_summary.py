"""A fit in a few lines at the terminal, out of the facts in `fit.json`: nothing is fitted or imported for it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def tell(facts: Mapping[str, Any]) -> None:
    """Headline, tables and warnings at the terminal."""
    console = Console()
    lines = [f"{facts['runs']} runs of {facts['source']}, {len(facts['budgets'])} budgets", *summary(facts)]
    lines.append(facts["headline"])
    if facts["curvature"] is not None:
        lines.append(facts["curvature"]["words"])
    if facts["kaplan"] is not None:
        lines.append(counting_words(facts))
    for reason in dict.fromkeys(run["reason"] for run in facts["left_out"]):
        runs = [run["run"] for run in facts["left_out"] if run["reason"] == reason]
        some = ", ".join(runs[:4]) + (" ..." if len(runs) > 4 else "")
        lines.append(f"left out: {len(runs)} ({some}): {reason}")
    for line in lines:
        console.print(line, markup=False, highlight=False)
    for warning in facts["warnings"]:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")


def summary(facts: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    forms = Table(title="forms of law, by how they extrapolated", title_justify="left")
    for heading in ("form", "score", *reaches(facts), "at 10x", "90%"):
        forms.add_column(heading, justify="left" if heading == "form" else "right")
    for row in form_rows(facts):
        forms.add_row(*row)
    lines = Table(title=f"N* ~ C^a ({facts['level']:.0%} intervals)", title_justify="left")
    for heading in ("approach", "a", "interval", "bias of the grid"):
        lines.add_column(heading, justify="left" if heading == "approach" else "right")
    for line in exponent_rows(facts):
        lines.add_row(*line)
    return [forms, lines]


def counting_words(facts: Mapping[str, Any]) -> str:
    """What Kaplan's way of counting does to the exponent, in a sentence or two."""
    kaplan = facts["kaplan"]
    if kaplan is None:
        why = facts["missing"].get("kaplan's convention", "these runs are counted so already.")
        return f"Kaplan's convention (N without the vocabulary's parameters, C = 6 N D of it): {why}"
    fitted = (
        "the minima so counted can't be fitted"
        if kaplan["fitted_exponent"] is None
        else f"the same runs' minima give {kaplan['fitted_exponent']:.3f} ({ends(kaplan['fitted_interval'], 3)})"
    )
    return (
        f"Someone who counts the core only, with C = 6 N D of it (Kaplan et al. 2020), would read N* ~ "
        f"C^{kaplan['core_exponent']:.3f} off the same surface that gives {kaplan['total_exponent']:.3f} with all "
        f"parameters; {fitted}. Of the distance from {kaplan['total_exponent']:.3f} to Kaplan's 0.73 counting alone "
        f"explains {kaplan['explained']:.0%} at these sizes."
    )


def form_rows(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
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
                ends(forecast["interval90"]),
            )
        )  # fmt: skip
    return rows


def exponent_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    if facts["form"] in facts["surfaces"]:
        found = facts["surfaces"][facts["form"]]
        rows.append((f"{facts['form']} surface *", f"{found['exponent']:.3f}", ends(found["interval"]["exponent"]), ""))
    for form, found in facts["custom_forms"].items():
        mark = " *" if facts["form"] == form else ""
        rows.append((f"{form}{mark}", f"{found['exponent']:.3f}", ends(found["interval"]["exponent"]), ""))
    for method, line in facts["isoflop"].items():
        bias = "unknown" if line["bias"] is None else f"{line['bias']['exponent']:+.3f}"
        mark = " *" if facts["form"] == "minima" and method == "parabola" else ""
        rows.append((f"minima by {method}{mark}", f"{line['exponent']:.3f}", ends(line["interval"]), bias))
    for form, found in facts["surfaces"].items():
        if form != facts["form"]:
            rows.append((f"{form} surface", f"{found['exponent']:.3f}", ends(found["interval"]["exponent"]), ""))
    if facts["envelope"] is not None:
        rows.append(("envelope", f"{facts['envelope']['exponent']:.3f}", ends(facts["envelope"]["interval"]), ""))
    return rows


def reaches(facts: Mapping[str, Any]) -> list[str]:
    return [f"error at {reach:g}x" for reach in _shown_reaches(facts)]


def _shown_reaches(facts: Mapping[str, Any]) -> list[float]:
    """Half a decade, and whole ones: what fits a terminal."""
    return sorted({score["reach"] for score in facts["forms"]} & {3.2, 10.0, 100.0})


def ends(interval: Any, digits: int = 3) -> str:
    if interval is None or None in interval:
        return "none"
    low, high = interval
    if max(abs(low), abs(high)) >= 1000:
        return f"{low:.3g} to {high:.3g}"
    return f"{low:.{digits}f} to {high:.{digits}f}"
