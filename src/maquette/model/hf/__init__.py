"""Hugging Face folders, read and written: Llama, Qwen2, Qwen3, GPT-2; other options with modelling code beside them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.model.hf.folder import FAMILIES, family_of, fill, load, read_config, require_replaceable, save
    from maquette.model.hf.scalar import is_scalar, load_scalar, save_scalar
    from maquette.model.hf.weights import weight_files

_HOMES = {
    "FAMILIES": "folder",
    "family_of": "folder",
    "fill": "folder",
    "is_scalar": "scalar",
    "load": "folder",
    "load_scalar": "scalar",
    "read_config": "folder",
    "require_replaceable": "folder",
    "save": "folder",
    "save_scalar": "scalar",
    "weight_files": "weights",
}

__all__ = [
    "FAMILIES",
    "family_of",
    "fill",
    "is_scalar",
    "load",
    "load_scalar",
    "read_config",
    "require_replaceable",
    "save",
    "save_scalar",
    "weight_files",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
