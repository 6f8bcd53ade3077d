"""SIGKILL at random moments in what writes small files, then the check of what its readers find.

A forked child writes without end and acknowledges through a pipe what it has finished; it is killed some milliseconds
later. Nothing acknowledged may be missing, every reader must accept what is there, and after the next write nothing
half written may be left.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from maquette.artifacts import files
from maquette.artifacts.files import append_rows, listed, write_text
from maquette.artifacts.manifest import build, read_manifest, verify_files
from maquette.artifacts.reading import write_sealed
from maquette.artifacts.run_file import read_run, write_run
from maquette.cli.sweeps.work import Files
from maquette.data.conversations import read_preferences
from maquette.evaluation.arena import read_battles
from maquette.scaling.predictions.prediction import (
    WrittenPrediction,
    broken_links,
    read_predictions,
    write_prediction,
)
from maquette.serving.arena import BATTLES, PREFERENCES, Arena
from maquette.training.checkpoint_io import AtomicCheckpointIO, CheckpointFolder
from maquette.training.metrics_file import MetricsFile, read_history

KILLS = 3
"""In one folder, one after the other."""


@dataclass(frozen=True)
class Writer:
    """`write(folder)` yields after each finished write; its first is number `count(folder)`. `count` reads what is
    there, raises where that is damaged, and returns how many writes it holds."""

    name: str
    write: Callable[[Path], Iterator[None]]
    count: Callable[[Path], int]


def fork(work: Callable[[], None], *, quiet: bool = True) -> int:
    """A child that does `work` and ends, with 1 where it raised; returns its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        files._swept.clear()  # a new process has looked nowhere yet
        if quiet:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill_once(writer: Writer, folder: Path, delay: float) -> int:
    """Lets the writer work in `folder` for some seconds and kills it; how many writes it acknowledged."""
    reader, end = os.pipe()

    def work() -> None:
        os.close(reader)
        for _ in writer.write(folder):
            os.write(end, b".")

    child = fork(work)
    os.close(end)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        return len(pipe.read())


def leftovers(folder: Path) -> list[Path]:
    """What is half written; locks, caches and Hydra's folder of settings are hidden too, and stay."""
    return [path for path in folder.rglob(".*") if path.suffix in (".partial", ".old")]


def kill_often(writer: Writer, folder: Path, numbers: random.Random) -> tuple[int, list[str]]:
    """Kills the writer `KILLS` times in a new folder; how often it was killed, and what was lost."""
    folder.mkdir(parents=True)
    acknowledged = 0
    for number in range(1, KILLS + 1):
        acknowledged += kill_once(writer, folder, numbers.uniform(0.0005, numbers.choice((0.01, 0.05))))
        files._swept.clear()
        try:
            count = writer.count(folder)
        except Exception as error:
            return number, [f"kill {number}: {type(error).__name__}: {error}"]
        if count < acknowledged:
            return number, [f"kill {number}: {acknowledged} writes were acknowledged, {count} are there"]
        acknowledged = count
    files._swept.clear()
    with contextlib.closing(writer.write(folder)) as writing:  # type: ignore[type-var]
        next(writing)
    if left := leftovers(folder):
        return KILLS, [f"left for ever: {left[0].relative_to(folder)}"]
    return KILLS, []


def attack(writer: Writer, folder: Path, seed: int, kills: int) -> tuple[int, int, list[str]]:
    """How often the writer was killed, how many kills it survived, what was lost."""
    numbers = random.Random(f"{seed} {writer.name}")
    killed_so_far, lost = 0, []
    for trial in itertools.count():
        if killed_so_far >= kills:
            return killed_so_far, killed_so_far - len(lost), lost
        place = folder / str(trial)
        killed, results = kill_often(writer, place, numbers)
        killed_so_far += killed
        lost += [f"trial {trial}: {line}" for line in results]
        shutil.rmtree(place, ignore_errors=True)
    raise AssertionError


# The writers ----------------------------------------------------------------------------------------------------------


def _numbers(count: int, values: Any) -> int:
    values = list(values)
    if values[:count] != list(range(count)) or len(values) != count:
        raise ValueError(f"not 0 to {count - 1} in order: {values[:10]}")
    return count


def _append(folder: Path) -> Iterator[None]:
    for number in itertools.count(_appended(folder)):
        append_rows(folder / "rows.jsonl", [{"n": number, "text": "x" * 3000}])
        yield


def _appended(folder: Path) -> int:
    path = folder / "rows.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return _numbers(len(lines), (json.loads(line)["n"] for line in lines))


def _note(folder: Path) -> Iterator[None]:
    curves = MetricsFile(folder / "metrics.jsonl")
    path, begin = folder / "metrics.jsonl", _noted(folder)
    data = path.read_bytes()
    curves.cut(
        {"bytes": data.rfind(b"\n") + 1, "sha256": files.hashlib.sha256(data[: data.rfind(b"\n") + 1]).hexdigest()}
    )
    for number in itertools.count(begin):
        curves.note(number, {"train/loss": 1 / (1 + number), "lr": 0.1})
        curves.note(number, {"train/norm": float(number)})
        curves.flush()
        yield


def _noted(folder: Path) -> int:
    rows = read_history(folder / "metrics.jsonl")
    return _numbers(len(rows), (row["step"] for row in rows))


def _run_file(folder: Path) -> Iterator[None]:
    for number in itertools.count(_run_written(folder)):
        write_run(folder, {"status": "running", "step": number, "validation_loss": number / 7})
        yield


def _run_written(folder: Path) -> int:
    record = read_run(folder)
    return 0 if record is None else int(record["step"]) + 1


def _artifact(folder: Path) -> Iterator[None]:
    for number in itertools.count(_artifacts(folder)):

        def make(place: Path, number: int = number) -> dict[str, Any]:
            for part in range(3):
                write_text(place / "data" / f"{part}.txt", f"{number} " * 2000)
            return {"n": number}

        build("things", folder, name="one", label="thing", config={"n": number}, inputs={}, make=make, force=True,
              say=lambda _: None)  # fmt: skip
        yield


def _artifacts(folder: Path) -> int:
    place = folder / "things" / "one"
    if not place.exists():
        if (folder / "things").exists() and listed(folder / "things"):
            raise ValueError("another folder stands there")
        return 0
    verify_files(place)
    number = int(read_manifest(place).facts["n"])
    for part in range(3):
        if (place / "data" / f"{part}.txt").read_text() != f"{number} " * 2000:
            raise ValueError(f"part {part} is not that of {number}")
    return number + 1


def _checkpoint(folder: Path) -> Iterator[None]:
    checkpoints = CheckpointFolder(folder / "checkpoints")
    for number in itertools.count(_checkpointed(folder)):
        state = {"global_step": number, "state_dict": {"x": torch.full((3000,), float(number))}}
        AtomicCheckpointIO().save_checkpoint(state, checkpoints.path(number))
        checkpoints.prune()
        yield


def _checkpointed(folder: Path) -> int:
    warnings: list[str] = []
    results = CheckpointFolder(folder / "checkpoints").newest(warnings.append)
    if warnings:
        raise ValueError(warnings[0])
    if results is None:
        return 0
    step, path = results
    if not bool((AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["x"] == step).all()):
        raise ValueError(f"other weights at step {step}")
    return step + 1


def _vote(folder: Path) -> Iterator[None]:
    arena = Arena(["one", "two"], folder / "arena", seed=0)
    for number in itertools.count():  # no two votes are alike: readers drop copies
        battle = arena.begin([{"role": "user", "content": f"{os.getpid()} {number} " + "hello " * 100}])
        arena.battle(battle).answers.update(a="yes " * 300, b="no " * 300)
        arena.vote(battle, "a", "Ada")
        yield


def _voted(folder: Path) -> int:
    place = folder / "arena"
    if not place.exists():
        return 0
    Arena(["one", "two"], place)
    written = (place / BATTLES).exists() and (place / BATTLES).stat().st_size > 0
    battles = len(read_battles(place / BATTLES)[0]) if written else 0
    preferences = len(list(read_preferences(place / PREFERENCES))) if battles else 0
    if battles != preferences:
        raise ValueError(f"{battles} battles and {preferences} preferences")
    return battles


def _predict(folder: Path) -> Iterator[None]:
    for _ in itertools.count():
        interval = (2.9, 3.1)
        one = WrittenPrediction(
            "", 1e4, 2e5, 1e10, "6ND", 3.0, interval, interval, "power", 2.0, -0.05, "f", "ab", [], None, None
        )
        write_prediction(one, folder)
        yield


def _predicted(folder: Path) -> int:
    written = read_predictions(folder)
    if broken := broken_links(written):
        raise ValueError(broken[0])
    return len(written)


def _jobs(folder: Path) -> Iterator[None]:
    sweep = Files(folder)
    for number in itertools.count(len(sweep.outcomes())):
        for step in range(3):
            sweep.tell(number, step, 3)
        write_sealed(sweep.outcome(number), {"job": ["size=5k"], "status": "finished", "result": "x" * 500})
        sweep.running(number).unlink()
        yield


def _jobs_written(folder: Path) -> int:
    sweep = Files(folder)
    sweep.in_progress()
    return _numbers(len(sweep.outcomes()), sorted(sweep.outcomes()))


WRITERS = (
    Writer("lines appended", _append, _appended),
    Writer("metrics.jsonl", _note, _noted),
    Writer("run.json", _run_file, _run_written),
    Writer("artifact replaced", _artifact, _artifacts),
    Writer("checkpoint and seal", _checkpoint, _checkpointed),
    Writer("votes", _vote, _voted),
    Writer("predictions' chain", _predict, _predicted),
    Writer("sweep's job files", _jobs, _jobs_written),
)
