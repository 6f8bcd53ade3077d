"""Which launcher gets a sweep done sooner on this machine: one job at a time, with one thread or with all, or one job a
core?

    python benchmarks/sweep_launchers.py [--short 1e9] [--long 2e10] [--jobs 4] [--rounds 1]

Each contender runs the same line (`maquette train -m size=20k seed=0,1,...`) in a process of its own with fresh
outputs, on a corpus that is made beforehand; contenders take turns. The time is that of the whole command, imports
included. The default launcher (src/maquette/cli/sweeps/launching.py) is chosen by what this prints.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CONTENDERS = {
    "basic, 1 thread": ["hydra/launcher=basic", "threads=1"],
    f"basic, {CORES} threads": ["hydra/launcher=basic", f"threads={CORES}"],
    f"joblib, {CORES} jobs x 1 thread": ["hydra/launcher=joblib", "threads=1"],
}
TEXT = "the cat sat on a mat and saw how every river runs down to some sea while stones stay where they are"


def write_corpus(folder: Path) -> None:
    """A few megabytes of sentences."""
    numbers = random.Random(0)
    lines = [
        json.dumps({"id": str(number), "text": " ".join(numbers.choices(TEXT.split(), k=400)), "domain": "sentences"})
        for number in range(1500)
    ]
    folder.mkdir()
    (folder / "documents.jsonl").write_text("\n".join(lines))


def command(root: Path, outputs: Path, *words: str) -> list[str]:
    """The whole command line, in this Python."""
    settings = [
        "size=20k", "source=jsonl", f"source.path={root / 'documents'}", "corpus.near_duplicates=1.0",
        "shards.held_out_window=0", "tokenizer=byte", "data.sequence_length=64", "data.validation_tokens=4096",
        "num_validations=1", "callbacks.samples.prompts=[]", "logger=none", f"outputs={outputs}",
    ]  # fmt: skip
    return [sys.executable, "-c", "from maquette.cli import main; main()", "train", *settings, *words]


def seconds(root: Path, compute: str, jobs: int, words: list[str]) -> float:
    """Of one sweep of `jobs` jobs."""
    outputs = root / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    shutil.copytree(root / "prepared", outputs)
    seeds = f"seed={','.join(map(str, range(jobs)))}"
    start = time.perf_counter()
    subprocess.run(command(root, outputs, "-m", seeds, f"compute={compute}", *words), check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", default="1e9", help="training FLOPs of a short job")
    parser.add_argument("--long", default="2e10", help="training FLOPs of a long job")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_corpus(root / "documents")
        subprocess.run(command(root, root / "prepared", "-m", "--show", "seed=0,1"), check=True, capture_output=True)
        for name, compute in (("short", arguments.short), ("long", arguments.long)):
            times: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
            for _ in range(arguments.rounds):
                for contender, words in CONTENDERS.items():
                    times[contender].append(seconds(root, compute, arguments.jobs, words))
            best = min(statistics.median(minima) for minima in times.values())
            print(f"{arguments.jobs} {name} jobs of {compute} FLOPs, {CORES} cores")
            for contender, minima in times.items():
                middle = statistics.median(minima)
                print(f"  {contender:<28} {middle:7.1f} s   {middle / best:5.2f} x the fastest")


if __name__ == "__main__":
    main()
