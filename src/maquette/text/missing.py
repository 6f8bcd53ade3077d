"""What stands in a tokenizer's place where tokens came without one: it knows how many ids there are, and no text.

Losses, laws and weights need no text. What does (bits per byte, samples, a prompt, a chat) is left out or says why.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, write_json
from maquette.text.special import SpecialIds
from maquette.text.tokenizer import MISSING_FILE, Tokenizer


class MissingTokenizer(Tokenizer):
    """A vocabulary of `vocab_size` ids, of which `document_id` (if any) separates documents."""

    has_text = False
    leading_space = False

    def __init__(self, vocab_size: int, document_id: int | None) -> None:
        self.vocab_size = vocab_size
        self._special = SpecialIds({}, document=document_id, padding=None, end_of_text=document_id, end_of_turn=None)

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingTokenizer, (self.vocab_size, self.document_id)

    def __repr__(self) -> str:
        return f"MissingTokenizer({self.vocab_size:,} ids)"

    def __getattr__(self, name: str) -> Any:  # what only text has
        if name in ("backend", "_bytes", "_vocabulary", "_document"):
            raise _no_text()
        raise AttributeError(name)

    def encode(self, text: str) -> list[int]:
        raise _no_text()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        raise _no_text()

    def token_bytes(self, id: int, *, skip_special: bool = False) -> bytes:
        raise _no_text()

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        raise _no_text()

    def byte_lengths(self) -> npt.NDArray[np.int32]:
        """Zeros: nobody knows."""
        return np.zeros(self.vocab_size, dtype=np.int32)

    def add_tokens(self, tokens: Sequence[str], *, special: bool = False) -> Tokenizer:
        raise _no_text()

    def _values(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "eos_token_id": self.document_id}

    @cached_property
    def digest(self) -> str:
        return digest({"missing": self._values()})

    def save(self, folder: Path | str) -> None:
        """Writes a file that says what is known; no tokenizer.json, so that nothing takes it for one."""
        write_json(Path(folder) / MISSING_FILE, self._values())


def _no_text() -> StageError:
    return StageError(
        "The tokens of this model came without a tokenizer: there is no text to read or write.",
        "Name it with pretokenized.tokenizer=<folder with tokenizer.json> and train again.",
    )
