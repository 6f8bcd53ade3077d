"""Hugging Face folders, read and written: Llama, Qwen2, Qwen3, GPT-2; other options with modelling code beside them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.model.hf.folder import FAMILIES, fill, load, save

__all__ = ["FAMILIES", "fill", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("maquette.model.hf.folder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
