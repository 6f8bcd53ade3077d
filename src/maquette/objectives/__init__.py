"""What models are trained for: each objective a loss and its metrics, wired to an optimiser and a schedule."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.objectives.base import Metrics, Objective, Optimization
    from maquette.objectives.dpo import DirectPreferenceOptimization
    from maquette.objectives.ppo import ProximalPolicyOptimization
    from maquette.objectives.pretrain import Pretraining
    from maquette.objectives.reward import RewardModelling
    from maquette.objectives.sft import SupervisedFineTuning

__all__ = [
    "DirectPreferenceOptimization",
    "Metrics",
    "Objective",
    "Optimization",
    "Pretraining",
    "ProximalPolicyOptimization",
    "RewardModelling",
    "SupervisedFineTuning",
]

_HOMES = {
    "DirectPreferenceOptimization": "dpo",
    "Metrics": "base",
    "Objective": "base",
    "Optimization": "base",
    "Pretraining": "pretrain",
    "ProximalPolicyOptimization": "ppo",
    "RewardModelling": "reward",
    "SupervisedFineTuning": "sft",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
