"""The recipe from size to every hyperparameter; laws of the loss, fitted and compared."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.scaling.recipe import LAWS, Laws, Recipe, resolve
    from maquette.scaling.shape import choose_shape

__all__ = ["LAWS", "Laws", "Recipe", "choose_shape", "resolve"]

_HOMES = {"LAWS": "recipe", "Laws": "recipe", "Recipe": "recipe", "choose_shape": "shape", "resolve": "recipe"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
