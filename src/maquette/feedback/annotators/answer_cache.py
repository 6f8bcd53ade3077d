"""What was asked and answered before, on disk: nobody pays twice, and nothing that was judged is ever lost."""

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.files import digest


class AnswerCache:
    """Answers by what was asked, in one SQLite file; each is on disk before the next is asked for. Safe for threads
    and for several processes."""

    def __init__(self, path: Path | str) -> None:
        """Raises `StageError` where the file can't be opened or is no cache."""
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(self.path, check_same_thread=False, timeout=60)
            self._store.execute("create table if not exists answers (question text primary key, answer text not null)")
            self._store.commit()
        except (OSError, sqlite3.Error) as error:
            raise StageError(
                f"{self.path} can't be used as a cache of judgements: {error}.", "Move it away, or name another file."
            ) from None
        self._lock = threading.Lock()

    def get(self, question: Any) -> dict[str, Any] | None:
        """What was answered to this question (plain values), if it was asked."""
        with self._lock:
            row = self._store.execute("select answer from answers where question = ?", (digest(question),)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, question: Any, answer: dict[str, Any]) -> None:
        """Keeps an answer; it is on disk when this returns."""
        with self._lock:
            self._store.execute("insert or replace into answers values (?, ?)", (digest(question), json.dumps(answer)))
            self._store.commit()

    def close(self) -> None:
        self._store.close()
