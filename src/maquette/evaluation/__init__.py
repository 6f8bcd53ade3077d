"""How good a model is: baselines that it must beat, and tests of what it learned."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.evaluation.baselines import BaselineScore, bits_per_byte, score_baselines
    from maquette.evaluation.ngrams import KneserNey

__all__ = ["BaselineScore", "KneserNey", "bits_per_byte", "score_baselines"]

_HOMES = {
    "BaselineScore": "baselines",
    "KneserNey": "ngrams",
    "bits_per_byte": "baselines",
    "score_baselines": "baselines",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"maquette.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'maquette.evaluation' has no attribute {name!r}")
