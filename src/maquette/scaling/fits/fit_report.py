"""A fit as people read it: the page with every figure and table, and the few lines at the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maquette.artifacts.page import Fact, Page, Picture
from maquette.scaling.fits.fit_card import card
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.plans.plan_report import quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

CAPTIONS = {
    "isoflop": "Loss over size at each budget. The minimum of a curve is the best size for that compute; a curve "
    "that still falls at its edge has none.",
    "best": "The best size and the tokens that go with it, over compute; dashed: the largest budget.",
    "loss": "The best loss that compute buys. To the right of the dashed line forms extrapolate, and differ.",
    "envelope": "Approach 1 of Hoffmann et al. 2022: it knows only the best run of each budget.",
    "surface": "The fitted surface with the runs on it; the line is the best allocation of each compute.",
    "residuals": "What each form leaves unexplained, run by run. A pattern over compute or size: the form is wrong.",
}


def fit_page(
    fit: SweepFit, facts: Mapping[str, Any], figures: Mapping[str, "Figure"], versions: Mapping[str, str]
) -> Page:
    """The page. `facts` are the fit's (`fit_facts`), `figures` by name (`fit_figures`)."""
    table = fit.table
    page = Page(f"Laws of {table.source}", lead=facts["headline"], eyebrow="Scaling laws")
    page.section("In short")
    page.facts(_at_a_glance(facts))
    if facts["warnings"]:
        page.heading("Before you trust it")
        for warning in facts["warnings"]:
            page.text(warning)
    for name, title in (("isoflop", "Best size at each budget"), ("loss", "Loss against compute")):
        page.section(title)
        page.pictures(Picture(figures[name], CAPTIONS[name]))
        if name == "isoflop":
            _isoflop(page, facts, figures)
        else:
            _forms(page, fit, facts)
    page.section("Surface")
    if "surface" in figures:
        page.pictures(Picture(figures["surface"], CAPTIONS["surface"]))
    _parameters(page, facts)
    page.section("Residuals")
    page.pictures(Picture(figures["residuals"], CAPTIONS["residuals"]))
    page.section("Confounders")
    page.text("What may bend a law beyond its runs, and whether the law's errors here go with it.")
    for confounder in fit.confounders:
        page.text(f"**{confounder.name}**: {confounder.words}")
    if not fit.confounders:
        page.text("The runs recorded nothing that could be asked: no epochs, no copying score, no depth or batch.")
    page.section("Counting")
    page.text(counting_words(facts))
    page.section("Card")
    page.text("What somebody else needs to repeat this fit, after the checklist of Li et al. 2025.")
    for section, answers in card(fit, versions).items():
        page.table((section, "answer"), answers)
    page.section("Runs")
    rows = zip(table.names, table.params, table.tokens, table.compute, table.loss, fit.residuals(), strict=True)
    page.table(
        ("run", "N", "D", "C", "loss", "loss over law, less one"),
        [
            (name, (n, quantity(n)), (d, quantity(d)), (c, f"{c:.3g}"), (loss, f"{loss:.4f}"), (left, f"{left:+.2%}"))
            for name, n, d, c, loss, left in rows
        ],
    )
    return page


def summary(facts: Mapping[str, Any]) -> "list[Table]":
    """The tables for the terminal."""
    from rich.table import Table

    forms = Table(title="forms of law, by how they extrapolated", title_justify="left")
    for heading in ("form", "score", *_reaches(facts), "at 10x", "90%"):
        forms.add_column(heading, justify="left" if heading == "form" else "right")
    for row in _form_rows(facts):
        forms.add_row(*row)
    lines = Table(title=f"N* ~ C^a ({facts['level']:.0%} intervals)", title_justify="left")
    for heading in ("approach", "a", "interval", "bias of the grid"):
        lines.add_column(heading, justify="left" if heading == "approach" else "right")
    for line in _exponent_rows(facts):
        lines.add_row(*line)
    return [forms, lines]


def _at_a_glance(facts: Mapping[str, Any]) -> list[Fact]:
    ten = next(row for row in facts["forecasts"] if row["reach"] == 10 and row["form"] == facts["form"])
    low, high = ten["interval90"]
    exponent = _exponent_rows(facts)[0] if _exponent_rows(facts) else ("", "none", "", "")
    return [
        Fact("runs", f"{facts['runs']}", f"{len(facts['budgets'])} budgets, {len(facts['left_out'])} left out"),
        Fact("form to predict with", facts["form"], "forced" if facts["forced"] else facts["chosen"]),
        Fact("N* ~ C^a", exponent[1], f"{exponent[0]}: {exponent[2]}"),
        Fact(f"loss at {ten['C']:.2g} FLOPs", f"{ten['loss']:.3f}", f"90%: {low:.3f} to {high:.3f}"),
        Fact("noise of the seed", _share(facts["seed_noise"]), "of the loss"),
    ]


def _isoflop(page: Page, facts: Mapping[str, Any], figures: Mapping[str, "Figure"]) -> None:
    if "best" in figures:
        page.pictures(Picture(figures["best"], CAPTIONS["best"]))
    page.table(("approach", "a in N* ~ C^a", "interval", "bias of the grid"), _exponent_rows(facts))
    for method, line in facts["isoflop"].items():
        page.table(
            ("budget (FLOPs)", "N*", "D*", "D*/N*", "loss"),
            [
                (
                    f"{o['budget']:.3g}", (o["params"], quantity(o["params"])), (o["tokens"], quantity(o["tokens"])),
                    (o["tokens"] / o["params"], f"{o['tokens'] / o['params']:.1f}"), (o["loss"], f"{o['loss']:.4f}"),
                )
                for o in line["optima"]
            ],
            caption=f"Minima by {method}",
        )  # fmt: skip
    if facts["curvature"] is not None:
        page.text(facts["curvature"]["words"])
    if "envelope" in figures:
        page.heading("Envelope")
        page.pictures(Picture(figures["envelope"], CAPTIONS["envelope"]))


def _forms(page: Page, fit: SweepFit, facts: Mapping[str, Any]) -> None:
    page.text(
        "Each form was fitted to the smaller budgets and predicted the larger ones. The score is the mean interval "
        "score of log loss, width and miss together: smaller is better. In-sample fit decides nothing."
    )
    page.table(("form", "score", *_reaches(facts), "loss at 10x", "90%"), _form_rows(facts))
    page.table(
        ("form", "reach", "score", "mean error", "inside 90%", "runs"),
        [
            (s["form"], f"{s['reach']:g}x", (s["score"], f"{s['score']:.4f}"), f"{s['error']:+.2%}",
             f"{s['covered']:.0%}", s["runs"])
            for s in facts["forms"]
        ],
        caption="Every form at every reach",
    )  # fmt: skip
    if facts["chosen"] in facts["overall"]:
        page.text(f"Chosen: **{facts['chosen']}**.")
    else:
        page.text(f"**{facts['chosen'].capitalize()}**: all forms are shown, and the minima's power law leads.")
    for name in facts["overall"]:
        page.text(fit.comparison.cost_of(name))
    rows = [
        (
            f"{row['reach']:g}x", row["form"], f"{row['C']:.2g}", quantity(row["N"]), quantity(row["D"]),
            (row["loss"], f"{row['loss']:.4f}"), _ends(row["interval50"]), _ends(row["interval90"]),
        )
        for row in facts["forecasts"]
    ]  # fmt: skip
    page.table(("reach", "form", "C", "N", "D", "loss", "50%", "90%"), rows, caption="Forecasts of the best run")
    laws = [
        (
            name, f"{law['coefficient']:.4g}", f"{law['exponent']:.4f}", _ends(law["interval"]["exponent"], 4),
            f"{law['floor']:.3f}" if "floor" in law["interval"] else "none", _ends(law["interval"].get("floor")),
        )
        for name, law in facts["power_laws"].items()
    ]  # fmt: skip
    if laws:
        page.table(
            ("along the best runs", "coefficient", "exponent", "interval", "floor", "interval of the floor"), laws
        )


def _parameters(page: Page, facts: Mapping[str, Any]) -> None:
    names = ("E", "A", "B", "alpha", "beta", "gamma", "exponent")
    rows = [
        (
            form,
            *(
                f"{found[name]:.4g}" + (f" ({_ends(found['interval'][name], 3)})" if name in found["interval"] else "")
                for name in names
            ),
            f"{found['noise']:.2%}",
        )
        for form, found in facts["surfaces"].items()
    ]
    if rows:
        page.table(("form", *names, "scatter of the runs"), rows, caption="E + (A/N^alpha + B/D^beta)^gamma")
    for form, found in facts["custom_forms"].items():
        page.table(
            ("parameter", "value", "interval"),
            [(name, f"{value:.4g}", _ends(found["interval"][name], 4)) for name, value in found["parameters"].items()],
            caption=f"{form} ({found['target']}): {found['formula']}; scatter of the runs {found['noise']:.2%}",
        )
    for name, why in facts["missing"].items():
        page.text(f"**{name}** could not be fitted: {why}")


def counting_words(facts: Mapping[str, Any]) -> str:
    """What Kaplan's way of counting does to the exponent, in a sentence or two."""
    kaplan = facts["kaplan"]
    if kaplan is None:
        why = facts["missing"].get("kaplan's convention", "these runs are counted so already.")
        return f"Kaplan's convention (N without the vocabulary's parameters, C = 6 N D of it): {why}"
    fitted = (
        "the minima so counted can't be fitted"
        if kaplan["fitted_exponent"] is None
        else f"the same runs' minima give {kaplan['fitted_exponent']:.3f} ({_ends(kaplan['fitted_interval'], 3)})"
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


def _reaches(facts: Mapping[str, Any]) -> list[str]:
    return [f"error at {reach:g}x" for reach in _shown_reaches(facts)]


def _form_rows(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
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
                _ends(forecast["interval90"]),
            )
        )  # fmt: skip
    return rows


def _exponent_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    if facts["form"] in facts["surfaces"]:
        found = facts["surfaces"][facts["form"]]
        rows.append(
            (f"{facts['form']} surface *", f"{found['exponent']:.3f}", _ends(found["interval"]["exponent"]), "")
        )
    for form, found in facts["custom_forms"].items():
        mark = " *" if facts["form"] == form else ""
        rows.append((f"{form}{mark}", f"{found['exponent']:.3f}", _ends(found["interval"]["exponent"]), ""))
    for method, line in facts["isoflop"].items():
        bias = "unknown" if line["bias"] is None else f"{line['bias']['exponent']:+.3f}"
        mark = " *" if facts["form"] == "minima" and method == "parabola" else ""
        rows.append((f"minima by {method}{mark}", f"{line['exponent']:.3f}", _ends(line["interval"]), bias))
    for form, found in facts["surfaces"].items():
        if form != facts["form"]:
            rows.append((f"{form} surface", f"{found['exponent']:.3f}", _ends(found["interval"]["exponent"]), ""))
    if facts["envelope"] is not None:
        rows.append(("envelope", f"{facts['envelope']['exponent']:.3f}", _ends(facts["envelope"]["interval"]), ""))
    return rows


def _ends(interval: Any, digits: int = 3) -> str:
    if interval is None or None in interval:
        return "none"
    low, high = interval
    if max(abs(low), abs(high)) >= 1000:
        return f"{low:.3g} to {high:.3g}"
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"
