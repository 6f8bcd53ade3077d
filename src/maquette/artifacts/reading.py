"""The one door through which files come in that somebody else may have written, cut or changed.

Whatever a library raises over such a file becomes one line that names the file and the place, and cuts what it quotes:
`with reading(path): ...` around any parser; `load_json` where the file is JSON. A JSON file of our own is written by
`write_sealed` with a checksum over its content and read by `load_sealed`, which notices a changed byte.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import MaquetteError, StageError
from maquette.artifacts.files import digest, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyarrow.parquet import ParquetFile

CHECKSUM = "checksum"
"""The key of a sealed file's checksum."""

_QUOTED = 200
"""Characters of a library's message, or of a value, that an error shows."""

_DEPTH = 100
"""Brackets within each other in a YAML file."""

_NODES = 100_000
"""Values that a YAML file may stand for."""

_FOREIGN = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, EOFError, AssertionError,
    NotImplementedError,
)  # fmt: skip
"""What parsers raise over damaged input; json, UnicodeDecodeError, pandas, Arrow's ArrowInvalid are ValueErrors."""


def short(value: object, most: int = _QUOTED) -> str:
    """A value as an error quotes it: one line, cut, and without what a terminal or UTF-8 can't show."""
    text = " ".join(str(value).split())
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= most else f"{text[:most]}..."


@contextlib.contextmanager
def reading(path: Path | str, *, hint: str = "", kind: type[MaquetteError] = StageError) -> Iterator[None]:
    """Turns what a parser raises inside into an error of this `kind` that names `path`. Errors of ours
    pass unchanged."""
    try:
        yield
    except MaquetteError:
        raise
    except FileNotFoundError as error:
        raise kind(f"{error.filename or path} is missing.", hint) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else short(error)
        raise kind(f"Can't read {path}: {reason}.", hint) from None
    except RecursionError:
        raise kind(f"{path} is nested too deeply.", hint) from None
    except Exception as error:
        if not isinstance(error, _FOREIGN) and type(error).__module__.partition(".")[0] not in _PARSERS:
            raise
        reason = short(error) if isinstance(error, ValueError) or str(error) else ""
        if not isinstance(error, ValueError):
            reason = f"{type(error).__name__} {reason}".strip()
        raise kind(f"{path} is damaged: {reason.rstrip('.')}.", hint) from None


_PARSERS = {"yaml", "_csv", "csv", "zlib", "gzip", "lzma", "struct", "zstandard", "pyarrow", "safetensors",
            "tokenize", "sqlite3", "zipfile", "binascii", "omegaconf", "antlr4", "tokenizers"}  # fmt: skip
"""Libraries whose exceptions are about what they were given."""


def parse_json(text: str | bytes, where: Path | str, *, hint: str = "") -> Any:
    """The value of JSON text, with or without a byte order mark. Raises `StageError`, which begins with `where` it
    stands, where it is none."""
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise StageError(
            f"{where} is not UTF-8: byte {error.start + 1} of it is 0x{error.object[error.start]:02x}.",
            hint or "Convert the file, for example with: iconv -f latin1 -t utf-8.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise StageError(f"{where} is not JSON: {short(error)}.", hint or "Repair or remove it.") from None


def read_log(path: Path | str, *, hint: str = "") -> Iterator[tuple[str, Any]]:
    """`(place, value)` of every line of a JSON lines file that runs append to. After its last line break there is
    nothing, or what a killed process had begun to write, which is left out. Raises `StageError` as `parse_json`."""
    path = Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines[:-1], 1):
        yield f"{path}, line {number}", parse_json(line, f"{path}, line {number}", hint=hint)


def load_json(path: Path | str, *, hint: str = "") -> Any:
    """The value in a JSON file, with or without a byte order mark. Raises `StageError` where it is missing, can't be
    read or is damaged."""
    with reading(path, hint=hint):
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def load_table(path: Path | str, *, hint: str = "") -> dict[str, Any]:
    """As `load_json`, of a file that holds an object."""
    value = load_json(path, hint=hint)
    if not isinstance(value, dict):
        raise StageError(f"{path} is damaged: it must hold an object, got {type(value).__name__}.", hint)
    return value


def load_yaml(path: Path | str, *, hint: str = "", kind: type[MaquetteError] = StageError) -> Any:
    """The value in a YAML file, of plain types. Raises an error of this `kind` as `reading`."""
    import yaml

    with reading(path, hint=hint, kind=kind):
        text, depth = Path(path).read_text(encoding="utf-8-sig"), 0
        for sign in text:
            depth += (sign in "[{") - (sign in "]}")
            if depth > _DEPTH:  # which the library takes minutes over
                raise RecursionError
        if _expanded(yaml.compose(text, yaml.SafeLoader), {}) > _NODES:
            raise ValueError(f"its aliases (*name) stand for more than {_NODES:,} values")
        return yaml.safe_load(text)


def _expanded(node: Any, known: dict[int, int]) -> int:
    """The values that a YAML node stands for, an alias as often as it is named. Raises `RecursionError` where it holds
    itself."""
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise RecursionError
        return known[id(node)]
    known[id(node)] = 0
    inside = [one for pair in node.value for one in (pair if isinstance(pair, tuple) else (pair,))]
    known[id(node)] = 1 + sum(_expanded(one, known) for one in inside)
    return known[id(node)]


def load_array(path: Path | str, *, mapped: bool = False, hint: str = "") -> "NDArray[Any]":
    """The array in a `.npy` file, perhaps `mapped` into memory; a pickle in it is refused."""
    import numpy as np

    with reading(path, hint=hint):
        return np.asarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))


def load_arrays(path: Path | str, *, hint: str = "") -> "dict[str, NDArray[Any]]":
    """The arrays in an `.npz` file, each of which the archive holds a checksum of."""
    import numpy as np

    with reading(path, hint=hint), np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
        if others := [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{', '.join(others)} is no array")  # NumPy gives the bytes of what it does not know
        return arrays


def open_parquet(path: Path | str, *, hint: str = "") -> "ParquetFile":
    """A Parquet file, open; its rows are read inside `reading` too. Pages are checked where they have checksums."""
    from pyarrow.parquet import ParquetFile

    with reading(path, hint=hint):
        return ParquetFile(path, page_checksum_verification=True)


def write_sealed(path: Path | str, content: Mapping[str, Any]) -> None:
    """Atomically writes a JSON object with a checksum of everything in it."""
    write_json(path, sealed(content))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its checksum, for a line of a file or a cell."""
    return {**content, CHECKSUM: _checksum(content)}


def load_sealed(path: Path | str, *, hint: str = "") -> dict[str, Any]:
    """The content of a file that `write_sealed` wrote. Raises `StageError` as `load_table`, and where a byte of the
    content has been changed."""
    content = load_table(path, hint=hint)
    check_seal(content, path, hint=hint)
    return {key: value for key, value in content.items() if key != CHECKSUM}


def check_seal(content: Mapping[str, Any], path: Path | str, *, hint: str = "") -> None:
    """Raises `StageError` where a sealed file's content is not what was written."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if content.get(CHECKSUM) != _checksum(rest):
        raise StageError(f"{path} is damaged: it does not match its checksum.", hint)


def unsealed(content: Mapping[Any, Any], where: Path | str, *, hint: str = "") -> dict[Any, Any]:
    """A line's or a cell's content without its checksum, which is checked where it has one: older ones have none."""
    if CHECKSUM in content:
        check_seal(content, where, hint=hint)
    return {key: value for key, value in content.items() if key != CHECKSUM}


def _checksum(content: Mapping[str, Any]) -> str:
    """Of the content as JSON gives it back."""
    return digest(json.loads(json.dumps(content, ensure_ascii=False, default=str)))
