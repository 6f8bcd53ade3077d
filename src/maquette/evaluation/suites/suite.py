"""What a model is asked: tasks from held-out documents, tasks from files, and documents whose likelihood is measured.

Held out is, of the corpus that a run was trained on, the test split.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, listed
from maquette.artifacts.manifest import read_manifest, verify_file
from maquette.artifacts.progress import say
from maquette.artifacts.reading import open_parquet
from maquette.evaluation.config import SuiteConfig
from maquette.evaluation.questions.embedded import make_task
from maquette.evaluation.questions.questions import QuestionSet
from maquette.evaluation.questions.readers import read_task
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
        if _rows(path := folder / f"{split}.parquet"):
            verify_file(path)
            return HeldOut(folder, split, manifest.digest)
    raise StageError(f"{folder} holds out no documents.", "Make a corpus with corpus.test=0.03.")


def _of_run(root: Path, checkpoint: Path) -> Path:
    folders = [path.parent for path in listed(root, "*/manifest.json")]
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
    return int(open_parquet(path).metadata.num_rows)


@dataclass(frozen=True)
class Suite:
    """`documents`: (id, domain, text) of each, in their stable order."""

    name: str
    tasks: tuple[QuestionSet, ...]
    documents: tuple[tuple[str, str, str], ...]

    @cached_property
    def documents_digest(self) -> str:
        """Digest of the documents, ids and texts."""
        return digest(self.documents)


def build_suite(config: SuiteConfig, held_out: HeldOut | None, *, seed: int = 0) -> Suite:
    """Makes and reads what the settings ask for; prints what is skipped in files. Raises `StageError` by file."""
    documents = held_out.documents() if held_out is not None else []
    tasks = [make_task(name, documents, config.items, seed) for name in config.embedded]
    for name, path in config.files.items():
        task = read_task(name, path)
        for reason, count in task.skipped.items():
            say(f"{name}: {count} questions with {reason} are left out")
        tasks.append(task)
    chosen = _sample(documents, config.documents, seed) if config.likelihood else ()
    return Suite(config.name, tuple(tasks), tuple(chosen))


def _sample(documents: list["Document"], count: int, seed: int) -> list[tuple[str, str, str]]:
    """At most `count` of each domain, those of a small one all."""
    by_domain: dict[str, list[Document]] = {}
    for document in documents:
        by_domain.setdefault(document.domain, []).append(document)
    samples = []
    for domain, own in sorted(by_domain.items()):
        if len(own) > count:
            own = random.Random(f"{domain} {seed}").sample(own, count)
        samples += [(document.id, domain, document.text) for document in own if document.text.strip()]
    return samples
