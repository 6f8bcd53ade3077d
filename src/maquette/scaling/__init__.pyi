from .fits.families import compare_by as compare_by
from .fits.next_run import Suggestion as Suggestion, suggest_runs as suggest_runs
from .fits.recorded import recorded_runs as recorded_runs
from .fits.stored_fit import find_fit as find_fit, load_fit as load_fit
from .fits.sweep_figures import fit_figures as fit_figures
from .fits.sweep_fit import SweepFit as SweepFit, fit_sweep as fit_sweep
from .fits.table import RunTable as RunTable, read_table as read_table
from .laws.counting import kaplan_convention as kaplan_convention, vocabulary_law as vocabulary_law
from .laws.difference import (
    LawDifference as LawDifference,
    compare_families as compare_families,
    decision_accuracy as decision_accuracy,
)
from .laws.extrapolation import FormComparison as FormComparison, compare_forms as compare_forms
from .laws.fit import Prediction as Prediction, SurfaceFit as SurfaceFit, fit_surface as fit_surface
from .laws.forecast import Forecast as Forecast
from .laws.isoflop import (
    EnvelopeFit as EnvelopeFit,
    IsoflopFit as IsoflopFit,
    fit_envelope as fit_envelope,
    fit_isoflop as fit_isoflop,
)
from .laws.power_law import (
    PowerLaw as PowerLaw,
    PowerLawFit as PowerLawFit,
    fit_power_law as fit_power_law,
)
from .laws.predictor import Predictor as Predictor, fit_predictor as fit_predictor
from .laws.repetition import RepetitionLaw as RepetitionLaw, fit_repetition as fit_repetition
from .laws.runs import LawError as LawError, group_budgets as group_budgets, seed_noise as seed_noise
from .laws.setting_law import SettingLaw as SettingLaw, fit_setting_law as fit_setting_law
from .laws.surface import (
    Allocation as Allocation,
    LossSurface as LossSurface,
    PublishedSurface as PublishedSurface,
    published_surface as published_surface,
)
from .laws.token_kinds import KindPredictor as KindPredictor, fit_kinds as fit_kinds
from .plans.planner import (
    Assumptions as Assumptions,
    ComputePlan as ComputePlan,
    compare_pipelines as compare_pipelines,
    make_plan as make_plan,
    preset as preset,
)
