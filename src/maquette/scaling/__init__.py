"""Scaling laws of the loss, fitted and compared; predictions and plans made from them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.scaling.errors import LawError
    from maquette.scaling.fits.families import compare_by
    from maquette.scaling.fits.next_run import Suggestion, suggest_runs
    from maquette.scaling.fits.recorded import recorded_runs
    from maquette.scaling.fits.stored_fit import find_fit, load_fit
    from maquette.scaling.fits.sweep_figures import fit_figures
    from maquette.scaling.fits.sweep_fit import SweepFit, fit_sweep
    from maquette.scaling.fits.table import RunTable, read_table
    from maquette.scaling.laws.counting import kaplan_convention, vocabulary_law
    from maquette.scaling.laws.difference import LawDifference, compare_families
    from maquette.scaling.laws.extrapolation import FormComparison, compare_forms
    from maquette.scaling.laws.fit import Prediction, SurfaceFit, fit_surface
    from maquette.scaling.laws.isoflop import EnvelopeFit, IsoflopFit, fit_envelope, fit_isoflop
    from maquette.scaling.laws.power_law import PowerLaw, PowerLawFit, fit_power_law
    from maquette.scaling.laws.published import PublishedSurface, published_surface
    from maquette.scaling.laws.repetition import RepetitionLaw, fit_repetition
    from maquette.scaling.laws.runs import group_budgets, seed_noise
    from maquette.scaling.laws.setting_law import SettingLaw, fit_setting_law
    from maquette.scaling.laws.surface import Allocation, LossSurface
    from maquette.scaling.plans.pipelines import compare_pipelines
    from maquette.scaling.plans.planner import Assumptions, Plan, make_plan, preset

_NAMES = {
    "laws.counting": ("kaplan_convention", "vocabulary_law"),
    "laws.difference": ("LawDifference", "compare_families"),
    "errors": ("LawError",),
    "laws.extrapolation": ("FormComparison", "compare_forms"),
    "fits.families": ("compare_by",),
    "laws.fit": ("Prediction", "SurfaceFit", "fit_surface"),
    "fits.sweep_figures": ("fit_figures",),
    "laws.isoflop": ("EnvelopeFit", "IsoflopFit", "fit_envelope", "fit_isoflop"),
    "fits.next_run": ("Suggestion", "suggest_runs"),
    "plans.pipelines": ("compare_pipelines",),
    "plans.planner": ("Assumptions", "Plan", "make_plan", "preset"),
    "laws.power_law": ("PowerLaw", "PowerLawFit", "fit_power_law"),
    "laws.published": ("PublishedSurface", "published_surface"),
    "fits.recorded": ("recorded_runs",),
    "laws.repetition": ("RepetitionLaw", "fit_repetition"),
    "laws.runs": ("group_budgets", "seed_noise"),
    "laws.setting_law": ("SettingLaw", "fit_setting_law"),
    "fits.stored_fit": ("find_fit", "load_fit"),
    "laws.surface": ("Allocation", "LossSurface"),
    "fits.sweep_fit": ("SweepFit", "fit_sweep"),
    "fits.table": ("RunTable", "read_table"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Allocation",
    "Assumptions",
    "EnvelopeFit",
    "FormComparison",
    "IsoflopFit",
    "LawDifference",
    "LawError",
    "LossSurface",
    "Plan",
    "PowerLaw",
    "PowerLawFit",
    "Prediction",
    "PublishedSurface",
    "RepetitionLaw",
    "RunTable",
    "SettingLaw",
    "Suggestion",
    "SurfaceFit",
    "SweepFit",
    "compare_by",
    "compare_families",
    "compare_forms",
    "compare_pipelines",
    "find_fit",
    "fit_envelope",
    "fit_figures",
    "fit_isoflop",
    "fit_power_law",
    "fit_repetition",
    "fit_setting_law",
    "fit_surface",
    "fit_sweep",
    "group_budgets",
    "kaplan_convention",
    "load_fit",
    "make_plan",
    "preset",
    "published_surface",
    "read_table",
    "recorded_runs",
    "seed_noise",
    "suggest_runs",
    "vocabulary_law",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
