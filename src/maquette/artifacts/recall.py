"""What a stage found out when it last read the same things: asked again, it imports nothing that reads them.

A file holds the answer beside the digest of everything that it was read from, this program among them. It counts only
where all of that is the same; a server, or whatever else can't be asked for a digest, has no answer that is kept.
"""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import maquette
from maquette.artifacts.files import digest, file_digest, listed, read_json, write_json


def recall(path: Path, sources: Mapping[str, Any]) -> Any:
    """The answer that `path` keeps; None where there is none, or one of its `sources` is another or unknown (None)."""
    memory = read_json(path)
    if None in sources.values() or not isinstance(memory, dict) or memory.get("sources") != _digest(sources):
        return None
    return memory.get("answer")


def remember(path: Path, sources: Mapping[str, Any], answer: Any) -> None:
    """Keeps the answer, unless one of its `sources` is unknown."""
    if None not in sources.values():
        write_json(path, {"sources": _digest(sources), "answer": answer})


def digest_of_files(folder: Path | str, *patterns: str) -> str:
    """Changes with the name or content of any file in `folder` that one of the patterns matches."""
    folder = Path(folder)
    paths = [path for pattern in patterns for path in listed(folder, pattern) if path.is_file()]
    return digest({str(path.relative_to(folder)): file_digest(path) for path in paths})


def _digest(sources: Mapping[str, Any]) -> str:
    return digest({**sources, "program": program_digest()})


@functools.cache
def program_digest() -> str:
    """Changes with any file of this program."""
    root, stamp = Path(maquette.__file__).parent, hashlib.sha256(maquette.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        facts = path.stat()
        stamp.update(f"{path.relative_to(root)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return stamp.hexdigest()
