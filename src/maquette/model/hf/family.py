"""A family of models that Hugging Face knows: what its settings and tensors are called there. Free of torch.

A family says which of our configurations it can express, how a `config.json` is read and written, and which of our
tensors each of theirs holds. The numbers themselves are moved by weights.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maquette.artifacts import StageError
from maquette.model.config import CoreConfig

Raw = dict[str, Any]
"""The content of a `config.json`."""


@dataclass(frozen=True)
class Stored:
    """One tensor of theirs: it holds `ours`, one after the other along the output dimension, perhaps transposed."""

    name: str
    ours: tuple[str, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Family:
    """One architecture.

    - `expresses(config)`: can it hold our model?
    - `read(raw)`: our configuration, or `StageError` naming the setting that the core does not have
    - `write(config)`: their settings
    - `tensors(config)`: where our tensors lie; None where they keep their own names
    - `prefix`: what files of the bare model leave out of names
    - `ignored`: endings of names of buffers that old files carry
    - `head`: the name of the head's matrix, which files of tied models may hold a second time
    """

    architecture: str
    model_type: str
    expresses: Callable[[CoreConfig], bool]
    read: Callable[[Raw], CoreConfig]
    write: Callable[[Any], Raw]
    tensors: Callable[[Any], list[Stored]] | None = None
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    head: str = "lm_head.weight"


def unsupported(key: str, value: Any, hint: str = "") -> StageError:
    """The error for a setting of theirs that the core does not have."""
    return StageError(
        f"{key}={value} is not supported.", hint or "The core has no such option, so its logits would differ."
    )


def require(raw: Raw, **allowed: tuple[Any, ...]) -> None:
    """Raises `StageError` for the first setting that is not among its allowed values; the first is its default."""
    for key, values in allowed.items():
        if (value := raw.get(key, values[0])) not in values:
            raise unsupported(key, value)


def number(raw: Raw, key: str) -> Any:
    """A size without which there is no model. Raises `StageError` where it is missing."""
    if (value := raw.get(key)) is None:
        raise StageError(f"{key} is missing.", "Is this the config.json of a causal language model?")
    return value
