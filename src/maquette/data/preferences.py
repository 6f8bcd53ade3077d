"""Preferences: two answers to one prompt, one of them wanted, from JSON files or from any other source.

A row is `{"prompt": messages, "chosen": messages, "rejected": messages, "annotator": name, "margin": number?}`; plain
text in the place of messages is a request of the user or an answer of the assistant. `probability`, where it is known,
says how likely the annotator (or what share of several) prefers `chosen`. `facts` is what the prompt's source knows of
it: with them the gold reward of any answer can be told.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, file_digest, write_text
from maquette.corpus.sources.files import json_files, read_rows
from maquette.data.instructions import read_messages
from maquette.text.chat import Message


@dataclass(frozen=True)
class Preference:
    """`chosen` and `rejected` continue `prompt`; each ends with an answer of the assistant. `place` says where it was
    found, for messages about it; `split` is train or validation, None where the reader is to choose."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    annotator: str = ""
    margin: float | None = None
    probability: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)
    split: str | None = None

    @property
    def is_tie(self) -> bool:
        """Whether there is nothing to prefer: both answers are the same."""
        return self.chosen == self.rejected

    def row(self) -> dict[str, Any]:
        """The line of a file, without what is not known."""
        row: dict[str, Any] = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        row["annotator"] = self.annotator
        known = {"margin": self.margin, "probability": self.probability, "facts": dict(self.facts) or None}
        return row | {key: value for key, value in known.items() if value is not None}


class PreferenceSource(Protocol):
    """Where preferences come from. `label`: short, for names; `inputs`: digests of all that decides what comes."""

    label: str

    def inputs(self) -> dict[str, str]: ...

    def preferences(self) -> Iterable[Preference]: ...


class PreferenceFiles:
    """A JSON file, or all below a folder."""

    def __init__(self, path: Path | str) -> None:
        self._files = json_files(path, "preferences")
        self.label = Path(path).expanduser().resolve().name.partition(".")[0]

    def inputs(self) -> dict[str, str]:
        return {"files": digest([file_digest(file) for file in self._files])}

    def preferences(self) -> Iterator[Preference]:
        """In the files' order. Raises `StageError` with file, line and reason for a row that is no preference."""
        for place, row in read_rows(self._files, "preferences"):
            yield preference_of(row, place)


def read_preferences(path: Path | str) -> list[Preference]:
    """All of a file, or of a folder's files. Raises `StageError` that names the line that is wrong."""
    return list(PreferenceFiles(path).preferences())


def write_preferences(path: Path | str, preferences: Iterable[Preference]) -> int:
    """Writes a file, whole or not at all, and returns how many lines it has."""
    lines = [json.dumps(one.row(), ensure_ascii=False) for one in preferences]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def preference_of(row: dict[str, Any], place: str) -> Preference:
    """The preference of a row. Raises `StageError` where it is none."""
    missing = [key for key in ("prompt", "chosen", "rejected") if key not in row]
    if missing:
        raise StageError(
            f"{place} is no preference: {' and '.join(missing)} missing.",
            'A row looks like {"prompt": [...], "chosen": [...], "rejected": [...], "annotator": "..."}.',
        )
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    parts = {
        key: read_messages([{"role": role, "content": row[key]}] if isinstance(row[key], str) else row[key],
                           f"{place}, {key}")
        for key, role in roles.items()
    }  # fmt: skip
    for key in ("chosen", "rejected"):
        if parts[key][-1]["role"] != "assistant" or any(message["role"] == "system" for message in parts[key]):
            raise StageError(
                f"{place}: {key} does not end with an answer of the assistant.", "It continues the prompt."
            )
    annotator = row.get("annotator") or ""
    if not isinstance(annotator, str):
        raise StageError(f"{place}: annotator is no name but {annotator!r:.60}.")
    facts = row.get("facts") or {}
    if not isinstance(facts, dict):
        raise StageError(f"{place}: facts are no object but {facts!r:.60}.", "Leave them out where there are none.")
    return Preference(
        parts["prompt"],
        parts["chosen"],
        parts["rejected"],
        annotator=annotator,
        margin=_number(row, "margin", place, low=-math.inf, high=math.inf),
        probability=_number(row, "probability", place, low=0.0, high=1.0),
        facts=facts,
        place=place,
    )


def _number(row: dict[str, Any], key: str, place: str, *, low: float, high: float) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StageError(f"{place}: {key} is no number but {value!r:.60}.", "Leave it out where it is not known.")
    if not low <= value <= high:
        raise StageError(f"{place}: {key} is {value:g}.", f"Allowed: {low:g} to {high:g}.")
    return float(value)
