"""What settings may say that came in a file: with a run, a prediction, a fit, a recipe or a model's folder.

Whoever types a command, or writes a folder for `--config-dir`, may name any code and read any variable of the
environment. Of a file nobody knows who wrote it. So nothing in it is looked up (`${oc.env:TOKEN}`), and the code that
it names is on a list: our classes, those of `torch.nn`, `torch.optim`, Lightning's callbacks and loggers, and what the
user's own modules define, which lie in the folder where they work or in an editable install, not in site-packages.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.reading import short
from maquette.artifacts.settings import flatten
from maquette.artifacts.targets import import_target, is_library, module_spec, split_target

_HINT = "Only a command line or a folder of --config-dir may say this. Remove it, if you trust the file."

_ALLOWED = re.compile(
    r"maquette\.(objectives|optimization|tracking|training\.callbacks)\.[A-Z]\w*"
    r"|torch\.(nn|optim|optim\.lr_scheduler|optim\.swa_utils)\.[A-Z]\w*|torch\.nn\.functional\.[a-z]\w*"
    r"|lightning\.pytorch\.(callbacks|loggers|profilers|strategies|plugins)\.[A-Z]\w*",
    re.ASCII,
)
"""Classes, and of `torch.nn` functions, that do no more than what they are for."""

_NAMING = ("_target_", "callable", "kind", "activation", "attention")
"""Settings that name code by a dotted name."""


def check_settings(values: Mapping[str, Any], source: Path | str, prefix: str = "") -> None:
    """Raises `StageError`, with the file and the key, for an interpolation, or code that is not on the list."""
    for key, value in flatten(values, prefix).items():
        for item in _texts(key, value):
            check_text(item, source, key)
        if key.rpartition(".")[2] in _NAMING and isinstance(value, str) and ("." in value or ":" in value):
            check_code(value, source, key)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, Mapping):
                    check_settings(item, source, f"{key}[{number}].")


def _texts(key: str, value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [key, *(item for item in items if isinstance(item, str))]


def check_text(value: str, source: Path | str, key: str) -> None:
    """Raises `StageError` where a text would be looked up elsewhere, as `${...}` is."""
    if "${" in value:
        raise StageError(f"{source}, {key}: {short(value, 80)} asks for a value from elsewhere.", _HINT)


def check_code(dotted: str, source: Path | str, key: str) -> None:
    """Raises `StageError` where a file names code that is neither on the list nor the user's own. What is the user's
    own is imported: a name in it may be a library's function."""
    if _ALLOWED.fullmatch(dotted.replace(":", ".")):
        return
    refused = StageError(f"{source}, {key}: {short(dotted, 80)} is not code that a file may name.", _HINT)
    try:
        module, path = split_target(dotted, key=key)
    except ConfigError as error:
        raise StageError(f"{source}, {key}: {error.message}", error.hint) from None
    if module == "torch" and len(path) == 1:
        import torch

        if not hasattr(torch.Tensor, path[0]):  # torch.sin and its like, not torch.load
            raise refused
    elif not _is_own(module) or not _is_own(getattr(import_target(dotted, key=key), "__module__", None)):
        raise refused


def _is_own(module: str | None) -> bool:
    """Whether a module is the user's own: neither Python's, nor installed, nor ours."""
    spec = None if module is None else module_spec(module)
    return spec is not None and spec.origin is not None and spec.origin.endswith(".py") and not is_library(spec.origin)
