"""Where generated text ends: stop strings found across the borders of tokens, and never printed, not even in part."""

from collections.abc import Sequence

from maquette.artifacts import ConfigError


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
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Takes the next piece and returns what is safe to show. `found` is set when a stop string is complete;
        what comes after it is dropped."""
        if self.found is not None:
            return ""
        self._held += text
        matches = [(start + len(stop), start, stop) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if matches:
            _, start, self.found = min(matches)
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
