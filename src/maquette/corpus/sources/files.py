"""Files that documents are read from: listed in a stable order, and digested."""

from pathlib import Path

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.progress import progress
from maquette.corpus.config import SourceConfig
from maquette.corpus.sources.base import domain_name
from maquette.corpus.sources.compression import SUFFIXES, readable


def list_files(path: Path, suffixes: tuple[str, ...] | None, what: str) -> list[Path]:
    """The file `path`, or all files below the folder `path` with one of `suffixes` (perhaps compressed; None: all).

    Sorted by their path below the folder; hidden ones are left out. Raises `StageError` where there are none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise StageError(f"{path} does not exist.", "Check source.path.")
    files = [
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    chosen = [file for file in files if suffixes is None or plain_name(file).endswith(suffixes)]
    if not chosen:
        found = ", ".join(sorted({file.suffix or file.name for file in files})[:8]) or "nothing"
        wanted = " or ".join(suffixes) if suffixes else "any"
        raise StageError(f"{path} has no {what} files ({wanted}); it has {found}.", "Check source.path and source.")
    return sorted(chosen, key=lambda file: relative_name(file, path))


def source_root(config: SourceConfig) -> tuple[Path, str]:
    """The file or folder that a config names, and a label for what is made from it."""
    root = Path(config.path or ".").expanduser()
    return root, f"{config.kind}-{domain_name(root.resolve().name.partition('.')[0])}"


def relative_name(file: Path, root: Path) -> str:
    """The file's path below `root`, with slashes; its name where it is the root."""
    return file.relative_to(root).as_posix() if file != root else file.name


def plain_name(file: Path) -> str:
    """The name in lower case, without the ending of a compressed file."""
    name = file.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def digest_files(files: list[Path], root: Path) -> str:
    """One digest of the names and contents of `files`: changes when any of them does, and not when they are moved."""
    contents = {}
    with progress("checking the files", sum(file.stat().st_size for file in files), unit="bytes") as advance:
        for file in files:
            contents[relative_name(file, root)] = readable(file, file_digest)
            advance(file.stat().st_size)
    return digest(contents)
