"""A store that came from another machine: copied to another path of a host of another name, the old place gone."""

import json
import os
import platform
import shutil
import signal
import socket
import time
from pathlib import Path

from tests.faults.kills import fork
from tests.faults.lines import results, run_line
from tests.faults.load import serving
from tests.faults.record import Outcome

from maquette.artifacts.files import listed


def moved_store(start: Path, outputs: Path, line: list[str]) -> Outcome:
    """A sweep, a run that was killed after a checkpoint, an import: copied, and used and resumed where they are now.

    `start`: a model's folder; `line`: a training that is recorded.
    """
    log = outputs.parent / "log"
    rest = [word for word in line[1:] if not word.startswith(("size=", "tokens="))]
    sweep = ["train", "-m", *rest, "size=5k,7k,9k", "tokens=3k,5k,8k", "hydra/launcher=basic", "seed=70"]
    killed = [*line, "seed=71", "callbacks.checkpoint.every_n_train_steps=4"]
    for words in (["import", f"path={start}"], sweep, killed):
        _, status = os.waitpid(run_line(words, outputs, log), 0)
        if status:
            raise RuntimeError(f"{words[0]} fails undisturbed: {log.read_text()[-2000:]}")
    return used_elsewhere(outputs, sweep, killed)


def used_elsewhere(outputs: Path, sweep: list[str], killed: list[str]) -> Outcome:
    """`outputs` holds what these lines made; the newest run is made again, killed, and resumed elsewhere."""
    log, there = outputs.parent / "log", outputs.parent / "elsewhere" / "results"
    whole = max(listed(outputs, "runs/*"), key=lambda run: (run / "run.json").stat().st_mtime)
    expected = {name: digest for name, digest in results(outputs).items() if name.startswith(f"runs/{whole.name}/")}
    _kill_after_checkpoint(killed, outputs, whole, log)
    there.parent.mkdir()
    shutil.copytree(outputs, there, symlinks=True)
    shutil.move(outputs, before := outputs.with_name("the old place"))
    lost, attempts = [], 0

    def work(words: list[str], *wanted: str) -> None:
        nonlocal attempts
        attempts += 1
        _, status = os.waitpid(_elsewhere(words, there, log), 0)
        output = log.read_text()
        lost.extend([f"{words[0]}: exit {status}: {output[-300:]}"] if status else [])
        lost.extend(f"{words[0]}: does not say {word!r}: {output[-300:]}" for word in wanted if word not in output)

    try:
        others = [path for path in listed(there, "runs/*/run.json") if path.parent.name != whole.name]
        finished = {path: path.stat().st_mtime_ns for path in others}
        work(sweep, "9 of 9 jobs done")
        work(killed, "resuming from step")
        work(["runs"], whole.name)
        newest = max(listed(there, "sweeps/*/sweep.json"), key=lambda file: file.stat().st_mtime).parent.name
        work(["fit", f"runs={newest}", "bootstrap=100"])
        work(["predict", "compute=1e12"])
        work(["evaluate", "checkpoint=latest", "suite.embedded=[arithmetic]", "suite.items=9", "protocol.resamples=20"])
        work(["leaderboard"])
        work(["export", f"checkpoint={whole.name}"])
        work(["sample", "checkpoint=latest", "mouse", "max_tokens=4"])
        with serving([there / "runs" / whole.name, *listed(there, "artifacts/models/*")], there) as server:
            attempts += 1
            status, answer = server.ask("POST", "/v1/completions", {"prompt": "a", "max_tokens": 4})
            lost += [f"chat: {status} {answer[:200]!r}"] if status != 200 else []
        lost += [f"{path.parent.name} is made again" for path, at in finished.items() if path.stat().st_mtime_ns != at]
        actual = results(there)
        lost += [f"other results: {name}" for name, digest in expected.items() if actual.get(name) != digest]
        lost += [
            f"written at the old place: {path.relative_to(outputs)}" for path in outputs.rglob("*") if path.is_file()
        ]
    finally:
        shutil.rmtree(outputs, ignore_errors=True)
        shutil.move(before, outputs)
    return attempts, lost


def _kill_after_checkpoint(line: list[str], outputs: Path, run: Path, log: Path) -> None:
    """Trains once more, until there is a checkpoint and no end of it."""
    shutil.rmtree(run)
    child = run_line(line, outputs, log)
    until = time.monotonic() + 120
    while len(listed(run, "checkpoints/*.ckpt")) < 2 and time.monotonic() < until:  # the first is sealed
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if json.loads((run / "run.json").read_text())["status"] == "finished":
        raise RuntimeError("the training had ended before it was killed")


def _elsewhere(arguments: list[str], outputs: Path, log: Path) -> int:
    """A child on a host of another name that runs the command line; its process number."""

    def work() -> None:
        from maquette.artifacts import files

        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(outputs.parent)
        socket.gethostname = lambda: "elsewhere"
        platform.node = lambda: "elsewhere"
        files._host.cache_clear()
        from maquette.cli import main

        main([*arguments, f"outputs={outputs}"])

    return fork(work)
