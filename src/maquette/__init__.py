"""Maquette: train a family of small language models, fit their laws, predict the big one, check the prediction.

Every stage of the command line is a function here: `from maquette import train; train(overrides=["size=10k"])`. (Two
are called otherwise in Python: `maquette import` is `import_`, and `maquette.corpus` is a package: its stage is
`maquette.cli.command_line.functions.corpus`.) Importing this package imports nothing heavy; each package loads what it
needs when it is used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        try:
            return importlib.import_module("maquette.cli.command_line.functions").function_of(name)
        except KeyError:
            pass
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
