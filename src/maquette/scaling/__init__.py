"""The recipe from size to every hyperparameter; laws of the loss, fitted and compared; plans made from them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.scaling.config import LAWS, Laws
    from maquette.scaling.counting import kaplan_convention, vocabulary_law
    from maquette.scaling.difference import LawDifference, compare_families
    from maquette.scaling.errors import LawError
    from maquette.scaling.extrapolation import FormComparison, compare_forms
    from maquette.scaling.families import compare_by
    from maquette.scaling.fit import Prediction, SurfaceFit, fit_surface
    from maquette.scaling.isoflop import EnvelopeFit, IsoflopFit, fit_envelope, fit_isoflop
    from maquette.scaling.next_run import Suggestion, suggest_runs
    from maquette.scaling.pipelines import compare_pipelines
    from maquette.scaling.planner import Assumptions, Plan, make_plan, preset
    from maquette.scaling.power_law import PowerLaw, PowerLawFit, fit_power_law
    from maquette.scaling.published import PublishedSurface, published_surface
    from maquette.scaling.recipe import Recipe, resolve
    from maquette.scaling.recipe_file import load_recipe, save_recipe
    from maquette.scaling.recorded import recorded_runs
    from maquette.scaling.repetition import RepetitionLaw, fit_repetition
    from maquette.scaling.runs import group_budgets, seed_noise
    from maquette.scaling.setting_law import SettingLaw, fit_setting_law
    from maquette.scaling.shape import choose_shape
    from maquette.scaling.stored_fit import find_fit, load_fit
    from maquette.scaling.surface import Allocation, LossSurface
    from maquette.scaling.sweep_figures import fit_figures
    from maquette.scaling.sweep_fit import SweepFit, fit_sweep
    from maquette.scaling.table import RunTable, read_table

_NAMES = {
    "counting": ("kaplan_convention", "vocabulary_law"),
    "difference": ("LawDifference", "compare_families"),
    "errors": ("LawError",),
    "extrapolation": ("FormComparison", "compare_forms"),
    "families": ("compare_by",),
    "fit": ("Prediction", "SurfaceFit", "fit_surface"),
    "sweep_figures": ("fit_figures",),
    "isoflop": ("EnvelopeFit", "IsoflopFit", "fit_envelope", "fit_isoflop"),
    "next_run": ("Suggestion", "suggest_runs"),
    "pipelines": ("compare_pipelines",),
    "planner": ("Assumptions", "Plan", "make_plan", "preset"),
    "power_law": ("PowerLaw", "PowerLawFit", "fit_power_law"),
    "published": ("PublishedSurface", "published_surface"),
    "config": ("LAWS", "Laws"),
    "recipe": ("Recipe", "resolve"),
    "recipe_file": ("load_recipe", "save_recipe"),
    "recorded": ("recorded_runs",),
    "repetition": ("RepetitionLaw", "fit_repetition"),
    "runs": ("group_budgets", "seed_noise"),
    "setting_law": ("SettingLaw", "fit_setting_law"),
    "shape": ("choose_shape",),
    "stored_fit": ("find_fit", "load_fit"),
    "surface": ("Allocation", "LossSurface"),
    "sweep_fit": ("SweepFit", "fit_sweep"),
    "table": ("RunTable", "read_table"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "LAWS",
    "Allocation",
    "Assumptions",
    "EnvelopeFit",
    "FormComparison",
    "IsoflopFit",
    "LawDifference",
    "LawError",
    "Laws",
    "LossSurface",
    "Plan",
    "PowerLaw",
    "PowerLawFit",
    "Prediction",
    "PublishedSurface",
    "Recipe",
    "RepetitionLaw",
    "RunTable",
    "SettingLaw",
    "Suggestion",
    "SurfaceFit",
    "SweepFit",
    "choose_shape",
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
    "load_recipe",
    "make_plan",
    "preset",
    "published_surface",
    "read_table",
    "recorded_runs",
    "resolve",
    "save_recipe",
    "seed_noise",
    "suggest_runs",
    "vocabulary_law",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
