"""A fit as people read it: the page with every figure and table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maquette.artifacts.page import Fact, Page, Picture
from maquette.scaling.fits.fit_card import card
from maquette.scaling.fits.fit_summary import counting_words, ends, exponent_rows, form_rows, reaches
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.plans.plan_report import quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    page.section("Suspects")
    page.text("What may bend a law beyond its runs, and whether the law's errors here go with it.")
    for suspect in fit.suspects:
        page.text(f"**{suspect.name}**: {suspect.words}")
    if not fit.suspects:
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


def _at_a_glance(facts: Mapping[str, Any]) -> list[Fact]:
    ten = next(row for row in facts["forecasts"] if row["reach"] == 10 and row["form"] == facts["form"])
    low, high = ten["interval90"]
    exponent = exponent_rows(facts)[0] if exponent_rows(facts) else ("", "none", "", "")
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
    page.table(("approach", "a in N* ~ C^a", "interval", "bias of the grid"), exponent_rows(facts))
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
    page.table(("form", "score", *reaches(facts), "loss at 10x", "90%"), form_rows(facts))
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
            (row["loss"], f"{row['loss']:.4f}"), ends(row["interval50"]), ends(row["interval90"]),
        )
        for row in facts["forecasts"]
    ]  # fmt: skip
    page.table(("reach", "form", "C", "N", "D", "loss", "50%", "90%"), rows, caption="Forecasts of the best run")
    laws = [
        (
            name, f"{law['coefficient']:.4g}", f"{law['exponent']:.4f}", ends(law["interval"]["exponent"], 4),
            f"{law['floor']:.3f}" if "floor" in law["interval"] else "none", ends(law["interval"].get("floor")),
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
                f"{found[name]:.4g}" + (f" ({ends(found['interval'][name], 3)})" if name in found["interval"] else "")
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
            [(name, f"{value:.4g}", ends(found["interval"][name], 4)) for name, value in found["parameters"].items()],
            caption=f"{form} ({found['target']}): {found['formula']}; scatter of the runs {found['noise']:.2%}",
        )
    for name, why in facts["missing"].items():
        page.text(f"**{name}** could not be fitted: {why}")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"
