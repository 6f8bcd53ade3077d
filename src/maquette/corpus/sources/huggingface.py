"""Documents from a data set that the package `datasets` reads: of the Hugging Face hub by name, or a local folder."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import progress
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.base import document_from_row, domain_name
from maquette.corpus.sources.files import digest_files, list_files
from maquette.corpus.workers import Workers


class HuggingFace:
    """Streams one split of a data set: nothing but the rows read is downloaded, so `source.limit` saves the rest.

    What the hub holds may change; the artifact is what was read at first, until `force=true` reads it again.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._path = config.path or ""
        self._version = ""
        try:
            import datasets
        except ImportError:
            raise StageError(
                "source=huggingface needs the package datasets.",
                'Install it with: pip install "maquette-lm[curation]".',
            ) from None
        self._datasets = datasets
        self.label = f"huggingface-{domain_name(self._path.rstrip('/').rpartition('/')[2])}"

    def inputs(self) -> dict[str, str]:
        root = Path(self._path)
        if root.exists():
            return {"files": digest_files(list_files(root, None, "data"), root)}
        return {}

    def documents(self, workers: Workers) -> Iterator[Document]:
        return itertools.islice(self._documents(), self._config.limit)

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "huggingface",
            "path": self._path,
            "subset": self._config.subset,
            "split": self._config.split,
            "version": self._version,
        }

    def _documents(self) -> Iterator[Document]:
        named = f"{self._path}{f', {self._config.subset}' if self._config.subset else ''}, split {self._config.split}"
        try:
            rows = self._datasets.load_dataset(
                self._path, name=self._config.subset, split=self._config.split, streaming=True
            )
            self._version = str(rows.info.version or "") if rows.info is not None else ""
            with progress("reading", self._config.limit, unit="rows") as advance:
                for number, row in enumerate(rows, 1):
                    advance(1)
                    yield document_from_row(row, self._config, f"{named}, row {number}")
        except StageError:
            raise
        except Exception as error:  # whatever its many readers raise: none of it is a fault of this program
            raise StageError(
                f"The data set {named} can't be read: {str(error).splitlines()[0] if str(error) else error!r}",
                "Check source.path, source.subset, source.split and the connection.",
            ) from None
