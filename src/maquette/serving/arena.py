"""A blind arena: two models respond, a person says which is better, and only then learns who was who.

Each vote is one line of `battles.jsonl`, with a checksum, written at once and flushed before it counts; `maquette
ratings` reads it.
`preferences.jsonl`, on which reward models and DPO train, is made from it: the line of a vote that is not a tie, and
the whole file again at the start where a server was killed between the two. The completions are those that were sent
from here: a vote says only which side."""

import contextlib
import datetime
import json
import math
import os
import random
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maquette.artifacts import MaquetteError, StageError
from maquette.artifacts.files import append_rows, cut_half_line, locked, write_text
from maquette.artifacts.reading import CHECKSUM, check_seal, read_log, reading, sealed, unsealed
from maquette.data.conversations import Preference
from maquette.evaluation.arena import CHANGED, read_battles
from maquette.evaluation.ratings import ELO, bradley_terry_ratings
from maquette.text.chat import Message, check

BOTH_BAD = "tie (bothbad)"
"""As LMArena's files have it; for ratings it is a tie."""

WINNERS = ("a", "b", "tie", BOTH_BAD)
SIDES = ("a", "b")
BATTLES, PREFERENCES = "battles.jsonl", "preferences.jsonl"

_MOST_OPEN = 1000
"""Battles that wait for a vote; of more the oldest are forgotten."""


_MOST_CHARACTERS = 100_000
"""Of a battle's conversation, which is held until the vote."""

MOST_JUDGE = 200
"""Characters of the name of who votes."""


@dataclass
class OpenBattle:
    """Who answers on which side, and what has been answered so far; `answers` of a side is there once it is whole."""

    models: dict[str, str]
    messages: list[Message]
    answers: dict[str, str] = field(default_factory=dict)
    counted: bool = False


class Arena:
    """Battles between `models`, by name. Votes go to `folder`."""

    def __init__(self, models: Sequence[str], folder: Path, *, seed: int | None = None) -> None:
        """Mends what a killed server has left half written. Raises `StageError` where the votes can't be read."""
        self.models, self.folder = list(models), folder
        self._random = random.Random(seed)
        self._open: OrderedDict[str, OpenBattle] = OrderedDict()
        self._lock = threading.Lock()
        if (folder / BATTLES).exists():
            with locked(folder / BATTLES):
                self._mend()

    def begin(self, messages: Sequence[Message]) -> str:
        """Draws two models and their sides, and returns the battle's name. Raises `StageError` for messages that are
        no conversation, or where there is nobody to fight."""
        check(messages)
        if sum(len(message["content"]) for message in messages) > _MOST_CHARACTERS:
            raise StageError(f"The conversation has more than {_MOST_CHARACTERS:,} characters.", "Make it shorter.")
        if len(self.models) < 2:
            raise StageError("An arena needs two models.", "Start it with models=[run-a,run-b].")
        with self._lock:
            name = secrets.token_hex(8)
            first, second = self._random.sample(self.models, 2)
            self._open[name] = OpenBattle({"a": first, "b": second}, list(messages))
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return name

    def battle(self, name: str) -> OpenBattle:
        """Raises `StageError` where there is no such battle (any more)."""
        with self._lock:
            if name not in self._open:
                raise StageError("There is no such battle.", "It has been voted on, or the server was restarted.")
            return self._open[name]

    def vote(self, name: str, winner: str, judge: str) -> dict[str, str]:
        """Writes the verdict down and returns who was who. Raises `StageError` for a verdict that is none, a judge
        whose name can't be written, a battle that is not there, one whose answers are not whole, and where the file
        can't be written: then the battle is still open."""
        if winner not in WINNERS:
            raise StageError(f"winner={winner!r:.40} is not a verdict.", f"Allowed: {', '.join(WINNERS)}.")
        if len(judge) > MOST_JUDGE or judge != judge.encode("utf-8", "replace").decode("utf-8"):
            raise StageError(f"judge must be a name of at most {MOST_JUDGE} characters that UTF-8 can express.")
        battle = self.battle(name)
        with self._lock:
            if set(battle.answers) != set(SIDES):
                raise StageError("The answers are not whole yet.", "Vote when both have ended.")
            if battle.counted:
                raise StageError("There is no such battle.", "It has been voted on already.")
            battle.counted = True
        row = {
            "model_a": battle.models["a"], "model_b": battle.models["b"],
            "winner": f"model_{winner}" if winner in SIDES else winner,
            "answer_a": battle.answers["a"], "answer_b": battle.answers["b"],
            "prompt": battle.messages[-1]["content"], "judge": judge, "messages": battle.messages,
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        try:
            with locked(self.folder / BATTLES):
                append_rows(self.folder / BATTLES, [sealed(row)])
                if (preference := _preference(row)) is not None:
                    append_rows(self.folder / PREFERENCES, [preference])
        except Exception:
            battle.counted = False
            raise
        with self._lock:
            self._open.pop(name, None)
        return dict(battle.models)

    def votes(self) -> int:
        """How many there are in the file."""
        try:
            return sum(1 for _ in (self.folder / BATTLES).open("rb"))
        except FileNotFoundError:
            return 0

    def ratings(self) -> dict[str, Any]:
        """Of the votes so far, best first: Elo-like numbers with 90% intervals; `why` says where there are none."""
        if not self.votes():
            return {"models": [], "why": "There are no votes yet."}
        try:
            battles, _ = read_battles(self.folder / BATTLES)
            winners, losers, ties = zip(*((one.winner, one.loser, one.tied) for one in battles), strict=True)
            rated = bradley_terry_ratings(winners, losers, ties=ties)
        except MaquetteError as error:
            return {"models": [], "why": f"{error.message} {error.hint}".strip()}
        rows = []
        for name, interval in rated.intervals.items():
            low, high = (1000 + ELO * end for end in interval)
            known = math.isfinite(low) and math.isfinite(high) and not rated.warnings
            row = {"name": name, "rating": rated.elo(name), "battles": rated.battles[name]}
            rows.append(row | {"interval": [low, high] if known else None})
        why = [*rated.warnings, "More votes will tell; until then the numbers are an order alone."]
        return {"models": rows, "why": " ".join(why) if rated.warnings else ""}

    def _mend(self) -> None:
        """Leaves whole lines alone in the battles, and one preference for each that was decided."""
        battles = self.folder / BATTLES
        _end_last_line(battles)
        with reading(battles):
            rows = [unsealed(row, where, hint=CHANGED) for where, row in read_log(battles)]
            wanted = [json.dumps(one, ensure_ascii=False) for row in rows if (one := _preference(row)) is not None]
        preferences = self.folder / PREFERENCES
        text = "".join(f"{line}\n" for line in wanted)
        if not preferences.exists() or preferences.read_text(encoding="utf-8", errors="replace") != text:
            write_text(preferences, text)


def _end_last_line(path: Path) -> None:
    """A whole vote whose line break is missing or damaged gets it back; half of one, which was never acknowledged, is
    cut off."""
    data = path.read_bytes()
    start = data.rfind(b"\n") + 1
    for end in (len(data), len(data) - 1):
        with contextlib.suppress(ValueError, RecursionError, StageError):
            row = json.loads(data[start:end])
            if isinstance(row, dict) and CHECKSUM in row:
                check_seal(row, path)
                with path.open("rb+") as file:
                    file.truncate(end)
                    file.seek(end)
                    file.write(b"\n")
                    os.fsync(file.fileno())
                return
    cut_half_line(path)


def _preference(row: dict[str, Any]) -> dict[str, Any] | None:
    """The line of a battle in the preferences; None of a tie, and where both have said the same."""
    if row["winner"] in ("tie", BOTH_BAD) or row["answer_a"] == row["answer_b"]:
        return None
    responses = {side: [Message(role="assistant", content=row[f"answer_{side}"])] for side in SIDES}
    winner = row["winner"][-1]
    other = "b" if winner == "a" else "a"
    return Preference(row["messages"], responses[winner], responses[other], row["judge"]).row()
