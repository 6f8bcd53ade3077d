"""An artifact is a folder with a `manifest.json`: what made it, from what, and the digest of every file in it.

`build` is the one way to make an artifact: it finds a finished one with the same fingerprint and returns it,
waits where another process is making it, and otherwise fills a temporary folder that takes its place at once.

What a stage found out when it last read the same things is kept in a file beside (`remember`, `recall`): it counts only
where all that it was read from is the same, this program among it. A server, or whatever else can't be asked for a
digest, has no answer that is kept.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import maquette
from maquette import __version__
from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import (
    atomic_folder,
    check_name,
    digest,
    file_digest,
    holds_manifest,
    listed,
    locked,
    read_json,
    recover,
    write_json,
)
from maquette.artifacts.reading import check_seal, load_table, reading, write_sealed

FORMAT = 4
"""Of `manifest.json` and of the facts in it. 3: every file counts in the digest, which such an artifact keeps, so that
what was made from it is found; older ones and newer ones are refused by name, never half understood."""

_OLDEST = 3

_SHOWN = (".png", ".svg", ".html", ".md")
"""What is drawn and written for people: the same content looks otherwise with another matplotlib or other words, and
stays the same artifact."""

CHECKED_BYTES = 2**28
"""Up to so large an artifact that is found again has its checksums looked at (a fifth of a second); of larger ones the
sizes. What reads shards checks them in any case."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. `facts` is the artifact's own part (counts, vocabulary, shards ...)."""

    kind: str
    name: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    created: str = ""
    maquette_version: str = __version__
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Digest of the content alone (names and bytes of all files but pictures, pages and reports in words), not of
        how or when it was made."""
        counted = self.files if self.format < 4 else [name for name in self.files if not name.endswith(_SHOWN)]
        return digest({name: self.files[name]["sha256"] for name in counted})


def read_manifest(folder: Path | str) -> Manifest:
    """Reads an artifact folder's manifest. Raises `StageError` where it is missing, damaged or too new."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        recover(Path(folder).parent)
    if not path.exists():
        raise StageError(f"{path} is missing.", "The folder is not an artifact of maquette, or was not finished.")
    raw = load_table(path, hint=rebuild_advice(folder))
    version = raw.get("format", 0)
    if not isinstance(version, int) or version > FORMAT:
        raise StageError(f"{path} has a format that this version does not know.", "Upgrade maquette-lm.")
    if version < _OLDEST:
        raise StageError(
            f"{path} is of format {version} and this version reads {_OLDEST} to {FORMAT}.", rebuild_advice(folder)
        )
    check_seal(raw, path, hint=rebuild_advice(folder))
    known = {field.name for field in dataclasses.fields(Manifest)}
    with reading(path, hint=rebuild_advice(folder)):
        manifest = Manifest(**{key: value for key, value in raw.items() if key in known})
    if manifest.maquette_version != __version__:
        warnings.warn(
            f"{folder} was made by maquette {manifest.maquette_version}; this is {__version__}.", stacklevel=2
        )
    return manifest


def rebuild_advice(folder: Path | str) -> str:
    """What to do where a file of the artifact `folder` is lost or changed."""
    return f"Restore the file, or delete the folder {folder} and run the command again, which rebuilds it."


def verify_files(folder: Path | str, manifest: Manifest | None = None, *, checksums: bool = True) -> Manifest:
    """Checks size and SHA-256 of every file of an artifact. Raises `StageError` naming the first that differs.

    Without `checksums` only sizes, which takes no time however large the artifact is.
    """
    folder = Path(folder)
    manifest = manifest or read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise StageError(f"{path} is missing.", rebuild_advice(folder))
        if path.stat().st_size != entry["bytes"]:
            raise StageError(
                f"{path} has {path.stat().st_size:,} bytes where its manifest says {entry['bytes']:,}: "
                "it was cut or changed.",
                rebuild_advice(folder),
            )
        if checksums and file_digest(path) != entry["sha256"]:
            raise StageError(
                f"{path} does not match its checksum: a byte was changed.",
                rebuild_advice(folder),
            )
    return manifest


def build(
    kind: str,
    root: Path | str,
    *,
    name: str | None,
    label: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    make: Callable[[Path], dict[str, Any]],
    made: Callable[[Path], None] = lambda folder: None,
    force: bool = False,
    say: Callable[[str], None] = print,
    key: str = "name",
) -> Path:
    """Makes `root/kind/<name>`, or returns it where it already stands with the same fingerprint.

    `name` defaults to `label` and the first eight digits of the fingerprint (the digest of `kind`, `config`,
    `inputs`: name -> digest). `make(folder)` fills a temporary folder and returns the manifest's `facts`;
    `made(folder)` is called with the folder in its place, where it was made just now.
    Raises `ConfigError` for a name (of the setting `key`) that leads elsewhere or already holds something made from
    other settings, `StageError` where a file of the artifact that is there was lost or changed.
    """
    fingerprint = digest({"kind": kind, "config": config, "inputs": inputs})
    chosen = name or f"{label}-{fingerprint[:8]}"
    folder = Path(root) / kind / check_name(chosen, key)

    def is_there() -> bool:
        if force or not (folder / "manifest.json").exists():
            return False
        manifest = read_manifest(folder)
        if manifest.fingerprint == fingerprint:
            verify_files(folder, manifest, checksums=_bytes(manifest) <= CHECKED_BYTES)
            say(f"{kind} {chosen}: up to date")
            return True
        raise ConfigError(
            f"{folder} was made from other settings.",
            f"Choose another name, or replace it with force=true. Differs: {_difference(manifest, config, inputs)}.",
        )

    if is_there():  # without a lock, which a read-only disk does not give
        return folder
    with locked(folder):
        if is_there():
            return folder
        with atomic_folder(folder) as temporary:
            facts = make(temporary)
            files = {
                path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
                for path in listed(temporary, "**/*")
                if path.is_file()
            }
            manifest = Manifest(
                kind, chosen, fingerprint, config, inputs, files, facts,
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            )  # fmt: skip
            write_sealed(temporary / "manifest.json", dataclasses.asdict(manifest))
    made(folder)
    return folder


def verify_file(path: Path | str) -> None:
    """Checks one file, where it is one of an artifact; of other files nothing is known. Raises `StageError` as
    `verify_files`."""
    path = Path(path)
    if holds_manifest(path.parent):
        manifest = read_manifest(path.parent)
        if path.name in manifest.files:
            verify_files(path.parent, dataclasses.replace(manifest, files={path.name: manifest.files[path.name]}))


def _bytes(manifest: Manifest) -> int:
    return sum(int(entry["bytes"]) for entry in manifest.files.values())


def _difference(manifest: Manifest, config: dict[str, Any], inputs: dict[str, str]) -> str:
    old, new = {**manifest.config, **manifest.inputs}, {**config, **inputs}
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return ", ".join(f"{key} ({old.get(key)} there, {new.get(key)} here)" for key in keys[:3]) or "its format"


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
    digests: dict[str, str] = {}
    for path in [path for pattern in patterns for path in listed(folder, pattern) if path.is_file()]:
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed, as a database's journal
            digests[str(path.relative_to(folder))] = file_digest(path)
    return digest(digests)


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
