"""The held-out documents that a model may be asked about: of its own corpus, the test split."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.artifacts import StageError
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.training import read_record

if TYPE_CHECKING:
    from maquette.corpus.document import Document


@dataclass(frozen=True)
class HeldOut:
    """A split of a corpus artifact; `digest` of the corpus."""

    folder: Path
    split: str
    digest: str

    def documents(self) -> list["Document"]:
        """All of them, in their stable order."""
        from maquette.corpus.document import read_documents

        return list(read_documents(self.folder, self.split))


def find_held_out(corpus: str | None, outputs: str | Path, checkpoint: Path) -> HeldOut:
    """The corpus that `corpus` names (a folder or an artifact); by default that of the run, else the newest.

    Raises `StageError` where there is none, or it holds nothing out.
    """
    root = Path(outputs) / "artifacts" / "corpus"
    if corpus is not None:
        folder = Path(corpus) if Path(corpus).is_dir() else root / corpus
    else:
        folder = _of_run(root, checkpoint)
    manifest = read_manifest(folder)
    for split in ("test", "validation"):
        if _rows(folder / f"{split}.parquet"):
            return HeldOut(folder, split, manifest.digest)
    raise StageError(f"{folder} holds out no documents.", "Make a corpus with corpus.test=0.03.")


def _of_run(root: Path, checkpoint: Path) -> Path:
    folders = sorted(path.parent for path in root.glob("*/manifest.json"))
    if not folders:
        raise StageError(f"There is no corpus in {root}.", "Make one with maquette corpus, or give corpus=<folder>.")
    record = read_record(checkpoint) or read_record(checkpoint.parent)
    if record is not None:
        for folder in folders:
            if read_manifest(folder).digest == record.spec.digests.get("corpus"):
                return folder
        say(f"the corpus of {checkpoint.name} is not in {root}: held-out documents may have been trained on")
    return max(folders, key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns)


def _rows(path: Path) -> int:
    if not path.is_file():
        return 0
    from pyarrow.parquet import ParquetFile

    return int(ParquetFile(path).metadata.num_rows)
