"""SHA-256 of code that is not ours, so that a run whose objective was edited is trained again and not taken for old.

Found from names alone: nothing is imported, so a finished run is recognised without torch or the user's package.
"""

import ast
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.targets import module_spec, split_target

# Libraries whose version a run's record holds; a difference there warns and does not invalidate.
_KNOWN = frozenset(
    {"maquette", "hydra_plugins", "torch", "lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics",
     "hydra", "omegaconf", "mlflow", "numpy", "scipy", "tokenizers", "transformers", "datasets"}
)  # fmt: skip


def code_digest(*parts: Any) -> dict[str, str]:
    """`{module: SHA-256 of its source}` of the modules that `parts` name, sorted by name.

    A part is a dotted name (`package.module.Name` or `package.module:Name`) or a container, such as a resolved config,
    every `_target_` of which counts. With a module count those of the user's own that it imports, also where a package
    only passes a name on (`from .model import Attention` in its `__init__.py`). Left out are Python's own modules,
    ours and the libraries we stand on; of other installed packages the named module alone counts.
    Raises `ConfigError` where there is no such module.
    """
    digests: dict[str, str] = {}
    for dotted, key in _targets(parts):
        module, _ = split_target(dotted, key=key)
        _add(module, digests)
    return dict(sorted(digests.items()))


def _targets(part: Any, key: str = "_target_") -> list[tuple[str, str]]:
    if isinstance(part, str):
        return [(part, key)]
    if isinstance(part, Mapping):
        own = [(part["_target_"], "_target_")] if isinstance(part.get("_target_"), str) else []
        inner = [value for value in part.values() if not isinstance(value, str)]
        return own + _targets(inner)
    if isinstance(part, list | tuple):
        # A string in a list within a config is a value; only those given directly are names.
        return [
            target
            for item in part
            if not (isinstance(item, str) and isinstance(part, list))
            for target in _targets(item)
        ]
    return []


def _add(module: str, digests: dict[str, str]) -> None:
    top = module.split(".")[0]
    if module in digests or top in _KNOWN or (top in sys.stdlib_module_names and module != "__main__"):
        return
    spec = module_spec(module)
    origin = None if spec is None else spec.origin
    if origin is None or not Path(origin).is_file():
        if module == "__main__":
            raise ConfigError(
                "What is defined in a notebook or typed into Python has no file whose change could be noticed.",
                "Put it into a module, and name it by package.module.Name.",
            )
        return  # a package without __init__.py holds no code
    content = Path(origin).read_bytes()
    digests[module] = hashlib.sha256(content).hexdigest()
    if not {"site-packages", "dist-packages"} & set(Path(origin).parts):
        package = module if Path(origin).name == "__init__.py" else module.rpartition(".")[0]
        for imported in _imports(content, package):
            _add_own(imported, digests)


def _add_own(module: str, digests: dict[str, str]) -> None:
    spec = None if module.split(".")[0] in _KNOWN | sys.stdlib_module_names else module_spec(module)
    if spec is not None and spec.origin and not {"site-packages", "dist-packages"} & set(Path(spec.origin).parts):
        _add(module, digests)


def _imports(source: bytes, package: str) -> list[str]:
    """The modules that a source file imports, wherever in it; `package` is what its relative imports start from."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a compiled extension, or a file whose import will say what is wrong
        return []
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            imported += [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
    return list(dict.fromkeys(imported))
