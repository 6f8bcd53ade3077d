"""How well a tokenizer fits texts: length in tokens, use of the vocabulary, and what the splits look like."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from maquette.text.tokenizer import Tokenizer

_BATCH = 256
_VISIBLE = {chr(sign): chr(0x2400 + sign) for sign in range(0x20)}  # Unicode's pictures of control characters
_VISIBLE |= {" ": "·", "\n": "⏎", "\t": "⇥", "\x7f": "␡"}


@dataclass(frozen=True)
class Fit:
    """What texts come to in tokens. `counts (V,)` is how often each id occurs."""

    bytes: int
    characters: int
    counts: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(1, self.tokens)

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(1, self.tokens)

    @property
    def tokens_per_kilobyte(self) -> float:
        """Tokens for 1,000 bytes: how long sequences become."""
        return 1000 * self.tokens / max(1, self.bytes)

    @property
    def used(self) -> int:
        """Ids that occur at least once."""
        return int(np.count_nonzero(self.counts))

    def rates(self, learned: int) -> dict[str, float]:
        """What the report says of it; `learned`: ids that text can use."""
        rates = {"bytes_per_token": self.bytes_per_token, "characters_per_token": self.characters_per_token}
        return rates | {"vocabulary_used": self.used / learned}


def fit(tokenizer: Tokenizer, texts: Iterable[str], advance: Callable[[float], None] | None = None) -> Fit:
    """Measures a tokenizer on texts; `advance(bytes done)` is called on the way."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    total_bytes = characters = 0
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        ids = np.fromiter(chain.from_iterable(tokenizer.encode_batch(batch)), dtype=np.int64)
        counts += np.bincount(ids, minlength=len(counts))
        size = sum(len(text.encode()) for text in batch)
        total_bytes += size
        characters += sum(map(len, batch))
        if advance is not None:
            advance(size)
    return Fit(total_bytes, characters, counts)


def together(fits: Mapping[str, Fit]) -> Fit:
    """All domains as one. Raises `ValueError` where there are none."""
    parts = list(fits.values())
    if not parts:
        raise ValueError("no domain was measured")
    counts = np.vstack([part.counts for part in parts]).sum(axis=0)
    return Fit(sum(part.bytes for part in parts), sum(part.characters for part in parts), counts)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """How a text is split, one readable string a token: spaces, line ends and tabs as signs, halves of characters
    as their bytes in hexadecimal."""
    return [visible(tokenizer.token_bytes(id)) for id in tokenizer.encode(text)]


def visible(token: bytes) -> str:
    """A token's bytes as something that can be seen: `·` space, `⏎` line end, `⇥` tab, `⟨E0 B8⟩` half a character."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return f"⟨{token.hex(' ').upper()}⟩"
    return "".join(
        _VISIBLE.get(character) or (character if character.isprintable() else f"⟨U+{ord(character):04X}⟩")
        for character in text
    )


def number_splits(tokenizer: Tokenizer, digits: int) -> dict[int, float]:
    """Of all numbers with so many digits (no leading zero), the share that takes 1, 2, ... tokens."""
    first, last = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits
    lengths = np.array([len(ids) for ids in tokenizer.encode_batch([str(number) for number in range(first, last)])])
    return {int(length): float(np.mean(lengths == length)) for length in np.unique(lengths)}
