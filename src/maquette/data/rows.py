"""Rows of JSON files: `.jsonl` or `.ndjson` with an object a line, `.json` with a list of objects; also compressed.

Each row comes with the place it stands at, so that whatever is wrong with it can be named.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.progress import progress
from maquette.corpus.sources.files import json_object, list_files, parse_json, plain_name, read_lines, read_whole

SUFFIXES = (".jsonl", ".ndjson", ".json")


def json_files(path: Path | str, what: str) -> list[Path]:
    """The file `path`, or the JSON files below the folder, sorted. Raises `StageError` where there are none."""
    path = Path(path).expanduser()
    if not path.exists():
        raise StageError(f"{path} does not exist.", f"Give a JSON lines file of {what}, or a folder of them.")
    return list_files(path, SUFFIXES, what)


def read_rows(files: list[Path], what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(place, row)` of every row, in order. Raises `StageError` that names the place of one that can't be read."""
    with progress(f"reading {what}", sum(file.stat().st_size for file in files), unit="bytes") as advance:
        for file in files:
            if plain_name(file).endswith(".json"):
                yield from _listed(file)
                advance(file.stat().st_size)
                continue
            for number, line in read_lines(file, advance):
                if line.strip():
                    where = f"{file}, line {number}"
                    yield where, json_object(parse_json(line, where), where)


def _listed(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = parse_json(read_whole(file), str(file))
    if not isinstance(rows, list):
        raise StageError(f"{file} holds no list of rows.", "Write [{...}, {...}], or a .jsonl file with a row a line.")
    for number, row in enumerate(rows, 1):
        where = f"{file}, row {number}"
        yield where, json_object(row, where)
