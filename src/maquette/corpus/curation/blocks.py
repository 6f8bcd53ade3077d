"""The passes of a curation as blocks of datatrove pipelines. Imports datatrove."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import write_json
from maquette.corpus.curation.curate import Job, between
from maquette.corpus.curation.engine import Work, run_shards
from maquette.corpus.curation.extract import extracted
from maquette.corpus.curation.journal import read_journal, step_of
from maquette.corpus.curation.refine import refined


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's local executor, whose first worker does not print all that it logs: the logs are in files."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        try:
            return super()._run_for_rank(rank, local_rank + 1, node_rank)
        finally:
            logger.remove()  # it has turned itself on again

    def run(self) -> Any:
        """Runs the tasks that are not completed."""
        logger.remove()
        return super().run()


class Pass(PipelineStep):
    """One pass; `failure` is the file in which a task leaves what went wrong, for people."""

    type = "MAQUETTE"

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        super().__init__()
        self.job = job
        self.failure: Path = job.places.notes / f"{name}.failed.json"

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """The task `rank` of `world_size`. It has no documents for the next block: they are in files."""
        if data:
            yield from data
        try:
            with self.track_time("shard"):
                self.work(rank, world_size)
        except StageError as error:
            write_json(self.failure, [error.message, error.hint])
            raise RuntimeError(str(error)) from None  # which can be pickled

    def work(self, rank: int, world_size: int) -> None:
        """Does the task."""
        raise NotImplementedError

    def is_done(self, number: int) -> bool:
        """Whether the shard `number` has been through this pass."""
        raise NotImplementedError


class ShardPass(Pass):
    """A pass over shards: those of a task are `rank`, `rank` + `world_size`, ..."""

    def __init__(self, name: str, job: Job, seconds: float) -> None:
        super().__init__(name, job)
        self.seconds = seconds

    def work(self, rank: int, world_size: int) -> None:
        mine = range(rank, len(self.job.shards), world_size)
        run_shards(
            self._work, [shard.size for shard in self.job.shards],
            lambda number: number not in mine or self._is_settled(number), self.job.places.notes / self.name,
            processes=1, description=f"{self.name}, task {rank}", unit="bytes", seconds=self.seconds,
        )  # fmt: skip
        for number in mine:
            if self.is_done(number):
                self._count(number)

    @property
    def _work(self) -> Work:
        return self.job.extract if self.name == "extract" else self.job.refine

    @property
    def _folder(self) -> Path:
        return self.job.places.extract if self.name == "extract" else self.job.places.refine

    def is_done(self, number: int) -> bool:
        return extracted(self._folder, number) if self.name == "extract" else refined(self._folder, number)

    def _is_settled(self, number: int) -> bool:
        lost = self.name == "refine" and not extracted(self.job.places.extract, number)
        return lost or self.is_done(number)

    def _count(self, number: int) -> None:
        """A shard's rejections by step, in datatrove's statistics."""
        journal = read_journal(self._folder / f"{number:05d}.journal.parquet", ["reason"])
        for step, count in journal["reason"].map(step_of).value_counts().items():
            self.stat_update(f"rejected_{step}".replace(" ", "_") if step else "kept", value=int(count))


class ContextPass(Pass):
    """What is decided between the passes, over all shards that were not lost."""

    def work(self, rank: int, world_size: int) -> None:
        whole = [number for number in range(len(self.job.shards)) if extracted(self.job.places.extract, number)]
        if self.job.shards and not whole:
            raise StageError("Every shard was lost.", "See the logs of the extract tasks.")
        between(self.job, whole)

    def is_done(self, number: int) -> bool:
        return (self.job.places.context / "report.json").exists()


def block(name: str, job: Job, seconds: float) -> Pass:
    """The block of the pass `name`."""
    make: Callable[[], Pass] = (
        functools.partial(ContextPass, name, job)
        if name == "context"
        else functools.partial(ShardPass, name, job, seconds)
    )
    return make()
