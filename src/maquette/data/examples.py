"""Examples on disk: conversations as ids, each with the mask of the tokens that count, one after the other.

`tokens.npy` and `mask.npy` hold all examples end to end, `starts.npy (n + 1,)` where each begins, and one file each
further column of numbers `(n,)`. Everything is memory-mapped.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.text.chat import Message

SPLITS = ("train", "validation")


class Examples:
    """`len(examples)`, and `examples[i] -> (ids, mask)`: int32 and bool, `(length,)`.

    `columns`: name -> numbers of each example. `names`: what the numbers of a column stand for, where they do.
    """

    def __init__(
        self,
        tokens: NDArray[np.int32],
        mask: NDArray[np.bool_],
        starts: NDArray[np.int64],
        columns: Mapping[str, NDArray[Any]] | None = None,
        names: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.tokens, self.mask, self.starts = tokens, mask, starts
        self.columns, self.names = dict(columns or {}), dict(names or {})

    @classmethod
    def load(cls, folder: Path) -> "Examples":
        """Raises `StageError` where a file is missing or damaged."""
        try:
            arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
            names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
            return cls(arrays.pop("tokens"), arrays.pop("mask"), arrays.pop("starts"), arrays, names)
        except (OSError, ValueError, KeyError) as error:
            raise StageError(f"{folder} is damaged: {error!r}.", "Make it again with force=true.") from None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return self.tokens[part], self.mask[part]

    def __iter__(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each."""
        return np.diff(self.starts)

    @property
    def answer_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each that count."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        return np.add.reduceat(self.mask.astype(np.int64), self.starts[:-1])

    def describe(self) -> dict[str, int]:
        return {
            "examples": len(self),
            "tokens": int(self.starts[-1]),
            "answer_tokens": int(self.answer_lengths.sum()),
            "longest": int(self.lengths.max(initial=0)),
        }


class ExampleWriter:
    """Gathers examples and writes them as a folder that `Examples.load` reads."""

    def __init__(self) -> None:
        self._tokens: list[NDArray[np.int32]] = []
        self._mask: list[NDArray[np.bool_]] = []
        self._columns: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, ids: Sequence[int], mask: Sequence[bool], **columns: float) -> None:
        self._tokens.append(np.asarray(ids, dtype=np.int32))
        self._mask.append(np.asarray(mask, dtype=np.bool_))
        for name, value in columns.items():
            self._columns.setdefault(name, []).append(value)

    def write(self, folder: Path, names: Mapping[str, list[str]] | None = None) -> Examples:
        """Writes the files; returns what they hold."""
        lengths = [0, *(len(tokens) for tokens in self._tokens)]
        found = Examples(
            np.concatenate([np.zeros(0, dtype=np.int32), *self._tokens]),
            np.concatenate([np.zeros(0, dtype=np.bool_), *self._mask]),
            np.cumsum(lengths, dtype=np.int64),
            {name: np.asarray(values) for name, values in self._columns.items()},
            names,
        )
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"tokens": found.tokens, "mask": found.mask, "starts": found.starts, **found.columns}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "names.json").write_text(json.dumps(found.names), encoding="utf-8")
        return found


def split_of(prompt: Sequence[Message], validation: float) -> str:
    """The split of everything that begins with `prompt`: by its digest, so that no prompt stands on both sides and
    more rows move none. `validation`: share that is held out."""
    text = json.dumps([[message["role"], message["content"]] for message in prompt])
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return "validation" if number < validation * 2**64 else "train"
