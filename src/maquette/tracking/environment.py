"""What a run's tags say: where it comes from, what it ran on, and which process it belongs to, so that one that was
killed is not shown as running for ever. Read-only, never fails a run."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import maquette

PACKAGES = (
    "torch", "lightning", "hydra-core", "omegaconf", "tokenizers", "mlflow", "numpy", "scipy", "pandas", "pyarrow",
    "safetensors",
)  # fmt: skip


def git_commit(folder: Path | None = None) -> str | None:
    """The commit of the checkout that `folder` (by default this package) lies in, with `+changes` where tracked
    files differ from it; None outside a checkout or without git."""
    folder = folder or Path(maquette.__file__).parent
    commit = run_git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if changes else commit


def run_git(folder: Path, *words: str) -> str | None:
    """What git prints for `words` in a folder, stripped; None where it fails, is not there, or takes ten seconds."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """Version of each of `PACKAGES` that is installed."""
    versions = {"python": platform.python_version(), "maquette-lm": maquette.__version__}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware_name() -> str:
    """Such as `2 x AMD EPYC 9J14` or `8 x NVIDIA H100 80GB HBM3`: the cores this process may use, or its GPUs."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{available_cores()} x {processor_name()}"


def machine_memory() -> float:
    """Bytes of memory that this machine has."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The kind of CPU, as Linux names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """The most memory this process has held at once so far: resident, or allocated on the GPU where one is used."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_environment() -> dict[str, str]:
    """Tags for a run: `git.commit`, `hardware`, `host`, and `version.<package>`."""
    tags = {"hardware": hardware_name(), "host": platform.node()}
    if commit := git_commit():
        tags["git.commit"] = commit
    return tags | {f"version.{name}": version for name, version in package_versions().items()}


PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own tag: its pages and searches nest a run below the one named here."""


def lineage_tags(
    digests: Mapping[str, str],
    *,
    parent: str | None = None,
    checkpoint: str | None = None,
    checkpoint_run: str | None = None,
) -> dict[str, str]:
    """Tags for a run: `digest.<name>` for each of `digests` (such as tokenizer, tokens, corpus); `parent`, the run id
    of its sweep; `checkpoint`, the name of the model its weights started from, and `checkpoint_run`, the run id that
    made them."""
    tags = {f"digest.{name}": value for name, value in digests.items()}
    named = {PARENT_TAG: parent, "checkpoint.from": checkpoint, "checkpoint.from_run": checkpoint_run}
    return tags | {key: value for key, value in named.items() if value is not None}


_PROCESS = "process"


def process_tag() -> dict[str, str]:
    """A tag that names this process: host, number, and the moment it began (numbers are used again)."""
    return {_PROCESS: f"{platform.node()} {os.getpid()} {_began(os.getpid())}"}


def is_stale(tags: Mapping[str, str]) -> bool:
    """Whether the process of a run with these tags was one of this machine, and is gone."""
    host, _, rest = tags.get(_PROCESS, "").partition(" ")
    number, _, began = rest.partition(" ")
    if host != platform.node() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return began != _began(int(number))


def _began(number: int) -> str:
    """The process's start in clock ticks since the machine's (field 22 of its stat file); `-` where unknown."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"
