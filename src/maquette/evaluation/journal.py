"""The journal of results that an evaluation resumes from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from maquette.artifacts import StageError
from maquette.artifacts.files import append_rows, cut_half_line
from maquette.artifacts.reading import check_seal, read_log, sealed

Item = TypeVar("Item")


class Journal:
    """Results by key, kept in a file: who is killed resumes from it. A line that a crash cut is left out."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.results: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        cut_half_line(self.path)
        hint = "Remove the line: what it held is evaluated again."
        for where, row in read_log(self.path, hint=hint):
            if not isinstance(row, dict) or not {"key", "result"} <= row.keys():
                raise StageError(f"{where} is damaged: it must have a key and a result.", hint)
            check_seal(row, where, hint=hint)
            self.results[row["key"]] = row["result"]

    def __contains__(self, key: str) -> bool:
        return key in self.results

    def __getitem__(self, key: str) -> Any:
        return self.results[key]

    def add(self, results: Iterable[tuple[str, Any]]) -> None:
        """Appends results, with what was noted of them, which are on the disk when this returns. Raises `StageError`
        where it is full."""
        added = {**dict(results), **self._notes}
        append_rows(self.path, (sealed({"key": key, "result": result}) for key, result in added.items()))
        self.results |= added
        self._notes.clear()

    def note(self, key: str, result: Any) -> None:
        """Keeps a number about the results that are added next, in the same write: neither is there without the
        other, whenever the process is killed."""
        self._notes[key] = result

    def complete(
        self,
        items: Mapping[str, Item],
        compute: Callable[[Sequence[Item]], Sequence[Any]],
        *,
        size: Callable[[Item], int],
        at_once: int,
        advance: Callable[[float], None],
    ) -> list[Any]:
        """The result of every item, by its key: what the journal lacks is computed `at_once` a time, largest first."""
        waiting = sorted((key for key in items if key not in self), key=lambda key: -size(items[key]))
        advance(len(items) - len(waiting))
        for start in range(0, len(waiting), at_once):
            keys = waiting[start : start + at_once]
            self.add(zip(keys, compute([items[key] for key in keys]), strict=True))
            advance(len(keys))
        return [self[key] for key in items]
