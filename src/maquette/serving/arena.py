"""A blind arena: two models answer, a person says which is better, and only then learns who was who.

Each vote is a line of `battles.jsonl`, which `maquette ratings` reads, and, unless it is a tie, one of
`preferences.jsonl`, on which reward models and DPO train. The answers are those that were sent from here: a vote says
only which side.
"""

import datetime
import random
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maquette.artifacts import StageError
from maquette.artifacts.files import append_rows, locked
from maquette.data.preferences import Preference
from maquette.text.chat import Message, check

WINNERS = ("a", "b", "tie")
SIDES = ("a", "b")
BATTLES, PREFERENCES = "battles.jsonl", "preferences.jsonl"

_MOST_OPEN = 1000
"""Battles that wait for a vote; of more the oldest are forgotten."""


@dataclass
class OpenBattle:
    """Who answers on which side, and what has been answered so far; `answers` of a side is there once it is whole."""

    models: dict[str, str]
    messages: list[Message]
    answers: dict[str, str] = field(default_factory=dict)


class Arena:
    """Battles between `models`, by name. Votes go to `folder`."""

    def __init__(self, models: Sequence[str], folder: Path, *, seed: int | None = None) -> None:
        self.models, self.folder = list(models), folder
        self._random = random.Random(seed)
        self._open: OrderedDict[str, OpenBattle] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, messages: Sequence[Message]) -> str:
        """Draws two models and their sides, and returns the battle's name. Raises `StageError` for messages that are
        no conversation, or where there is nobody to fight."""
        check(messages)
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
                raise StageError("There is no such battle.", "It has been voted on, or the server was started anew.")
            return self._open[name]

    def vote(self, name: str, winner: str, judge: str) -> dict[str, str]:
        """Writes the verdict down and returns who was who. Raises `StageError` for a verdict that is none, a battle
        that is not there, one whose answers are not whole, and where the file can't be written."""
        if winner not in WINNERS:
            raise StageError(f"winner={winner!r} is no verdict.", f"Allowed: {', '.join(WINNERS)}.")
        battle = self.battle(name)
        if set(battle.answers) != set(SIDES):
            raise StageError("The answers are not whole yet.", "Vote when both have ended.")
        row = {
            "model_a": battle.models["a"], "model_b": battle.models["b"],
            "winner": winner if winner == "tie" else f"model_{winner}",
            "answer_a": battle.answers["a"], "answer_b": battle.answers["b"],
            "prompt": battle.messages[-1]["content"], "judge": judge, "messages": battle.messages,
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        with self._lock:
            if self._open.pop(name, None) is None:
                raise StageError("There is no such battle.", "It has been voted on already.")
        self._append(BATTLES, row)
        if winner != "tie" and battle.answers["a"] != battle.answers["b"]:
            other = "b" if winner == "a" else "a"
            said = {side: [Message(role="assistant", content=battle.answers[side])] for side in SIDES}
            self._append(PREFERENCES, Preference(battle.messages, said[winner], said[other], judge).row())
        return dict(battle.models)

    def votes(self) -> int:
        """How many there are in the file."""
        try:
            return sum(1 for _ in (self.folder / BATTLES).open("rb"))
        except FileNotFoundError:
            return 0

    def _append(self, name: str, row: object) -> None:
        """One line at the end; other servers may write there too."""
        with locked(self.folder / name):
            append_rows(self.folder / name, [row])
