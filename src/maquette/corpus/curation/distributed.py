"""The passes of a curation as datatrove pipelines: on this machine, or as job arrays on a Slurm cluster.

| datatrove pipeline | tasks | does |
|---|---|---|
| extract | one for each shard | the first pass over it |
| context | one | what is decided between the passes |
| refine | one for each shard | the second pass over it |

A task is a shard's pass as `engine.run_shards` does it, so a page that takes too long or brings its process down costs
itself here too, and the same documents are kept as by the local executor. Tasks that are completed are not done again,
nor are shards whose files are there. What follows (outliers, near-duplicates, the corpus) is done by the process that
asked, from the files of the passes: with Slurm they lie on a file system that all machines see.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import write_json
from maquette.artifacts.progress import progress, say
from maquette.corpus.curation.config import ExecutorConfig

if TYPE_CHECKING:
    from maquette.corpus.curation.curate import Job

PASSES = ("extract", "context", "refine")

_POLL = 5.0  # seconds between two looks at a cluster's jobs
_SILENT = 12  # looks in a row that show no job although tasks are open: the queue is given a minute


def run_distributed(job: "Job", executor: ExecutorConfig, processes: int) -> list[int]:
    """Runs all passes by datatrove's executors; returns the shards that were lost.

    Raises `StageError` where datatrove or Slurm is missing, a pass fails, or jobs end with tasks undone.
    """
    try:
        from maquette.corpus.curation import blocks
    except ImportError as error:
        raise StageError(
            f"executor={executor.kind} needs the package {error.name}.",
            'Install it with: pip install "maquette-lm[curation]".',
        ) from None
    passes = PASSES if job.enabled else PASSES[:1]
    steps = {name: blocks.block(name, job, executor.seconds_per_page) for name in passes}
    for name in passes:
        steps[name].failure.unlink(missing_ok=True)
    if executor.kind == "slurm":
        _on_slurm(job, executor, steps)
    else:
        _here(job, steps, processes)
    last = passes[-1]
    return [number for number in range(len(job.shards)) if not steps[last].is_done(number)]


def _tasks(name: str, job: "Job") -> int:
    return 1 if name == "context" else max(len(job.shards), 1)


def _logs(job: "Job", name: str) -> Path:
    return (job.places.root / "datatrove" / name).absolute()


def _here(job: "Job", steps: dict[str, Any], processes: int) -> None:
    from maquette.corpus.curation.blocks import LocalExecutor

    for name, step in steps.items():
        pipeline = LocalExecutor(
            [step],
            tasks=_tasks(name, job),
            workers=min(processes, _tasks(name, job)),
            logging_dir=str(_logs(job, name)),
        )
        say(f"{name}: {_tasks(name, job)} tasks by datatrove")
        try:
            pipeline.run()
        except Exception as error:
            _raise_failure(step)
            raise StageError(
                f"datatrove's task failed: {type(error).__name__}: {error}", f"See the logs in {_logs(job, name)}/logs."
            ) from error


def _raise_failure(step: Any) -> None:
    """What a task left for people, as `StageError`."""
    if step.failure.exists():
        raise StageError(*json.loads(step.failure.read_text(encoding="utf-8")))


def slurm_pipelines(job: "Job", executor: ExecutorConfig, steps: dict[str, Any]) -> list[Any]:
    """datatrove's Slurm executors of all passes, each waiting for the one before."""
    from datatrove.executor import SlurmPipelineExecutor

    settings = {
        "time": executor.time,
        "partition": executor.partition,
        "mem_per_cpu_gb": executor.memory_gb,
        "workers": executor.workers or -1,
        "qos": executor.qos,
        "sbatch_args": dict(executor.sbatch),
        "max_array_size": executor.max_array_size,
        "env_command": executor.setup or _this_environment(),
    }
    pipelines: list[Any] = []
    for name, step in steps.items():
        pipelines.append(
            SlurmPipelineExecutor(
                [step],
                tasks=_tasks(name, job),
                job_name=f"maquette-{name}",
                logging_dir=str(_logs(job, name)),
                depends=pipelines[-1] if pipelines else None,
                run_on_dependency_fail=False,
                **settings,
            )
        )
    return pipelines


def _this_environment() -> str:
    """The command that makes a shell use this Python and, where the package is not installed, its sources."""
    binaries = Path(sys.executable).parent
    sources = Path(__file__).parents[3]
    return f'export PATH="{binaries}:$PATH" PYTHONPATH="{sources}${{PYTHONPATH:+:$PYTHONPATH}}"'


def _on_slurm(job: "Job", executor: ExecutorConfig, steps: dict[str, Any]) -> None:
    if shutil.which("sbatch") is None:
        raise StageError(
            "executor=slurm needs sbatch, and this machine has none.",
            "Type the line on a login node of the cluster, or use executor=datatrove on this machine.",
        )
    if executor.partition is None:
        raise StageError("executor=slurm needs a partition.", "Name it: executor.partition=cpu (sinfo lists them).")
    submitted = job.places.root / "datatrove" / "slurm.json"
    jobs: list[str] = json.loads(submitted.read_text()) if submitted.exists() else []
    if not (jobs and _alive(jobs)):
        from datatrove.utils.logging import logger

        logger.remove()
        pipelines = slurm_pipelines(job, executor, steps)
        try:
            pipelines[-1].run()  # submits those it depends on first
        except (OSError, subprocess.CalledProcessError) as error:
            raise StageError(f"sbatch refused the jobs: {error}.", f"The scripts are in {_logs(job, '*')}.") from None
        jobs = [str(one.job_id) for one in pipelines if one.job_id not in (None, -1)]
        write_json(submitted, jobs)
        say(f"submitted to Slurm: jobs {', '.join(jobs) or 'none, all tasks are completed'}")
    _await(job, steps, jobs, lambda: _alive(jobs))


def _await(job: "Job", steps: dict[str, Any], jobs: list[str], alive: Callable[[], bool]) -> None:
    """Until every task is completed. The jobs live on without this process: typing the line again waits on."""
    total = sum(_tasks(name, job) for name in steps)
    silent = shown = 0
    with progress("Slurm", total, unit="tasks") as advance:
        while True:
            queued = alive()  # looked at before the files: what ended in between has left them
            done = sum(len(list((_logs(job, name) / "completions").glob("*"))) for name in steps)
            advance(done - shown)
            shown = done
            for step in steps.values():
                _raise_failure(step)
            if done >= total:
                return
            silent = 0 if queued else silent + 1
            if not jobs or silent >= _SILENT:
                raise StageError(
                    f"Slurm has no more of the jobs {', '.join(jobs)}, and {total - done} of {total} tasks are undone.",
                    f"See the logs in {_logs(job, '*')}; typing the line again submits what is left.",
                )
            time.sleep(_POLL)


def _alive(jobs: list[str]) -> bool:
    """Whether any of the jobs is in the queue."""
    found = subprocess.run(
        ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(jobs)}"], capture_output=True, text=True, check=False
    )
    return found.returncode == 0 and bool(found.stdout.strip())
