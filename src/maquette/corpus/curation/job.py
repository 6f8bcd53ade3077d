"""What a curation has to do, pass by pass; who does it is an executor's matter.

1. `extract`: pages, addresses, language                     (a shard at a time, anywhere)
2. `statistics`: repeated addresses and lines, models         (over all shards, in one place)
3. `filter`: lines, rules, personal data, safety, quality    (a shard at a time, anywhere)

Each pass writes its own files, a folder each, and is not done again where they are.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import say
from maquette.artifacts.reading import write_sealed
from maquette.corpus.config import CurationConfig
from maquette.corpus.curation.corpus_statistics import duplicate_addresses, write_statistics
from maquette.corpus.curation.extract import extract_shard
from maquette.corpus.curation.filter import filter_shard
from maquette.corpus.curation.shards import Shard, Watch, run_shards

PASSES = ("extract", "statistics", "filter")


@dataclasses.dataclass(frozen=True)
class CurationJob:
    """All that the work on one shard needs to know; picklable. `root` is the folder of what lies in between; without
    `enabled` pages are only read."""

    shards: Sequence[Shard]
    config: CurationConfig
    root: Path
    enabled: bool
    limit: int | None

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that there are to do, in order."""
        return PASSES if self.enabled else PASSES[:1]

    def make_folders(self) -> None:
        for name in ("extract", "filter", "notes"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Removes everything: the corpus is made."""
        shutil.rmtree(self.root, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.root.parent.rmdir()  # where no other curation is under way

    def is_done(self, name: str, number: int) -> bool:
        """Whether the shard `number` has been through a pass."""
        if name == "statistics":
            return (self.root / "statistics" / "report.json").exists()
        return (self.root / name / f"{number:05d}.parquet").exists()

    def through(self, name: str) -> list[int]:
        """The shards that have been through a pass. Raises `StageError` where none has."""
        numbers = [number for number in range(len(self.shards)) if self.is_done(name, number)]
        if self.shards and not numbers:
            raise StageError(
                "Every shard was lost.",
                "See the lines above or, with datatrove, the tasks' logs; corpus.workers=1 needs the least memory.",
            )
        return numbers

    def run_pass(self, name: str, numbers: range, processes: int, description: str, seconds: float) -> None:
        """The pass `extract` or `filter` over those of the shards `numbers` that are not through it."""
        work = self._extract if name == "extract" else self._filter

        def is_settled(number: int) -> bool:
            lost = name == "filter" and not self.is_done("extract", number)
            return number not in numbers or lost or self.is_done(name, number)

        sizes: list[float] = [shard.size for shard in self.shards]
        if name == "filter":
            files = [self.root / "extract" / f"{number:05d}.parquet" for number in range(len(sizes))]
            sizes = [file.stat().st_size if file.exists() else 0 for file in files]
        run_shards(work, sizes, is_settled, self.root / "notes" / name, processes, description, seconds)

    def _extract(self, number: int, watch: Watch) -> None:
        shard, folder = self.shards[number], self.root / "extract"
        extract_shard(shard, number, self.config, folder, watch, enabled=self.enabled, limit=self.limit)

    def _filter(self, number: int, watch: Watch) -> None:
        filter_shard(number, watch, self.root, self.config)

    def make_statistics(self) -> None:
        """The pass `statistics`, over all shards that were not lost, unless it is done."""
        shards = self.through("extract")
        folder = self.root / "statistics"
        if self.is_done("statistics", 0):
            return
        say("learning from the whole corpus: repeated lines, tokens, quality")
        folder.mkdir(parents=True, exist_ok=True)
        left = self.limit
        for number, later in duplicate_addresses(self.root / "extract", shards).items():
            until = None if left is None else max(left, 0)
            left = None if left is None else left - later.size
            known = {"duplicates": np.flatnonzero(later).tolist(), "until": until}
            write_sealed(folder / f"{number:05d}.skip.json", known)
        write_statistics(self.root / "extract", shards, folder, self.config)
