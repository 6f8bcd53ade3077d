"""Settings: dataclass fields that carry their own help line and allowed values.

Every package's `config.py` is made of these, so `--help`, the validation of a command line and the documentation
come from one place. Nothing here imports torch, Hydra or OmegaConf.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from maquette.artifacts.errors import ConfigError


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    quantity: bool = False,
    own: bool = False,
    variants: Mapping[str, type] | None = None,
    items: Mapping[str, type] | None = None,
    first: bool = False,
) -> Any:
    """A dataclass field with a help line and, where it has them, its allowed values (None is always allowed
    where the field's type allows it). A `quantity` is a count as `parse_quantity` reads it. `own`: beside
    the choices a user's class may stand here, by its dotted name. Lists, dicts and
    dataclasses are given as a class or a factory. `variants`: the classes, by name, that may stand here, where the
    field's own type is what they have in common; which of them it is decides which settings there are; a field typed
    `Any` may also hold a table with the `_target_` of a class that is not ours. `items`: the classes, by name, that a
    table of parts (callbacks, loggers) may hold beside others. `first`: one of those that people turn first, in the
    short help."""
    metadata = {
        "help": help, "choices": choices, "minimum": minimum, "maximum": maximum, "quantity": quantity,
        "own": own, "variants": variants, "items": items, "first": first,
    }  # fmt: skip
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One leaf of a config: its dotted `key`, default, help line and allowed values. `variants`: those that have it,
    where not all of them do. `text`: whether it holds words, which are never to be read as numbers. `first`: whether
    the short help shows it."""

    key: str
    default: Any
    help: str
    choices: Sequence[str] | None
    variants: tuple[str, ...] = ()
    text: bool = False
    first: bool = False


def walk(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every leaf setting of a config dataclass (class or instance), depth first, in the order of its fields.

    Of a class, the settings of all variants are there; of an instance, those that it has."""
    instance = config() if isinstance(config, type) else config
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        key = f"{prefix}{field.name}"
        if isinstance(config, type) and field.metadata.get("variants"):
            yield from _of_variants(field.metadata["variants"], f"{key}.")
        elif isinstance(config, type) and field.metadata.get("items"):
            for name, item in field.metadata["items"].items():
                yield from walk(item, f"{key}.{name}.")
        elif dataclasses.is_dataclass(value):
            yield from walk(value, f"{key}.")
        elif field.metadata.get("items") and value:
            for name, item in value.items():
                if dataclasses.is_dataclass(item):
                    yield from walk(item, f"{key}.{name}.")
                else:
                    yield Setting(f"{key}.{name}", item, "", None)
        else:
            text = field.type in (str, str | None) and not field.metadata.get("quantity")
            yield Setting(
                key, value, field.metadata.get("help", ""), field.metadata.get("choices"), text=text,
                first=field.metadata.get("first", False) or not prefix,
            )  # fmt: skip


def _of_variants(variants: Mapping[str, type], prefix: str) -> Iterator[Setting]:
    """Each setting of any variant once, with the names of those that have it where not all do."""
    settings: dict[str, list[tuple[str, Setting]]] = {}
    for name, variant in variants.items():
        for setting in walk(variant, prefix):
            settings.setdefault(setting.key, []).append((name, setting))
    for owners in settings.values():
        names = () if len(owners) == len(variants) else tuple(name for name, _ in owners)
        choices = [owner.choices for _, owner in owners]
        merged = list(dict.fromkeys(choice for one in choices for choice in one or ())) if all(choices) else None
        yield dataclasses.replace(owners[0][1], choices=merged, variants=names)


def check(config: Any, prefix: str = "") -> None:
    """Raises `ConfigError` for the first setting of a composed config dataclass that is out of its allowed values.

    What depends on several settings is judged by the dataclass itself, in a method `validate()`.
    """
    if hasattr(config, "validate"):
        config.validate()
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            check(value, f"{key}.")
        elif isinstance(value, list | dict):
            for index, item in enumerate(value) if isinstance(value, list) else value.items():
                if dataclasses.is_dataclass(item):
                    check(item, f"{key}[{index}]." if isinstance(value, list) else f"{key}.{index}.")
        if value is None:
            continue
        if field.metadata.get("quantity"):
            parse_quantity(value, key)
        choices, low, high = (field.metadata.get(name) for name in ("choices", "minimum", "maximum"))
        own = bool(field.metadata.get("own"))
        if choices is not None and value not in choices and not (own and is_dotted(value)):
            raise unknown_choice(key, value, choices, own=own)
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = " and ".join(
                text
                for text in (
                    f"at least {low:g}" if low is not None else "",
                    f"at most {high:g}" if high is not None else "",
                )
                if text
            )
            raise ConfigError(f"{key}={value} is out of range.", f"Allowed: {bounds}.")


def plain_arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in a node with a `_target_`, without Hydra's own keys."""
    return {str(key): value for key, value in node.items() if not str(key).startswith("_")}


@dataclasses.dataclass
class CustomNode:
    """A node of the config whose `_target_` is a user's class: what it is made with, unchecked until it is imported."""

    _target_: str = setting("", "the class, as package.module.Class")
    settings: dict[str, Any] = setting(dict, "its arguments")

    @classmethod
    def of_target(cls, node: Mapping[str, Any]) -> Self:
        """What a node with a `_target_` of a user's means."""
        return cls(_target_=str(node["_target_"]), settings=plain_arguments(node))

    def foreign_node(self) -> dict[str, Any]:
        """The node that it was read from."""
        return {"_target_": self._target_, **self.settings}


def from_table(config: type[Any], values: Mapping[Any, Any], prefix: str) -> Any:
    """A config dataclass from a plain table. Raises `ConfigError` for a key that it does not have."""
    known = [field.name for field in dataclasses.fields(config)]
    for key in values:
        if key not in known:
            close = nearest(str(key), known)
            raise ConfigError(
                f"unknown key '{prefix}.{key}'.", f"Did you mean '{prefix}.{close}'?" if close else ", ".join(known)
            )
    return config(**values)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables by dotted keys; an empty table stays one."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and len(value) > 0
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def is_dotted(value: Any) -> bool:
    """Whether a value is the dotted name of a user's own (`package.module.Name` or `package.module:Name`)."""
    return isinstance(value, str) and re.fullmatch(r"[^\W\d]\w*([.:][^\W\d]\w*)+", value) is not None


def unknown_choice(key: str, value: Any, choices: Sequence[str], *, own: bool = False) -> ConfigError:
    """The error for a value that is none of the choices, with the nearest one; `own`: a dotted name may stand there."""
    close = nearest(str(value), [str(choice) for choice in choices])
    hint = f"Did you mean {close}? " if close else ""
    hint += f"Allowed: {', '.join(map(str, choices))}"
    return ConfigError(
        f"{key}={value} is not known.", hint + (", or one of your own: package.module.Name." if own else ".")
    )


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word most like a misspelt one, if any is near. A dotted key is also matched by its last part."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if matches:
        return matches[0]
    by_leaf = {key.rsplit(".", 1)[-1]: key for key in reversed(known)}
    leaf = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(by_leaf), n=1, cutoff=0.6)
    return by_leaf[leaf[0]] if leaf else None


_MULTIPLES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def parse_quantity(value: str | int | float, key: str = "value") -> int:
    """A count written as a person does: `300k`, `1.5m`, `2b`, `15t`, `1e13` or a plain number."""
    match = re.fullmatch(r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[+-]?[0-9]+)?)\s*([kmbgt]?)\s*", str(value).lower())
    number = float(match[1].replace("_", "")) * _MULTIPLES[match[2]] if match else 0.0
    if not 1 <= number < math.inf:
        raise ConfigError(f"{key}={str(value)[:80]} is not a count.", "Write it like 300k, 1.5m, 2b or 1e13.")
    return round(number)
