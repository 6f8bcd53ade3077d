"""Results of an evaluation that are there already, a JSON line each: one that is killed resumes where it was."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.files import explain_os_error


class Journal:
    """Results by key, kept in a file. `add` returns once they are on the disk; a line that a crash cut is left out."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.results: dict[str, Any] = {}
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                self.results[row["key"]] = row["result"]
            except (ValueError, KeyError, TypeError):
                raise StageError(
                    f"{self.path}, line {number} is damaged.", "Remove the line: what it held is evaluated again."
                ) from None
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))

    def __contains__(self, key: str) -> bool:
        return key in self.results

    def __getitem__(self, key: str) -> Any:
        return self.results[key]

    def add(self, results: Iterable[tuple[str, Any]]) -> None:
        """Appends results. Raises `StageError` where the disk is full."""
        found = dict(results)
        lines = "".join(json.dumps({"key": k, "result": r}, ensure_ascii=False) + "\n" for k, r in found.items())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        self.results |= found
