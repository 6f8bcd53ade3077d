"""`python -m tests.faults [fuzz kills lines many soak] [--seed N] ...`: prints what was tried, survived and lost."""

import argparse
import base64
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.formats import FORMATS
from tests.faults.fuzz import FINDINGS, attack

CASES = Path(__file__).parent / "cases"
PARTS = ("fuzz", "kills", "lines", "many", "soak")

Row = tuple[str, int, int, list[str]]
"""Kind, attempts, survived, and a line for each that was lost."""


def say(line: str) -> None:
    print(line, flush=True)


def run_fuzz(options: argparse.Namespace) -> list[Row]:
    """Damaged files of every format; what is found is kept in `cases/` with `--keep`."""
    table = []
    for format in FORMATS:
        if options.only and options.only not in format.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = attack(format, Path(folder), options.seed, options.count)
        attempts, lost = sum(result.outcomes.values()), []
        for kind, detail, damaged in result.findings:
            lost.append(f"{kind}: {detail[:160]!r}")
            if options.keep and lost[-1] not in lost[:-1]:
                plain = format.name.replace(" ", "_").replace("'", "")
                name = f"{plain}-{len(list(CASES.glob('*.json'))):03d}.json"
                CASES.mkdir(exist_ok=True)
                content = base64.b64encode(damaged).decode()
                case = {"format": format.name, "was": f"{kind} {detail[:60]}", "content": content}
                (CASES / name).write_text(json.dumps(case, indent=1) + "\n")
        outcomes = Counter({kind: count for kind, count in result.outcomes.items() if kind not in FINDINGS})
        row = (f"damaged {format.name} {dict(outcomes)}", attempts, attempts - len(lost), lost)
        table.append(row)
        say(show(row))
    return table


def run_kills(options: argparse.Namespace) -> list[Row]:
    """SIGKILL in small writers."""
    from tests.faults import kills

    table: list[Row] = []
    for writer in kills.WRITERS:
        with tempfile.TemporaryDirectory() as folder:
            table.append((f"killed: {writer.name}", *kills.attack(writer, Path(folder), options.seed, options.kills)))
        say(show(table[-1]))
    return table


def run_lines(options: argparse.Namespace) -> list[Row]:
    """SIGKILL in whole command lines."""
    from tests.faults import lines

    lines.imported()
    with tempfile.TemporaryDirectory() as folder:
        only = options.only.split("/") if options.only else []
        tallies = lines.Attack(Path(folder), options.seed, only, say).run(options.trials, 60 * options.minutes)
    table = [(f"killed: {name}", one.kills, one.kills - len(one.lost), one.lost) for name, one in tallies.items()]
    for row in table:
        say(show(row))
    return table


def run_many(options: argparse.Namespace) -> list[Row]:
    """A locked store, ten sweeps on one, orphans, a server under load."""
    from tests.faults import lines, load

    lines.imported()
    table: list[Row] = []

    def attempt(name: str, call: Callable[[], load.Outcome]) -> None:
        attempts, lost = call()
        table.append((name, attempts, max(0, attempts - len(lost)), lost))
        say(show(table[-1]))

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepared = lines.Attack(root, options.seed, ["pretrain, MLflow"], say)
        train, sweep = prepared.lines["pretrain, MLflow"], prepared.lines["sweep"]
        recorded = [word for word in sweep if word != "logger=none"]
        outputs, numbers = prepared.outputs, random.Random(options.seed)
        attempt("store locked for 30 s", lambda: load.locked_store(outputs, [*train, "seed=9"], 30.0))
        attempt("ten sweeps on one store", lambda: load.sweeps_on_one_store(outputs, recorded, 10))
        apart = [word for word in recorded if not word.startswith("hydra/launcher")]
        for number in range(3):
            delay = numbers.uniform(0, 5)
            attempt("joblib worker without parent", lambda delay=delay, number=number: load.orphans(
                outputs, [*apart, f"seed={90 + number}", "tokens=40k"], delay))  # fmt: skip
        for name in ("one", "two"):
            (root / name).symlink_to(root / "start")
        with load.serving([root / "one", root / "two"], outputs) as server:
            attempt("200 requests at once", lambda: load.many_at_once(server))
            attempt("200 requests half sent", lambda: load.half_sent(server))
            attempt("40 requests given up", lambda: load.given_up(server))
            attempt("bodies of 1 to 50 MB", lambda: load.large_bodies(server))
            attempt("mutated requests", lambda: load.hostile_requests(server, numbers, options.count))
    return table


def run_soak(options: argparse.Namespace) -> list[Row]:
    """Trainings and generations in one process; lost where it grows by more than 2 MB a round."""
    from tests.faults import lines, soak

    lines.imported()
    with tempfile.TemporaryDirectory() as folder:
        lines.data(Path(folder))
        rounds, growth = soak.soak(Path(folder), options.minutes, say)
    lost = [f"grows by {growth:.1f} MB a round"] if growth > 2 else []
    row = (f"soak of {options.minutes:g} minutes, {growth:+.2f} MB a round", rounds, rounds - len(lost), lost)
    say(show(row))
    return [row]


def show(row: Row) -> str:
    kind, attempts, survived, lost = row
    line = f"{kind:60} {attempts:6} {survived:8} {attempts - survived:6}"
    return "\n".join([line, *(f"    {one}" for one in dict.fromkeys(lost))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=250, help="damaged files of each format")
    parser.add_argument("--kills", type=int, default=150, help="kills in each small writer")
    parser.add_argument("--trials", type=int, default=20, help="kills of each command line")
    parser.add_argument("--minutes", type=float, default=30, help="of the command lines, and of the soak")
    parser.add_argument("--only", default="", help="formats with this in their name; command lines a/b/c")
    parser.add_argument("--keep", action="store_true", help="keep damaged files that were found in cases/")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(PARTS)}")
    table: list[Row] = []
    for part in options.parts or PARTS:
        say(f"== {part}, seed {options.seed}")
        table += globals()[f"run_{part}"](options)
    say(f"== {'kind':57} {'tried':>6} {'survived':>8} {'lost':>6}")
    for row in table:
        say(show((row[0], row[1], row[2], [])))
    attempts, survived = sum(row[1] for row in table), sum(row[2] for row in table)
    say(show(("together", attempts, survived, [])))
    sys.exit(1 if survived < attempts else 0)


if __name__ == "__main__":
    main()
