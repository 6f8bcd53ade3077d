"""Starts the processes of one run where neither torchrun nor `srun` did, each with its rank in the environment
(data/process_group.py); and Ctrl-C, SIGTERM and Slurm's warnings during training: finish the step, save, and say how
to resume, or let Slurm start the job again.

This process stays outside, starts one child for each device, waits for them, hands on what they return or raise, and
passes Ctrl-C to them. (Lightning would start the command line again instead, which a notebook or a test does not have.)
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from maquette.artifacts import MaquetteError, StageError
from maquette.artifacts.process_state import end_with
from maquette.artifacts.progress import say
from maquette.data.process_group import process_group

_GRACE_SECONDS = 10.0
"""How long the others may take to end after one has failed: they wait for it in vain."""


def launch(function: Callable[[Any], Any], argument: Any, processes: int) -> Any:
    """Calls `function(argument)` in so many new processes with ranks, and returns what the first of them does.

    Both must be picklable. Raises what a process raised if it is an error for people, else a `StageError` with its last
    lines; `KeyboardInterrupt` where it was asked to stop.
    """
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # In a worker of joblib it is loky's, which children could not find again.
        multiprocessing.set_start_method("spawn", force=True)
    context = multiprocessing.get_context("spawn")
    port = free_port()
    pipes, children = [], []
    with catch_signals() as stop_signal:
        for rank in range(processes):
            ours, theirs = context.Pipe(duplex=False)
            environment = {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
            }  # fmt: skip
            arguments = (function, argument, environment, theirs, os.getpid())
            child = context.Process(target=_child, args=arguments, name=f"rank {rank}")
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)
        try:
            answer = _wait(pipes, children, stop_signal)
        except KeyboardInterrupt as error:
            answer = error
        finally:
            for child in children:
                child.join(_GRACE_SECONDS)
                if child.is_alive():
                    child.kill()
                    child.join()
    if isinstance(answer, KeyboardInterrupt):
        queue_again(stop_signal)
        raise answer
    return answer


def _wait(pipes: list[Connection], children: list[Any], stop_signal: "StopSignal") -> Any:
    """Collects every child's answer and returns the first process's; raises the first that is an error."""
    answers: dict[int, Any] = {}
    passed_on = False
    while len(answers) < len(pipes):
        if stop_signal.requested and not passed_on:
            passed_on = True
            for child in children:
                os.kill(child.pid, stop_signal.number)
        waiting = [pipe for rank, pipe in enumerate(pipes) if rank not in answers]
        for pipe in wait(waiting, timeout=0.2):
            rank = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                kind, value = pipes[rank].recv()
            except EOFError:
                children[rank].join(_GRACE_SECONDS)
                kind, value = (
                    StageError,
                    (
                        f"Process {rank} ended without a word (exit code {children[rank].exitcode}).",
                        "Run the command again to resume from the last checkpoint.",
                    ),
                )
            if kind is not None:
                for child in children:
                    if child.is_alive():
                        child.terminate()
                raise kind(*value)
            answers[rank] = value
    return answers[0]


def _child(
    function: Callable[[Any], Any], argument: Any, environment: dict[str, str], pipe: Connection, parent: int
) -> None:
    """Answers with (None, what the function returned) or (kind of error, its arguments)."""
    os.environ.update(environment)
    end_with(parent, signal.SIGTERM)  # training saves first
    answer: tuple[type[BaseException] | None, Any]
    try:
        answer = (None, function(argument))
    except MaquetteError as error:
        answer = (type(error), (error.message, error.hint))
    except KeyboardInterrupt as error:
        answer = (KeyboardInterrupt, error.args)
    except BaseException as error:
        lines = traceback.format_exc().strip().splitlines()
        answer = (StageError, (f"{type(error).__name__} in process {environment['RANK']}.", "\n  ".join(lines[-6:])))
    pipe.send(answer)
    pipe.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# Signals --------------------------------------------------------------------------------------------------------------

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What Slurm sends before the time is up: with `sbatch --signal=USR1@120`, and as submitit asks for it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *_WARNINGS)


class ForcedExit(BaseException):
    """A second Ctrl-C: stop at once. Not a `KeyboardInterrupt`, which Lightning answers by ending the program."""


class StopSignal:
    """Whether somebody wants training to stop, and by which signal: `number`, or 0. Requests that follow one within a
    second are the same one: a terminal sends Ctrl-C to all processes, and a parent hands it on to its children too."""

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    @property
    def requested(self) -> bool:
        return self.number > 0

    def listen(self) -> None:
        """Takes over the signals. Does nothing outside of the main thread, which alone may do so."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested and now - self._since > 1.0:
            raise ForcedExit
        if not self.requested:
            self.number, self._since = number, now


@contextlib.contextmanager
def catch_signals() -> Iterator[StopSignal]:
    """Within the block, signals are requests; afterwards they are handled as before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    stop_signal = StopSignal()
    stop_signal.listen()
    try:
        yield stop_signal
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def queue_again(stop_signal: StopSignal) -> None:
    """After a stop by Slurm's warning that the time is nearly up, when everything is saved: whoever listened to the
    signal before us hears it (submitit, which puts its job into the queue again); where nobody did, as under a plain
    `srun`, the run's first process has Slurm requeue the job. Once started again, the same command resumes.

    Lightning's own requeueing (`SLURMEnvironment`) saves a checkpoint of its own within the signal handler, in the
    middle of a step.
    """
    if stop_signal.number not in _WARNINGS or multiprocessing.parent_process() is not None:
        return  # what `launch` started leaves it to the process that did
    if callable(signal.getsignal(stop_signal.number)):
        signal.raise_signal(stop_signal.number)
        return
    job = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    name = "_".join(job) if all(job) else os.environ.get("SLURM_JOB_ID", "")
    if not name or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive") or not process_group().is_first:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True, check=False)
        trouble = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        trouble = str(error)
    say(f"Slurm does not start job {name} again: {trouble}" if trouble else f"Slurm starts job {name} again")
