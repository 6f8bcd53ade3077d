"""Processes that have PyTorch, Lightning and the rest imported when they begin: forked off a server that did so once,
which takes a tenth of the processor time that a new interpreter takes.

For tests of what processes do together. That `launch` starts interpreters of its own, to which everything has to be
sent, is tested in training/test_processes.py, and from the command line in cli/test_several_processes.py.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_IMPORTED = [
    "pytest", "torch", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor", "lightning.pytorch",
    "mlflow", "matplotlib.figure", "maquette.cli.train", "maquette.training.fitting", "maquette.objectives.pretrain",
]  # fmt: skip


def warm_context() -> Any:
    """Of multiprocessing, whose children begin in the present environment and folder, as new interpreters do."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)

    def process(target: Callable[..., Any], args: tuple[Any, ...], name: str | None = None) -> Any:
        given = (dict(os.environ), str(Path.cwd()), os.getpid(), target, args)
        return context.Process(target=_as_if_new, args=given, name=name)

    return SimpleNamespace(Pipe=context.Pipe, Process=process)


def _as_if_new(
    environment: dict[str, str], folder: str, starter: int, target: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # of loaders' workers, as in a program
    # Whose death is to be this process's too: the server's, which ends with the process that has started this one.
    try:
        target(*(os.getppid() if isinstance(one, int) and one == starter else one for one in args))
    finally:
        atexit._run_exitfuncs()  # which forked processes leave out


class WarmProcess:
    """Calls the function, to be killed or waited for as a `subprocess.Popen` is."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._process = warm_context().Process(function, args)
        self._process.start()
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self.poll()


def start_program(path: Path, *arguments: str) -> WarmProcess:
    """`python path *arguments`."""
    return WarmProcess(_run_program, str(path), arguments)


def _run_program(path: str, arguments: tuple[str, ...]) -> None:
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def start_maquette(*words: str) -> WarmProcess:
    """`maquette *words`."""
    return WarmProcess(_run_maquette, *words)


def _run_maquette(*words: str) -> None:
    from maquette.cli import main

    sys.argv = ["maquette", *words]
    main()
