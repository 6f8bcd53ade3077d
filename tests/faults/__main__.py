"""`python -m tests.faults [PART ...] [--seed N] ...`: prints what was tried, survived and lost.

What has been tried stands in outputs/faults.jsonl; the command again resumes from it.
"""

import argparse
import base64
import functools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.formats import FORMATS
from tests.faults.fuzz import Format, attack
from tests.faults.record import Outcome, Record

CASES = Path(__file__).parent / "cases"


def say(line: str) -> None:
    print(line, flush=True)


def run_fuzz(options: argparse.Namespace, record: Record) -> None:
    """Damaged files of every format; what is found is kept in `cases/`."""
    for format in FORMATS:
        if options.only and options.only not in format.name:
            continue

        def one(format: Format = format) -> Outcome:
            with tempfile.TemporaryDirectory() as folder:
                result = attack(format, Path(folder), options.seed, options.count)
            lost = []
            for kind, detail, damaged in result.findings:
                lost.append(f"{kind}: {detail[:160]!r}")
                if lost[-1] not in lost[:-1]:
                    _keep(format, f"{kind} {detail[:60]}", damaged)
            return sum(result.outcomes.values()), lost

        record.attempt("damaged files", format.name, options.seed, options.count, one)


def _keep(format: Format, finding: str, damaged: bytes) -> None:
    plain = format.name.replace(" ", "_").replace("'", "")
    name = f"{plain}-{len(list(CASES.glob('*.json'))):03d}.json"
    CASES.mkdir(exist_ok=True)
    case = {"format": format.name, "was": finding, "content": base64.b64encode(damaged).decode()}
    (CASES / name).write_text(json.dumps(case, indent=1) + "\n")


def run_overrides(options: argparse.Namespace, record: Record) -> None:
    """Hostile overrides of every setting of every stage."""
    from tests.faults import overrides

    def one() -> Outcome:
        findings = overrides.attack(options.seed, 2 * options.count)
        return 2 * options.count, [f"{one.stage} {one.override[:100]!r}: {one.what}" for one in findings]

    record.attempt("command lines", "hostile overrides", options.seed, 2 * options.count, one)


def run_kills(options: argparse.Namespace, record: Record) -> None:
    """SIGKILL in small writers."""
    from tests.faults import kills

    for writer in kills.WRITERS:

        def one(writer: kills.Writer = writer) -> Outcome:
            with tempfile.TemporaryDirectory() as folder:
                killed, _, lost = kills.attack(writer, Path(folder), options.seed, options.kills)
            return killed, lost

        record.attempt("killed writers", writer.name, options.seed, options.kills, one)


def run_lines(options: argparse.Namespace, record: Record) -> None:
    """SIGKILL in whole command lines."""
    from tests.faults import lines

    lines.imported()
    with tempfile.TemporaryDirectory() as folder:
        only = options.only.split("/") if options.only else []
        lines.Attack(Path(folder), only, say).run(record, options.seed, options.trials, 60 * options.minutes)


def run_sweeps(options: argparse.Namespace, record: Record) -> None:
    """SIGKILL for the parent or a worker of a sweep."""
    from tests.faults import lines, sweeps

    lines.imported()
    with tempfile.TemporaryDirectory() as folder:
        prepared = lines.Attack(Path(folder), ["sweep"], say)
        kinds = [kind for kind in sweeps.KINDS if not options.only or kind[0] in options.only.split("/")]
        attacked = sweeps.Sweeps(Path(folder) / "sweeps", prepared.outputs, prepared.lines["sweep"], kinds)
        until = time.monotonic() + 60 * options.minutes
        for trial in range(options.trials):
            for launcher, victim in kinds:
                if time.monotonic() > until:
                    return
                kind = f"{launcher}, its {victim} killed"
                numbers = random.Random(f"{options.seed} {kind} {trial}")
                attempt = functools.partial(attacked.trial, launcher, victim, numbers)
                record.attempt("killed sweeps", kind, options.seed, trial, attempt)


def run_many(options: argparse.Namespace, record: Record) -> None:
    """A locked store, ten sweeps on one store, a store that came from another machine, a server under load."""
    from tests.faults import lines, load, moved

    lines.imported()

    def attempt(name: str, call: Callable[[], Outcome], trial: int = 0) -> None:
        if not options.only or options.only in name:
            record.attempt("many at once", name, options.seed, trial, call)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepared = lines.Attack(root, ["pretrain, MLflow"], say)
        train, sweep = prepared.lines["pretrain, MLflow"], prepared.lines["sweep"]
        recorded = [word for word in sweep if word != "logger=none"]
        outputs, numbers = prepared.outputs, random.Random(options.seed)
        attempt("store locked for 30 s", lambda: load.locked_store(outputs, [*train, "seed=9"], 30.0))
        attempt("ten sweeps on one store", lambda: load.sweeps_on_one_store(outputs, recorded, 10))
        attempt("a store on another machine", lambda: moved.moved_store(root / "start", outputs, train))
        for name in ("one", "two"):
            (root / name).symlink_to(root / "start")
        with load.serving([root / "one", root / "two"], outputs) as server:
            attempt("200 requests at once", lambda: load.many_at_once(server))
            attempt("200 requests half sent", lambda: load.half_sent(server))
            attempt("40 requests given up", lambda: load.given_up(server))
            attempt("bodies of 1 to 50 MB", lambda: load.large_bodies(server))
            attempt("mutated requests", lambda: load.hostile_requests(server, numbers, options.count))


def run_soak(options: argparse.Namespace, record: Record) -> None:
    """Trainings in one process and a server under load; lost where memory grows without end."""
    from tests.faults import lines, soak

    lines.imported()
    with tempfile.TemporaryDirectory() as folder:
        prepared = lines.Attack(Path(folder), ["corpus"], say)
        for name, call in (("trainings and generations", soak.trainings), ("server under load", soak.server)):
            title = f"{name}, {options.minutes / 2:g} minutes"
            record.attempt("soak", title, options.seed, 0, lambda call=call: call(prepared, 30 * options.minutes, say))


PARTS = {"fuzz": run_fuzz, "overrides": run_overrides, "kills": run_kills, "lines": run_lines, "sweeps": run_sweeps,
         "many": run_many, "soak": run_soak}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(PARTS)}; all where none is named; or table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=250, help="damaged files of each format")
    parser.add_argument("--kills", type=int, default=150, help="kills in each small writer")
    parser.add_argument("--trials", type=int, default=1000, help="of each command line at most")
    parser.add_argument("--minutes", type=float, default=30, help="of the command lines, and of the soak")
    parser.add_argument("--only", default="", help="formats with this in their name; command lines a/b/c; ranks")
    parser.add_argument("--record", type=Path, default=Path("outputs/faults.jsonl"), help="what has been tried")
    options = parser.parse_args()
    if unknown := {*options.parts} - {*PARTS, "table"}:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(PARTS)}")
    record = Record(options.record, say)
    for part in options.parts or PARTS:
        if part in PARTS:
            say(f"== {part}, seed {options.seed}")
            PARTS[part](options, record)
    say(record.table())
    sys.exit(1 if record.lost() else 0)


if __name__ == "__main__":
    main()
