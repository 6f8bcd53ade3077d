"""Optimisers, courses of the learning rate, and which parameters are decayed."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.optimization.groups import ParameterGroups, parameter_groups
    from maquette.optimization.optimizers import OptimizerPair, build_optimizer
    from maquette.optimization.schedules import Schedule, build_schedule

__all__ = [
    "OptimizerPair",
    "ParameterGroups",
    "Schedule",
    "build_optimizer",
    "build_schedule",
    "parameter_groups",
]

_HOMES = {
    "ParameterGroups": "groups",
    "parameter_groups": "groups",
    "OptimizerPair": "optimizers",
    "build_optimizer": "optimizers",
    "Schedule": "schedules",
    "build_schedule": "schedules",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
