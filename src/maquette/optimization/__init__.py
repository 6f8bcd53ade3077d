"""Optimisers, learning rate schedules, and which parameters are decayed."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.optimization.groups import ParameterGroups, optimizer_groups, parameter_groups
    from maquette.optimization.optimization import Optimization
    from maquette.optimization.optimizers import Muon, OptimizerPair, build_optimizer
    from maquette.optimization.schedules import (
        ConstantSchedule,
        CosineSchedule,
        LinearSchedule,
        Schedule,
        WSDSchedule,
        build_schedule,
    )

__all__ = [
    "ConstantSchedule",
    "CosineSchedule",
    "LinearSchedule",
    "Muon",
    "Optimization",
    "OptimizerPair",
    "ParameterGroups",
    "Schedule",
    "WSDSchedule",
    "build_optimizer",
    "build_schedule",
    "optimizer_groups",
    "parameter_groups",
]

_HOMES = {
    "ParameterGroups": "groups",
    "optimizer_groups": "groups",
    "parameter_groups": "groups",
    "Optimization": "optimization",
    "Muon": "optimizers",
    "OptimizerPair": "optimizers",
    "build_optimizer": "optimizers",
    "ConstantSchedule": "schedules",
    "CosineSchedule": "schedules",
    "LinearSchedule": "schedules",
    "Schedule": "schedules",
    "WSDSchedule": "schedules",
    "build_schedule": "schedules",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
