"""Nodes of the config that name what they build: `_target_` and its arguments, as Hydra's `instantiate` takes them.

A node of ours is a dataclass, typed and checked where it is composed; anyone else's is a plain dict. What is here takes
both, so that nothing that uses a node has to ask which it is.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.targets import import_target

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
    found: dict[str, inspect.Parameter] = {}
    for maker in makers:
        try:
            parameters = list(inspect.signature(maker).parameters.values())
        except (TypeError, ValueError):  # written in C, without a signature
            break
        parameters = parameters[1:] if isinstance(target, type) else parameters
        for one in parameters:
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                found.setdefault(one.name, one)
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return found


def typed(values: Mapping[str, Any], classes: Iterable[type]) -> Node:
    """The node that plain `values` are: of the one of `classes` that has their `_target_`, else a dict."""
    found = next((one for one in classes if one()._target_ == values.get("_target_")), None)
    return dict(values) if found is None else found(**values)


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
