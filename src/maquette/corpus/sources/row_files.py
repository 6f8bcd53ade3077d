"""Rows that others have written, each with the place it stands at, so that whatever is wrong can be named.

Files: `.jsonl` or `.ndjson` with an object a line, `.json` with a list of objects, or the other way round; `.csv` whose
first line names the columns; `.parquet`; all but the last perhaps compressed. Data sets: one split of what the package
`datasets` loads from the Hugging Face hub, from a folder, or from what `save_to_disk` has left.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.manifest import verify_file
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import open_parquet, parse_json, reading, short
from maquette.corpus.sources import domain_name, needed
from maquette.corpus.sources.files import digest_files, list_files, plain_name, read_lines, read_whole

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIXES = (".parquet", ".pq")
ROW_SUFFIXES = (*JSON_SUFFIXES, *PARQUET_SUFFIXES, ".csv")

_ROWS = 512  # of a Parquet file at once

Rows = Iterator[tuple[str, dict[Any, Any]]]
"""`(place, row)`, where an error begins with the place."""


class RowSource(Protocol):
    """`label`: short, for names; `name`: for messages; `inputs`: digests of the bytes that are read, and `identity`
    what else decides what comes; `rows`: all of them, in order."""

    label: str
    name: str
    identity: str

    def inputs(self) -> dict[str, str]: ...

    def rows(self) -> Rows: ...


class RowFiles:
    """A file of rows of `what`, or all below a folder. Raises `StageError` where there is none."""

    def __init__(self, path: Path | str, what: str) -> None:
        self.files, self.name, self.identity, self._what = row_files(path, what), str(path), "", what
        self.label = Path(path).expanduser().resolve().name.partition(".")[0]

    def inputs(self) -> dict[str, str]:
        return {"files": digest([file_digest(file) for file in self.files])}

    def rows(self) -> Rows:
        for file in self.files:
            verify_file(file)
        return read_rows(self.files, self._what)


class DataSetRows:
    """A split of a data set: of the hub, of which nothing but the rows read is downloaded, or of a folder.

    What the hub holds may change; an artifact is of what was read at first."""

    def __init__(self, path: str, subset: str | None, split: str, key: str) -> None:
        """`key`: the settings that name it, for errors. Raises `StageError` without the package `datasets`."""
        self._path, self._subset, self._split, self._key = path, subset, split, key
        self._datasets: Any = needed("datasets", f"A split of a data set ({key}.split)")
        self.label = f"huggingface-{domain_name(path.rstrip('/').rpartition('/')[2])}"
        self.name = self.identity = f"{path}{f', {subset}' if subset else ''}, split {split}"
        self.version = ""

    def inputs(self) -> dict[str, str]:
        """Of what lies here; nothing of the hub's."""
        root = Path(self._path).expanduser()
        return {"files": digest_files(list_files(root, None, "data"), root)} if root.exists() else {}

    def rows(self) -> Rows:
        """Raises `StageError` with the first line of whatever the package says."""
        try:
            rows = self._opened()
            self.version = str(rows.info.version or "") if rows.info is not None else ""
            for number, row in enumerate(rows, 1):
                yield f"{self.name}, row {number}", row
        except StageError:
            raise
        except Exception as error:  # whatever its many readers raise: none of it is a fault of this program
            raise StageError(
                f"The data set {self.name} can't be read: {short(str(error).partition(chr(10))[0] or repr(error))}",
                f"Check {self._key}.path, {self._key}.subset, {self._key}.split and the connection.",
            ) from None

    def _opened(self) -> Any:
        root = Path(self._path).expanduser()
        if (root / "dataset_dict.json").is_file():
            saved = self._datasets.load_from_disk(str(root))
            if self._split not in saved:
                raise ValueError(f"Unknown split {self._split!r}. It has {', '.join(map(str, saved))}.")
            return saved[self._split]
        if (root / "state.json").is_file():
            return self._datasets.load_from_disk(str(root))
        return self._datasets.load_dataset(self._path, name=self._subset, split=self._split, streaming=True)


def row_files(path: Path | str, what: str, suffixes: tuple[str, ...] = ROW_SUFFIXES) -> list[Path]:
    """The file `path`, or the files of rows below the folder, sorted. Raises `StageError` where there are none."""
    path = Path(path).expanduser()
    if not path.exists():
        endings = ", ".join(suffixes)
        raise StageError(f"{path} does not exist.", f"Give a file of {what} ({endings}), or a folder of them.")
    return list_files(path, suffixes, what)


def read_rows(files: Sequence[Path], what: str, is_head: Callable[[Sequence[str]], bool] = lambda cells: True) -> Rows:
    """`(place, row)` of every row, in order. Rows of a CSV file whose first line is no head have cells by their number.

    Raises `StageError` that names the place of a row that can't be read."""
    with progress(f"reading {what}", sum(file.stat().st_size for file in files), unit="bytes") as advance:
        for file in files:
            rows: Iterable[Any]
            if plain_name(file).endswith(".csv"):
                rows = _of_csv(file, is_head)
            elif plain_name(file).endswith(PARQUET_SUFFIXES):
                rows = _of_parquet(file, what)
            elif (listed := _listed(file)) is not None:
                rows = listed
            else:
                known = plain_name(file).endswith(ROW_SUFFIXES)
                hint = "" if known else f"{file.suffix or 'No ending'} is not known; give {', '.join(ROW_SUFFIXES)}."
                for number, line in read_lines(file, advance):
                    if line.strip():
                        where = f"{file}, line {number}"
                        yield where, json_object(parse_json(line, where, hint=hint), where)
                continue
            for number, row in enumerate(rows, 1):
                where = f"{file}, row {number}"
                yield where, json_object(row, where)
            advance(file.stat().st_size)


def json_object(row: Any, where: str) -> dict[str, Any]:
    """`row`, which must be an object. Raises `StageError`, beginning with `where`, where it is none."""
    if not isinstance(row, dict):
        raise StageError(f"{where} is not a JSON object but {type(row).__name__}.", 'A row looks like {"text": "..."}.')
    return row


def _listed(file: Path) -> list[Any] | None:
    """The rows of a file that holds a list of them, None of one with a row a line: what it begins with says which, as
    either is found under the other's ending. Raises `StageError` for a `.json` file that holds neither."""
    is_json = plain_name(file).endswith(".json")
    first = next((line for _, line in read_lines(file, lambda _: None) if line.strip(_BLANK)), b"").strip(_BLANK)
    if first.startswith(b"[") or (is_json and not _is_object(first)):
        try:
            rows = parse_json(read_whole(file), str(file))
        except StageError:
            if is_json:
                raise
            return None
        if isinstance(rows, list) and (is_json or all(isinstance(row, dict) for row in rows)):
            return rows
        if is_json:
            raise StageError(f"{file} must hold a list of rows, or a row a line.", "Write [{...}, {...}].")
    return None


_BLANK = b" \t\r\n\xef\xbb\xbf"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _of_parquet(file: Path, what: str) -> Iterator[dict[str, Any]]:
    hint = f"Give a whole file of {what}; nothing is downloaded here."
    with reading(file, hint=hint):
        for batch in open_parquet(file, hint=hint).iter_batches(batch_size=_ROWS):
            yield from batch.to_pylist()


def _of_csv(file: Path, is_head: Callable[[Sequence[str]], bool]) -> Iterator[dict[Any, Any]]:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a conversation
    with reading(file):
        rows = [row for row in csv.reader(io.StringIO(read_whole(file).decode("utf-8-sig"), newline="")) if row]
    head: list[Any] = [cell.strip().strip("\ufeff") for cell in rows[0]] if rows else []
    if rows and not is_head(head):
        head = list(range(len(head)))
    elif len(set(head)) < len(head):
        raise StageError(f"{file}: the head {short(', '.join(head))} names a column twice.", "Rename one of them.")
    else:
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(head):
            raise StageError(
                f"{file}, row {number} has {len(row)} cells, the first line {len(head)}: {short(', '.join(row))}",
                "Commas inside a cell need quotes around it.",
            )
        yield dict(zip(head, row, strict=True))
