"""Preference files: JSON lines of a prompt, the answer that was chosen, the one that was not, and who chose.

    {"prompt": messages, "chosen": messages, "rejected": messages, "annotator": "gold", "margin": 0.4, "facts": {...}}

`margin` stands where the annotator gives one; `facts` is what the prompt's source knows of it (with it, the gold reward
of any answer can be told). A file is written whole or not at all.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.files import write_text
from maquette.feedback.comparison import Comparison, Judgement
from maquette.text.chat import Message, check


@dataclasses.dataclass(frozen=True)
class Preference:
    """One label. `chosen` and `rejected` are the assistant's answers as text."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    annotator: str
    margin: float | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The line of the file."""
        row: dict[str, Any] = {
            "prompt": list(self.prompt),
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "annotator": self.annotator,
        }
        if self.margin is not None:
            row["margin"] = self.margin
        return row | ({"facts": dict(self.facts)} if self.facts else {})


def preferences_of(
    comparisons: Sequence[Comparison], judgements: Sequence[Judgement], annotator: str
) -> Iterator[Preference]:
    """Labels of the pairs that were decided; ties, pairs that nobody could judge and equal answers make none."""
    for one, judged in zip(comparisons, judgements, strict=True):
        if judged.preference is None or judged.preference == 0.5 or one.first == one.second:
            continue
        wins = judged.preference > 0.5
        chosen, rejected = (one.first, one.second) if wins else (one.second, one.first)
        margin = None if judged.margin is None else abs(judged.margin)
        yield Preference(one.messages, chosen, rejected, annotator, margin, one.facts)


def write_preferences(path: Path | str, preferences: Iterable[Preference]) -> int:
    """Writes the file and returns how many lines it has."""
    lines = [json.dumps(one.row(), ensure_ascii=False) for one in preferences]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def read_preferences(path: Path | str) -> list[Preference]:
    """Reads a file. Raises `StageError` that names the line that is wrong."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StageError(f"Can't read {path}: {error.strerror}.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            check(raw["prompt"])
            margin = raw.get("margin")
            rows.append(
                Preference(
                    tuple(raw["prompt"]),
                    _answer(raw["chosen"]),
                    _answer(raw["rejected"]),
                    str(raw.get("annotator", "unknown")),
                    None if margin is None else float(margin),
                    raw.get("facts") or {},
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, StageError) as error:
            reason = error.message if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
            raise StageError(
                f"{path}, line {number}, is no preference ({reason}).",
                'A line is {"prompt": messages, "chosen": messages, "rejected": messages, "annotator": text}.',
            ) from None
    return rows


def _answer(messages: Any) -> str:
    """The text of the assistant's answer: the last of the messages."""
    if isinstance(messages, str):
        return messages
    last = messages[-1]
    if last["role"] != "assistant" or not isinstance(last["content"], str):
        raise ValueError("chosen and rejected end in an answer of the assistant")
    return last["content"]
