"""Answers that a person has corrected on the chat page, kept as instructions: what one would rather have read.

Each is one line of `instructions.jsonl`, appended and flushed before it counts, with a digest of what it says;
`maquette train objective=sft instructions.path=...` reads the file as it is. Only the corrected turn is learned: turns
of the assistant before it have the weight 0, since a person has let them stand, but has not written them.
"""

import datetime
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.files import append_rows, cut_half_line, digest, locked
from maquette.artifacts.reading import read_log
from maquette.text.chat import Message, check

INSTRUCTIONS = "instructions.jsonl"

_MOST_CHARACTERS = 100_000
"""Of a conversation with its corrected answer."""

MOST_NAME = 200
"""Characters of the name of who corrects."""

_HINT = "Move the file away, or remove the line."


class Corrections:
    """Those in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Cuts off what a killed server has left half written. Raises `StageError` for a line that was changed."""
        self.folder, self._path, self._lock = folder, folder / INSTRUCTIONS, threading.Lock()
        if self._path.exists():
            with locked(self._path):
                cut_half_line(self._path)
                self._digests = self._read()
        else:
            self._digests = set()

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, messages: Sequence[Message], answer: str, original: str, *, model: str, name: str) -> int:
        """Keeps `answer` as what should have been said after `messages`, in place of the `model`'s `original`, and
        returns how many corrections there are. The same one again is kept once.

        Raises `StageError` for messages that are no conversation or do not end with the user, an empty answer, one that
        is the original, and where the file can't be written."""
        check([*messages, {"role": "assistant", "content": answer}])
        if not messages or messages[-1]["role"] != "user":
            raise StageError("The conversation does not end with the user.", "Send the turns before the answer.")
        if not answer.strip() or answer == original:
            raise StageError("Nothing was corrected.", "Write what the answer should have been.")
        texts = [*(message["content"] for message in messages), answer, original, model, name]
        if sum(map(len, texts)) > _MOST_CHARACTERS or len(name) > MOST_NAME:
            raise StageError(
                f"The conversation has more than {_MOST_CHARACTERS:,} characters, or the name is too long."
            )
        if any(text != text.encode("utf-8", "replace").decode("utf-8") for text in texts):
            raise StageError("The conversation has characters that UTF-8 can't express.")
        before = [one | {"weight": 0} if one["role"] == "assistant" else one for one in messages]
        row: dict[str, Any] = {
            "messages": [*before, {"role": "assistant", "content": answer}],
            "source": name, "model": model, "meta": {"original": original},
        }  # fmt: skip
        row["hash"] = _digest(row)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self._lock, locked(self._path):
            if row["hash"] not in self._digests:
                append_rows(self._path, [row | {"at": now}])
                self._digests.add(row["hash"])
            return len(self._digests)

    def _read(self) -> set[str]:
        digests = set()
        for place, row in read_log(self._path, hint=_HINT):
            if not isinstance(row, dict) or row.get("hash") != _digest(row):
                raise StageError(f"{place} is damaged: it does not match its digest.", _HINT)
            digests.add(row["hash"])
        return digests


def _digest(row: dict[str, Any]) -> str:
    """Of all that a correction says; not of when it was made."""
    return digest({key: row.get(key) for key in ("messages", "source", "model", "meta")})
