"""The passes of a curation as datatrove pipelines: on this machine, or as job arrays on a Slurm cluster.

| datatrove pipeline | tasks | does |
|---|---|---|
| extract | one for each shard | the first pass over it |
| statistics | one | what is decided between the passes |
| filter | one for each shard | the second pass over it |

A task is a shard's pass as `shards.run_shards` does it, so the same documents are kept as by the local executor. Tasks
that are completed are not done again, nor are shards whose files are there. What follows (outliers, near-duplicates,
the corpus) is done by the process that asked, from the files of the passes: with Slurm they lie on a file system that
all machines see. `clusters_on_disk` finds near-duplicates of more documents than memory has room for.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig
from datatrove.utils.logging import logger

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import write_json
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import load_json, reading
from maquette.corpus.config import ExecutorConfig
from maquette.corpus.curation.job import CurationJob
from maquette.corpus.curation.journal import read_journal, step_of
from maquette.corpus.hashing import Integers
from maquette.corpus.near_duplicates import NO_SHINGLES, first_of_cluster, read_bands

_RECORD = np.dtype([("hash", "<u8"), ("document", "<u4")])  # as datatrove's first stage writes them
_PAIR = np.dtype([(name, "<u4") for name in ("left_shard", "left", "right_shard", "right")])

_POLL = 5.0  # seconds between two looks at a cluster's jobs
_SILENT = 12  # looks in a row that show no job although tasks are open: the queue is given a minute


class QuietLocalExecutor(LocalPipelineExecutor):
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


class CurationPass(PipelineStep):
    """One pass; `failure` is the file in which a task leaves what went wrong, for people."""

    type = "MAQUETTE"

    def __init__(self, name: str, job: CurationJob, seconds: float) -> None:
        self.name = name
        super().__init__()
        self.job = job
        self.seconds = seconds
        self.failure: Path = job.root / "notes" / f"{name}.failed.json"

    @property
    def tasks(self) -> int:
        """One for each shard, but for what is decided over all of them."""
        return 1 if self.name == "statistics" else max(len(self.job.shards), 1)

    @property
    def logs(self) -> Path:
        """datatrove's folder of this pass: logs, and a file for each task that is completed."""
        return (self.job.root / "datatrove" / self.name).absolute()

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """The task `rank` of `world_size`. It has no documents for the next block: they are in files."""
        if data:
            yield from data
        try:
            with self.track_time("shard"):
                self._work(range(rank, len(self.job.shards), world_size), rank)
        except StageError as error:
            write_json(self.failure, [error.message, error.hint])
            raise RuntimeError(str(error)) from None  # which can be pickled

    def _work(self, mine: range, rank: int) -> None:
        if self.name == "statistics":
            self.job.make_statistics()
            return
        self.job.run_pass(self.name, mine, 1, f"{self.name}, task {rank}", self.seconds)
        for number in mine:  # a shard's rejections by step, in datatrove's statistics
            if self.job.is_done(self.name, number):
                journal = read_journal(self.job.root / self.name / f"{number:05d}.journal.parquet", ["reason"])
                for step, count in journal["reason"].map(step_of).value_counts().items():
                    self.stat_update(f"rejected_{step}".replace(" ", "_") if step else "kept", value=int(count))

    def raise_failure(self) -> None:
        """What a task left for people, as `StageError`."""
        if self.failure.exists():
            raise StageError(*load_json(self.failure))


def run_passes(job: CurationJob, executor: ExecutorConfig, processes: int) -> None:
    """Runs all passes by datatrove's executors.

    Raises `StageError` where Slurm is missing, a pass fails, or jobs end with tasks undone.
    """
    passes = [CurationPass(name, job, executor.seconds_per_page) for name in job.passes]
    for one in passes:
        one.failure.unlink(missing_ok=True)
    if executor.kind == "slurm":
        _on_slurm(job, executor, passes)
    else:
        for one in passes:
            _here(one, processes)


def _here(one: CurationPass, processes: int) -> None:
    say(f"{one.name}: {one.tasks} tasks by datatrove")
    try:
        QuietLocalExecutor([one], tasks=one.tasks, workers=min(processes, one.tasks), logging_dir=str(one.logs)).run()
    except Exception as error:
        one.raise_failure()
        raise StageError(
            f"datatrove's task failed: {type(error).__name__}: {error}", f"See the logs in {one.logs}/logs."
        ) from error


def slurm_pipelines(executor: ExecutorConfig, passes: list[CurationPass]) -> list[SlurmPipelineExecutor]:
    """datatrove's Slurm executors of all passes, each waiting for the one before."""
    binaries, sources = Path(sys.executable).parent, Path(__file__).parents[3]  # for where nothing is installed
    here = f'export PATH="{binaries}:$PATH" PYTHONPATH="{sources}${{PYTHONPATH:+:$PYTHONPATH}}"'
    settings = {
        "time": executor.time,
        "partition": executor.partition,
        "mem_per_cpu_gb": executor.memory_gb,
        "workers": executor.workers or -1,
        "qos": executor.qos,
        "sbatch_args": dict(executor.sbatch),
        "max_array_size": executor.max_array_size,
        "env_command": executor.setup or here,
    }
    pipelines: list[SlurmPipelineExecutor] = []
    for one in passes:
        before = pipelines[-1] if pipelines else None
        pipelines.append(
            SlurmPipelineExecutor(
                [one], tasks=one.tasks, job_name=f"maquette-{one.name}", logging_dir=str(one.logs), depends=before,
                run_on_dependency_fail=False, **settings,
            )
        )  # fmt: skip
    return pipelines


def _on_slurm(job: CurationJob, executor: ExecutorConfig, passes: list[CurationPass]) -> None:
    if shutil.which("sbatch") is None:
        raise StageError(
            "executor=slurm needs sbatch, and this machine has none.",
            "Run the command on a login node of the cluster, or use executor=datatrove on this machine.",
        )
    if executor.partition is None:
        raise StageError("executor=slurm needs a partition.", "Name it: executor.partition=cpu (sinfo lists them).")
    submitted = job.root / "datatrove" / "slurm.json"
    jobs: list[str] = load_json(submitted) if submitted.exists() else []
    if not (jobs and _alive(jobs)):
        logger.remove()
        pipelines = slurm_pipelines(executor, passes)
        try:
            pipelines[-1].run()  # submits those it depends on first
        except (OSError, subprocess.CalledProcessError) as error:
            raise StageError(
                f"sbatch refused the jobs: {error}.", f"The scripts are in {passes[0].logs.parent / '*'}."
            ) from None
        jobs = [str(one.job_id) for one in pipelines if one.job_id not in (None, -1)]
        write_json(submitted, jobs)
        say(f"submitted to Slurm: jobs {', '.join(jobs) or 'none, all tasks are completed'}")
    _await(passes, jobs, lambda: _alive(jobs))


def _await(passes: list[CurationPass], jobs: list[str], alive: Callable[[], bool]) -> None:
    """Until every task is completed. The jobs live on without this process: running the command again waits on."""
    total = sum(one.tasks for one in passes)
    silent = shown = 0
    with progress("Slurm", total, unit="tasks") as advance:
        while True:
            queued = alive()  # looked at before the files: what ended in between has left them
            done = sum(len(list((one.logs / "completions").glob("*"))) for one in passes)
            advance(done - shown)
            shown = done
            for one in passes:
                one.raise_failure()
            if done >= total:
                return
            silent = 0 if queued else silent + 1
            if not jobs or silent >= _SILENT:
                raise StageError(
                    f"Slurm has no more of the jobs {', '.join(jobs)}, and {total - done} of {total} tasks are undone.",
                    f"See the logs in {passes[0].logs.parent / '*'}; run the command again to submit what is left.",
                )
            time.sleep(_POLL)


def _alive(jobs: list[str]) -> bool:
    """Whether any of the jobs is in the queue."""
    process = subprocess.run(
        ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(jobs)}"], capture_output=True, text=True, check=False
    )
    return process.returncode == 0 and bool(process.stdout.strip())


def clusters_on_disk(filtered: Path, shards: list[int], folder: Path, bands: int, processes: int) -> Integers:
    """What `near_duplicates.clusters` gives for the documents of all `shards`, in order; `folder` is for work files.

    Each band's hashes are sorted shard by shard and merged as streams by `MinhashDedupBuckets`, a task a band; memory
    grows with the pairs. datatrove's next stage keeps whichever document its union left as the root, so the clusters
    are made here: the first of each is kept. Raises `StageError` where datatrove fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    counts = _write_signatures(filtered, shards, folder / "signatures", bands)
    config = MinhashConfig(num_buckets=bands, hashes_per_bucket=1, hash_config=HashConfig(precision=64))
    say(f"near-duplicates: {bands} bands by datatrove")
    try:
        QuietLocalExecutor(
            [MinhashDedupBuckets(str(folder / "signatures"), str(folder / "pairs"), config=config)],
            tasks=bands, workers=min(processes, bands), logging_dir=str(folder / "logs"),
        ).run()  # fmt: skip
    except Exception as error:
        raise StageError(f"datatrove's MinHash buckets failed: {error}.", f"See {folder / 'logs'}.") from error
    starts = np.append(0, np.cumsum(counts))
    with reading(folder / "pairs"):
        duplicate_pairs = [np.fromfile(path, _PAIR) for path in sorted((folder / "pairs").glob("*.dups"))]
    pairs = np.concatenate([*duplicate_pairs, np.empty(0, _PAIR)])
    left = starts[pairs["left_shard"]] + pairs["left"]
    right = starts[pairs["right_shard"]] + pairs["right"]
    shutil.rmtree(folder, ignore_errors=True)
    return first_of_cluster(left, right, int(starts[-1]))


def _write_signatures(filtered: Path, shards: list[int], folder: Path, bands: int) -> list[int]:
    """Each shard's hashes by band, sorted, as datatrove's first stage writes them; the shards' document counts."""
    for band in range(bands):
        (folder / f"bucket_{band:03d}").mkdir(parents=True, exist_ok=True)
    counts = []
    with progress("sorting signatures", len(shards), unit="shards") as advance:
        for place, number in enumerate(shards):
            hashes = read_bands(filtered, [number])
            counts.append(len(hashes))
            for band in range(bands):
                known = np.flatnonzero(hashes[:, band] != NO_SHINGLES)
                records = np.empty(known.size, _RECORD)
                records["hash"], records["document"] = hashes[known, band], known
                records.sort(order=["hash", "document"])
                records.tofile(folder / f"bucket_{band:03d}" / f"{place:05d}.minhash.sig")
            advance(1)
    return counts
