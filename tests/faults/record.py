"""What was tried, a line of JSON for each attempt, so that an attack resumes where it was stopped; and its table."""

import datetime
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maquette.artifacts.files import append_rows, cut_half_line
from maquette.tracking.environment import processor_name

Outcome = tuple[int, list[str]]
"""How much was tried, and a line for each that was lost."""


@dataclass
class Row:
    """Attempts of one kind, summed."""

    attempts: int = 0
    lost: int = 0
    seconds: float = 0.0
    trials: int = 0

    def __iadd__(self, attempt: dict[str, Any]) -> "Row":
        self.attempts += attempt["tried"]
        self.lost += lost_of(attempt)
        self.seconds += attempt["seconds"]
        self.trials += 1
        return self


def lost_of(attempt: dict[str, Any]) -> int:
    """How much of an attempt was lost, which may take several lines to say."""
    return min(int(attempt["tried"]), len(attempt["lost"]))


class Record:
    """The attempts in `path`, made by any number of processes one after the other. `say` hears of each new one."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path, self.say = path, say
        cut_half_line(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.attempts: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def attempt(self, part: str, kind: str, seed: int, trial: int | str, call: Callable[[], Outcome]) -> None:
        """Calls and notes what came of it, unless this attempt stands in the record."""
        key = {"part": part, "kind": kind, "seed": seed, "trial": trial}
        if any(key.items() <= one.items() for one in self.attempts):
            return
        began = time.monotonic()
        attempts, lost = call()
        row = {**key, "tried": attempts, "lost": lost, "seconds": round(time.monotonic() - began, 2),
               "date": datetime.date.today().isoformat(), "processor": processor_name()}  # fmt: skip
        append_rows(self.path, [row])
        self.attempts.append(row)
        if lost or part != "lines":
            self.say(f"{kind:60} {attempts:6} {attempts - lost_of(row):8} {lost_of(row):6}")
        for line in dict.fromkeys(lost):
            self.say(f"    {line}")

    def rows(self, part: str) -> dict[str, Row]:
        """The sums of a part by kind, in the order in which kinds were tried first."""
        rows: dict[str, Row] = {}
        for one in self.attempts:
            if one["part"] == part:
                row = rows.setdefault(one["kind"], Row())
                row += one
        return rows

    def lost(self) -> int:
        return sum(lost_of(one) for one in self.attempts)

    def table(self) -> str:
        """Markdown: what was tried of each part and kind, with what was lost; seeds, days and processors below."""
        lines = ["| kind | tried | survived | lost or wrong |", "|---|---:|---:|---:|"]
        for part in dict.fromkeys(one["part"] for one in self.attempts):
            rows = self.rows(part)
            lines += [_line(f"{part}: {kind}", [row]) for kind, row in rows.items()]
            lines += [_line(f"**{part}, together**", rows.values())] if len(rows) > 1 else []

        def values(key: str) -> str:
            return ", ".join(dict.fromkeys(str(one[key]) for one in self.attempts))

        hours = sum(one["seconds"] for one in self.attempts) / 3600
        return "\n".join(
            [*lines, "", f"Seeds {values('seed')}; {values('date')}; {hours:.1f} hours on {values('processor')}."]
        )


def _line(title: str, rows: Iterable[Row]) -> str:
    attempts, lost = 0, 0
    for row in rows:
        attempts += row.attempts
        lost += row.lost
    return f"| {title} | {attempts:,} | {attempts - lost:,} | {lost} |"
