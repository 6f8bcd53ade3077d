"""Settings: dataclass fields that carry their own help line and allowed values.

Every room's `config.py` is made of these, so `--help`, the validation of a command line and the documentation
come from one place. Nothing here imports torch, Hydra or OmegaConf.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from maquette.artifacts.errors import ConfigError


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    quantity: bool = False,
) -> Any:
    """A dataclass field with a help line and, where it has them, its allowed values (None is always allowed
    where the field's type allows it). A `quantity` is a count as `parse_quantity` reads it. Lists, dicts and
    dataclasses are given as a class or a factory."""
    metadata = {"help": help, "choices": choices, "minimum": minimum, "maximum": maximum, "quantity": quantity}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One leaf of a config: its dotted `key`, default, help line and allowed values."""

    key: str
    default: Any
    help: str
    choices: Sequence[str] | None


def walk(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every leaf setting of a config dataclass (class or instance), depth first, in the order of its fields."""
    instance = config() if isinstance(config, type) else config
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{key}.")
        else:
            yield Setting(key, value, field.metadata.get("help", ""), field.metadata.get("choices"))


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
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    check(item, f"{key}[{index}].")
        if value is None:
            continue
        if field.metadata.get("quantity"):
            parse_quantity(value, key)
        choices, low, high = (field.metadata.get(name) for name in ("choices", "minimum", "maximum"))
        if choices is not None and value not in choices:
            raise ConfigError(f"{key}={value} is not known.", f"Allowed: {', '.join(map(str, choices))}.")
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


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word most like a misspelt one, if any is near. A dotted key is also matched by its last part."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if found:
        return found[0]
    by_leaf = {key.rsplit(".", 1)[-1]: key for key in reversed(known)}
    leaf = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(by_leaf), n=1, cutoff=0.6)
    return by_leaf[leaf[0]] if leaf else None


_MULTIPLES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def parse_quantity(value: str | int | float, key: str = "value") -> int:
    """A count written as a person does: `300k`, `1.5m`, `2b`, `15t`, `1e13` or a plain number."""
    match = re.fullmatch(r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[+-]?[0-9]+)?)\s*([kmbgt]?)\s*", str(value).lower())
    number = float(match[1].replace("_", "")) * _MULTIPLES[match[2]] if match else 0.0
    if number < 1:
        raise ConfigError(f"{key}={value} is not a count.", "Write it like 300k, 1.5m, 2b or 1e13.")
    return round(number)
