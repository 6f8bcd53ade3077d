"""What import-linter and ruff do not see of the package's structure; `make lint` runs it.

    python .ci/structure.py

Prints, and exits 1 for: import cycles between files (imports in functions and for type checking count), names of
modules in strings that go up a layer, class names that occur twice, and public names that nothing uses.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("src", "tests", "benchmarks", "notebooks", "examples", "experiments", "conf")
"""Where a public name may be used."""

SELF_CONTAINED = ("maquette.model.hf.modeling_maquette",)
"""Files that are shipped with exported models: they repeat classes on purpose."""


class Package:
    """The files of a package below `source`, and what each imports."""

    def __init__(self, source: Path, name: str) -> None:
        self.name = name
        self.trees: dict[str, ast.Module] = {}
        self.paths: dict[str, Path] = {}
        for path in sorted((source / name).rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.paths[module] = path
            self.trees[module] = ast.parse(path.read_text(encoding="utf-8"))

    @cached_property
    def homes(self) -> dict[str, dict[str, str]]:
        """For each package: the module that a name of its `__init__` comes from, from its stub where it has one."""
        messages: dict[str, dict[str, str]] = {}
        for module, path in self.paths.items():
            if path.name != "__init__.py":
                continue
            stub = path.with_suffix(".pyi")
            tree = ast.parse(stub.read_text(encoding="utf-8")) if stub.exists() else self.trees[module]
            messages[module] = {
                alias.asname or alias.name: home
                for node in tree.body
                if isinstance(node, ast.ImportFrom) and (home := self._origin(node, module)) and self.is_module(home)
                for alias in node.names
            }
        return messages

    def is_module(self, name: str) -> bool:
        return name in self.trees

    def _origin(self, node: ast.ImportFrom, package: str) -> str:
        if not node.level:
            return node.module or ""
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    def resolve(self, module: str, name: str) -> str:
        """The module that `from module import name` reads."""
        while f"{module}.{name}" not in self.trees and name in self.homes.get(module, {}):
            module = self.homes[module][name]
        return f"{module}.{name}" if f"{module}.{name}" in self.trees else module

    def imports(self, module: str) -> Iterator[tuple[str, int]]:
        """(imported module of this package, line)."""
        package = module if self.paths[module].name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names if self.is_module(alias.name))
            elif isinstance(node, ast.ImportFrom) and self.is_module(origin := self._origin(node, package)):
                yield from ((self.resolve(origin, alias.name), node.lineno) for alias in node.names)

    def strings(self, module: str) -> Iterator[tuple[str, int]]:
        """(module of this package that a string names, or names something of, line)."""
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(self.trees[module])
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
            and isinstance(node.body[0], ast.Expr)
        }  # fmt: skip
        for node in ast.walk(self.trees[module]):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documentation:
                continue
            if re.fullmatch(rf"{self.name}(\.\w+)+", node.value):
                parts = node.value.split(".")
                while parts and ".".join(parts) not in self.trees:
                    parts.pop()
                if len(parts) > 1:
                    yield (
                        self.resolve(".".join(parts), node.value.split(".")[len(parts)])
                        if len(parts) < len(node.value.split("."))
                        else ".".join(parts),
                        node.lineno,
                    )


def cycles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of more than one node that reach each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    messages: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                messages.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return sorted(messages)


def import_cycles(package: Package) -> list[str]:
    edges = {
        module: sorted({target for target, _ in package.imports(module)} - {module}) for module in package.trees
    }  # fmt: skip
    return [f"import cycle: {', '.join(group)}" for group in cycles(edges)]


def climbing_strings(package: Package, layers: list[list[str]]) -> list[str]:
    """Strings that name a module of a higher layer. `layers`: from the highest, each a list of packages."""
    height = {name: -number for number, names in enumerate(layers) for name in names}

    def layer(module: str) -> int | None:
        return height.get(".".join(module.split(".")[:2]))

    return [
        f"{package.paths[module]}:{line}: names {target}, a layer above"
        for module in package.trees
        for target, line in package.strings(module)
        if (mine := layer(module)) is not None and (theirs := layer(target)) is not None and theirs > mine
    ]


def duplicate_classes(package: Package) -> list[str]:
    """Class names that two files define."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in package.trees.items():
        if module not in SELF_CONTAINED:
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    places[node.name.lstrip("_")].append(module)
    return [
        f"class {name} is in {', '.join(messages)}" for name, messages in sorted(places.items()) if len(messages) > 1
    ]


def unused_names(package: Package, root: Path) -> list[str]:
    """Public names at the top of a file that no file uses, not even its own."""
    counts: dict[str, int] = defaultdict(int)
    for place in PLACES:
        for path in sorted((root / place).rglob("*")):
            if path.suffix in {".py", ".yaml", ".ipynb", ".j2"}:
                for word in re.findall(r"\w+", path.read_text(encoding="utf-8")):
                    counts[word] += 1
    messages = []
    for module, tree in package.trees.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [] if _is_registered(node) else [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            else:
                continue
            messages += [
                f"{package.paths[module]}:{node.lineno}: nothing uses {name}"
                for name in names
                if not name.startswith("_") and counts[name] <= 1 and package.paths[module].name != "__init__.py"
            ]
    return messages


def _is_registered(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """A decorator other than Python's own may have told somebody of it."""
    own = {"dataclass", "cache", "lru_cache", "contextmanager", "total_ordering", "runtime_checkable", "no_grad"}
    return any(not own & set(re.findall(r"\w+", ast.unparse(one))) for one in node.decorator_list)


def problems(root: Path = ROOT, name: str = "maquette") -> list[str]:
    package = Package(root / "src", name)
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [re.findall(rf"{name}\.\w+", layer) for layer in settings["contracts"][0]["layers"]]
    return [
        *import_cycles(package), *climbing_strings(package, layers), *duplicate_classes(package),
        *unused_names(package, root),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.setrecursionlimit(10_000)
    messages = problems()
    print("\n".join(messages) or "No cycles, climbing strings, duplicate classes or unused names.")
    sys.exit(bool(messages))
