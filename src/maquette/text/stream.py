"""Text that arrives piece by piece, as a person wants to see it: no half characters, no part of a stop string."""

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maquette.artifacts import ConfigError

if TYPE_CHECKING:
    from maquette.text.tokenizer import Tokenizer


class StreamDecoder:
    """Decodes ids one by one. All pushes and the final flush together are `tokenizer.decode(ids)`, of any kind.

    A character whose bytes are spread over several tokens (an emoji, Thai) is held back until it is whole; bytes that
    can't be one become U+FFFD. `continues=True` where the ids continue an earlier text: a tokenizer that
    puts a space before each text then keeps its first space.
    """

    def __init__(self, tokenizer: "Tokenizer", *, skip_special: bool = False, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.leading_space and not continues

    def push(self, id: int) -> str:
        """The characters that are complete with this id; often one token's text, sometimes "" or several characters."""
        data = self._tokenizer.token_bytes(id, skip_special=self._skip_special)
        if self._strip and data:
            data, self._strip = data.removeprefix(b" "), False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD where a character never became whole, else ""."""
        return self._decoder.decode(b"", final=True)


class StopText:
    """Passes text on as it arrives, but holds back what may turn out to be the beginning of a stop string.

    Of several stop strings the one that is complete first counts (of two that end together, the longer), so the
    result does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
            raise ConfigError("A stop string is empty.", "Leave it out, or write the text to stop at.")
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """Takes the next piece and returns what is safe to show. `found` is set when a stop string is complete;
        what comes after it is dropped."""
        if self.matched is not None:
            return ""
        self._held += text
        matches = [(start + len(stop), start, stop) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if matches:
            _, start, self.matched = min(matches)
            shown, self._held = self._held[:start], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
