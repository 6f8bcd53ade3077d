"""Files of rows: published tests and battles to read, and the journal of results that an evaluation resumes from."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from maquette.artifacts import StageError
from maquette.artifacts.files import append_rows, cut_half_line
from maquette.artifacts.reading import check_seal, open_parquet, read_log, reading, sealed, short
from maquette.corpus.sources.files import JSON_SUFFIXES, json_files, plain_name
from maquette.corpus.sources.files import read_rows as read_json_rows

Item = TypeVar("Item")


def read_rows(
    path: Path | str, what: str, is_head: Callable[[Sequence[str]], bool] = lambda cells: True
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """`(place, row)` of every row of a JSONL, JSON, CSV or Parquet file of `what`.

    A CSV file whose first line is no head has rows of cells by their number. Raises `StageError` that names the file,
    and the place of a row that can't be read.
    """
    path = Path(path).expanduser()
    if plain_name(path).endswith(JSON_SUFFIXES):
        yield from read_json_rows(json_files(path, what), what)
        return
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise StageError(f"{path}: {path.suffix or 'no ending'} is not known.", "Give .jsonl, .json, .csv or .parquet.")
    hint = f"Give a whole file of {what}; nothing is downloaded here."
    with reading(path, hint=hint):
        is_csv = path.suffix.lower() == ".csv"
        rows = _csv_rows(path, is_head) if is_csv else open_parquet(path, hint=hint).read().to_pylist()
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _csv_rows(path: Path, is_head: Callable[[Sequence[str]], bool]) -> list[dict[Any, Any]]:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a conversation
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    head: list[Any] = [cell.strip().strip("\ufeff") for cell in rows[0]] if rows else []
    if rows and not is_head(head):
        head = list(range(len(head)))
    elif len(set(head)) < len(head):
        raise StageError(f"{path}: the head {short(', '.join(head))} names a column twice.", "Rename one of them.")
    else:
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(head):
            raise StageError(
                f"{path}, row {number} has {len(row)} cells, the first line {len(head)}: {short(', '.join(row))}",
                "Commas inside a cell need quotes around it.",
            )
    return [dict(zip(head, row, strict=True)) for row in rows]


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
