"""Objects by their dotted name: what a `_target_`, `model.attention=` or `reward.callable=` of a user's points to.

`package.module.Name` and `package.module:Name` are the same. The current folder is searched after what is installed,
so that a file beside the user needs no PYTHONPATH and does not hide an installed package of its name.

A *node* of the config names what it builds by `_target_`, beside its arguments, as Hydra's `instantiate` takes them.
Ours are dataclasses, typed and checked where they are composed; anyone else's are plain dicts. The second half takes
both, so that nothing that uses a node has to ask which it is.
"""

import ast
import contextlib
import copy
import dataclasses
import difflib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from maquette.artifacts.errors import ConfigError, MaquetteError, StageError
from maquette.artifacts.reading import short


def search_current_folder() -> None:
    """Lets the current folder's modules be imported, also by processes that this one spawns."""
    folder = os.getcwd()  # noqa: PTH109 (sys.path holds strings)
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()


def import_target(dotted: str, *, key: str = "_target_") -> Any:
    """The object called `dotted`. `key` is the setting that named it, for the error.

    Raises `ConfigError` where there is no such module or name (with the nearest one), or where importing the module
    fails (with file and line).
    """
    search_current_folder()
    module_name, path = split_target(dotted, key=key)
    target: Any = _import(module_name, f"{key}={dotted}")
    for depth, name in enumerate(path):
        if not hasattr(target, name):
            within = ".".join([module_name, *path[:depth]])
            raise ConfigError(f"{key}={dotted}: {within} has no {name!r}.", _suggest(name, _public_names(target)))
        target = getattr(target, name)
    return target


def split_target(dotted: str, *, key: str = "_target_") -> tuple[str, list[str]]:
    """The module in a dotted name and the attributes within it: `("package.module", ["Class"])`. Imports nothing.

    Raises `ConfigError` where it is not a dotted name, or there is no such module.
    """
    search_current_folder()
    head, colon, tail = str(dotted).partition(":")
    names = head.split(".")
    if not all(name.isidentifier() for name in [*names, *(tail.split(".") if colon else [])]) or (
        len(names) == 1 and not colon
    ):
        raise ConfigError(
            f"{key}={dotted} is not the name of something in a module.",
            "Write it as package.module.Name or package.module:Name.",
        )
    if colon:
        if module_spec(head) is None:
            raise _no_module(dotted, head, key)
        return head, tail.split(".")
    for length in range(len(names) - 1, 0, -1):
        module, path = ".".join(names[:length]), names[length:]
        if module_spec(module) is not None:
            if len(path) > 1 and not _may_define(module, path[0]):
                raise _no_module(dotted, f"{module}.{path[0]}", key)
            return module, path
    raise _no_module(dotted, ".".join(names[:-1]), key)


def module_spec(name: str) -> ModuleSpec | None:
    """Where a module lies, or None. Unlike `importlib.util.find_spec` it does not import the packages above it."""
    if name == "__main__" or name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None) or ModuleSpec(
            name, None, origin=getattr(sys.modules[name], "__file__", None)
        )
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        folders = None if spec is None else spec.submodule_search_locations
        if length > 1 and folders is None:
            return None
        partial = ".".join(parts[:length])
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        spec = next((module for find in finders if find and (module := find(partial, folders)) is not None), None)
        if spec is None:
            return None
    return spec


def check_target(dotted: str, *, key: str = "_target_") -> None:
    """Raises `ConfigError` where the module is missing, can't be read, or does not define the name. Imports nothing,
    so that a misspelt one is answered at once; what only an import shows is left to `import_target`."""
    module, path = split_target(dotted, key=key)
    spec = module_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except SyntaxError as error:
        raise ConfigError(f"{key}={dotted}: {spec.origin}:{error.lineno}: {error.msg}.") from None
    known = _defined(tree.body)
    if path[0] not in known and not known & {"*", "__getattr__"}:
        raise ConfigError(f"{key}={dotted}: {module} has no {path[0]!r}.", _suggest(path[0], sorted(known)))


def _defined(statements: Sequence[ast.stmt]) -> set[str]:
    """The names that a module's statements define, `*` where it takes another's."""
    defined: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(statement.name)
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                defined |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return defined


@contextlib.contextmanager
def users_code(dotted: str, function: Any = None) -> Iterator[None]:
    """Around a call of a user's function: an error raised in it names the function, its file and its line. Where it
    does not get so far as into it, those of the `function`."""
    try:
        yield
    except MaquetteError:
        raise
    except (Exception, SystemExit) as error:
        raise StageError(f"{dotted} failed{place_of(error) or definition_of(function)}: {_words_of(error)}") from error


def definition_of(function: Any) -> str:
    """` (file:line)` of where a user's function or method is written, empty where that can't be told."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    called = function if hasattr(function, "__code__") else getattr(type(function), "__call__", None)  # noqa: B004
    code = getattr(called, "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def shown(value: Any) -> str:
    """A user's value as an error quotes it, whatever its own words are."""
    try:
        return short(repr(value), 60)
    except Exception:
        return f"a value of type {type(value).__name__}"


def _words_of(error: BaseException) -> str:
    """Type and message in one line, cut; a message of a user's own may fail too."""
    try:
        text = short(error, 500)
    except Exception:
        text = "(its message can't be shown)"
    return f"{type(error).__name__}: {text}"


def _import(module_name: str, named: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except MaquetteError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{named}: importing {module_name} failed{place_of(error)}: {_words_of(error)}") from error


def place_of(error: BaseException) -> str:
    """` at file:line`: of a syntax error its own, otherwise the innermost line that is no library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    frames = list(traceback.extract_tb(error.__traceback__))
    called = next((number for number, frame in enumerate(frames) if frame.filename.startswith(_OURS)), 0)
    frames = [frame for frame in frames[called:] if not is_library(frame.filename)]
    return f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""


_OURS = str(Path(__file__).resolve().parents[1])


def is_library(file: str) -> bool:
    """Whether a source file is ours, Python's or an installed package's, not the user's own."""
    return (
        file.startswith("<")
        or Path(file).resolve().is_relative_to(_OURS)
        or bool({"site-packages", "dist-packages"} & set(Path(file).parts))
        or Path(file).is_relative_to(Path(os.__file__).parent)
    )


def _may_define(module: str, name: str) -> bool:
    """Whether a package's own file says `name`, or may have it without: then it need not be a module."""
    spec = module_spec(module)
    if spec is None or spec.submodule_search_locations is None or not spec.origin or not Path(spec.origin).is_file():
        return spec is not None and spec.submodule_search_locations is None
    return re.search(rf"\b{name}\b|import \*|__getattr__", Path(spec.origin).read_text(errors="replace")) is not None


def _no_module(dotted: str, module: str, key: str) -> ConfigError:
    top = module.split(".")[0]
    folder = Path.cwd()
    if module_spec(top) is None:
        here = [
            path.stem
            for path in folder.iterdir()
            if path.suffix == ".py" or (path.is_dir() and path.stem.isidentifier())
        ]
        return ConfigError(
            f"{key}={dotted}: there is no module {top!r}, neither installed nor in {folder}.", _suggest(top, here)
        )
    parent = module
    while module_spec(parent) is None:
        parent = parent.rpartition(".")[0]
    missing = module[len(parent) + 1 :].split(".")[0]
    locations = getattr(module_spec(parent), "submodule_search_locations", None) or []
    inside = [path.stem for place in locations for path in Path(place).iterdir() if path.suffix == ".py"]
    return ConfigError(f"{key}={dotted}: {parent} has no module {missing!r}.", _suggest(missing, inside))


def _public_names(holder: Any) -> list[str]:
    return [name for name in dir(holder) if not name.startswith("_")]


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else "Write it as package.module.Name or package.module:Name."


Node = Any
"""A dataclass with a field `_target_`, or a dict with that key."""


def node_values(node: Node) -> dict[str, Any]:
    """Every key of a node, in plain containers."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return dataclasses.asdict(node)
    return copy.deepcopy(dict(node))


def node_value(node: Node, key: str, default: Any = None) -> Any:
    """One value of a node; `default` where it has no such key."""
    return node.get(key, default) if isinstance(node, dict) else getattr(node, key, default)


def has_key(node: Node, key: str) -> bool:
    return key in node if isinstance(node, dict) else hasattr(node, key)


def with_values(node: Node, **changes: Any) -> Node:
    """The same node with other values."""
    return {**node, **changes} if isinstance(node, dict) else dataclasses.replace(node, **changes)


def plain_nodes(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group of parts (callbacks, loggers) as plain containers; null leaves one out."""
    return {name: node_values(node) for name, node in group.items() if node is not None}


def target_of(node: Node) -> str:
    """The dotted name of what a node builds; empty where it names nothing."""
    return str(node_value(node, "_target_") or "")


def arguments_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a class or function by name. Those of its bases too where a class hands on `**settings`."""
    makers: list[Any] = [target]
    if isinstance(target, type):
        makers = [vars(one)["__init__"] for one in inspect.getmro(target) if "__init__" in vars(one)]
    accepted: dict[str, inspect.Parameter] = {}
    for maker in makers:
        try:
            parameters = list(inspect.signature(maker).parameters.values())
        except (TypeError, ValueError):  # written in C, without a signature
            break
        parameters = parameters[1:] if isinstance(target, type) else parameters
        for one in parameters:
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                accepted.setdefault(one.name, one)
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return accepted


def build_part(dotted: str, settings: Mapping[str, Any], kind: type, *, key: str, **known: Any) -> Any:
    """What a user's class or function makes of its `settings` and of those `known` values that it names.

    `key` is where it stands in the config, for errors. Raises `ConfigError` where it is not there or makes no `kind`,
    `StageError` with file and line for an error within.
    """
    target = import_target(dotted, key=f"{key}._target_")
    parameters = inspect.signature(target).parameters
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    with users_code(dotted):
        part = target(**{name: one for name, one in known.items() if anything or name in parameters}, **settings)
    if not isinstance(part, kind):
        raise ConfigError(
            f"{key}: {dotted} gives {type(part).__name__}, not a {kind.__module__.split('.')[0]}.{kind.__name__}.",
            "Name a class that is one.",
        )
    return part


def typed(values: Mapping[str, Any], classes: Iterable[type]) -> Node:
    """The node that plain `values` are: of the one of `classes` that has their `_target_`, else a dict."""
    schema = next((one for one in classes if one()._target_ == values.get("_target_")), None)
    return dict(values) if schema is None else schema(**values)


def build(node: Node, *arguments: Any, key: str, leave_out: Collection[str] = (), **known: Any) -> Any:
    """What the node's `_target_` makes of `arguments` (by position), the node's own values and `known` ones.

    `key` is where the node stands in the config, for errors. `leave_out`: keys of the node that are no arguments.
    Raises `ConfigError` where the target is not found or refuses.
    """
    from hydra.utils import instantiate

    dotted = target_of(node)
    import_target(dotted, key=f"{key}._target_")  # its errors are clearer than Hydra's
    values = {name: value for name, value in node_values(node).items() if name not in leave_out}
    values |= known | {"_target_": dotted.replace(":", "."), "_partial_": True, "_convert_": "all"}
    try:
        return instantiate(values)(*arguments)
    except MaquetteError:
        raise
    except Exception as error:
        while error.__cause__ is not None and isinstance(error.__cause__, Exception):
            error = error.__cause__
        raise ConfigError(f"{key}: {dotted} can't be built: {error}") from error
