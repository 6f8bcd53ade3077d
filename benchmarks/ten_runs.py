"""Ten small runs whose losses must not change by a bit: every objective, and each way of training that has its own
code.

    python benchmarks/ten_runs.py                                                         prints the table, in a minute
    python benchmarks/ten_runs.py --compare benchmarks/results/ten_runs_c551d32.csv       and says which rows differ

The documents, examples and prompts are made here; each run is a `maquette train` in a process of its own, on one
thread.
Floats are printed with every digit. Rows are comparable on one kind of processor and one build of torch only: both are
columns. Training of two ranks and a schedule with branches are among the runs, so a run may have several rows.
`ten_runs_61b730f.csv` has those of the recipe before 2026-11-28.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from maquette.tracking.environment import processor_name

ENTRY = "from maquette.cli import main; main()"
COLUMNS = ["run", "steps", "first", "last", "sum", "validation", "cpu", "torch"]

NOUNS = {
    "animals": ["mouse", "cat", "dog", "owl", "fox", "hen", "cow", "bee"],
    "things": ["door", "lamp", "river", "stone", "letter", "window", "engine", "clock"],
}
WORDS = ["cat", "dog", "owl", "fox", "hen", "cow", "bee", "ant"]
REWARD = "def reward(completions):\n    return [c.answer.count('a') / (1 + len(c.answer)) for c in completions]\n"

COMMON = [
    "threads=1",
    "compile=off",
    "logger=none",
    "trainer.log_every_n_steps=1",
    "num_validations=2",
]
PRETRAIN = [
    "source=jsonl", "source.path={root}/documents", "corpus.near_duplicates=1.0", "corpus.validation=0.1",
    "corpus.test=0.0", "corpus.workers=1", "tokenizer=byte", "shards.held_out_window=0", "shards.workers=1", "size=13k",
    "tokens=5120", "data.sequence_length=64", "data.batch_size_tokens=256", "data.validation_tokens=512",
    "callbacks.samples.prompts=[cat]",
]  # fmt: skip
SHAPE = [
    "model.hidden_size=16", "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.intermediate_size=32",
]  # fmt: skip
EPOCH = ["objective.epochs=1", "objective.batch_size=8", "checkpoint={base}"]
PREFERENCES = ["preferences.path={root}/preferences.jsonl", "preferences.validation=0.2"]
PPO = [
    "objective=ppo", "prompts.path={root}/prompts.jsonl", "reward.kind=callable", "reward.callable=ten_reward:reward",
    "objective.num_iterations=5", "objective.rollout_batch_size=8", "objective.max_completion_length=6",
    "objective.normalize_scores=8", "checkpoint={base}",
]  # fmt: skip

RUNS = {
    "pretrain": [*PRETRAIN, *SHAPE],
    "lstm": [*PRETRAIN, "model=lstm"],
    "muon": [*PRETRAIN, *SHAPE, "optimizer=muon"],
    "wsd branches": [*PRETRAIN, *SHAPE, "scheduler=wsd", "scheduler.branches=[2560,3840]"],
    "two ranks": [*PRETRAIN, *SHAPE, "trainer=ddp", "seed=1"],
    "sft packed": [
        "objective=sft", "instructions.path={root}/instructions.jsonl", "instructions.validation=0.2", *EPOCH,
    ],
    "reward": ["objective=reward", *PREFERENCES, *EPOCH],
    "dpo": ["objective=dpo", *PREFERENCES, "objective.max_completion_length=6", *EPOCH],
    "ppo": [*PPO, "objective.value_init=policy"],
    "ppo group": [*PPO, "objective.advantage=group"],
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", type=Path, help="a table of earlier runs")
    parser.add_argument("--only", nargs="*", help="these runs alone (those after pretraining need pretrain)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(table(Path(folder), arguments.only))
    return differences(rows, arguments.compare) if arguments.compare else 0


def table(root: Path, only: list[str] | None) -> Iterator[dict[str, str]]:
    """Makes the inputs below `root`, trains, and yields (and prints) a row for every run that was recorded."""
    write_inputs(root)
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    base = ""
    for name, words in RUNS.items():
        if only and name not in only:
            continue
        for folder in train(root, [word.format(root=root, base=base) for word in (*COMMON, *words)]):
            row = {"run": name, **losses(folder), "cpu": processor_name(), "torch": torch.__version__}
            writer.writerow(row)
            sys.stdout.flush()
            base = str(folder) if name == "pretrain" else base
            yield row


def train(root: Path, words: list[str]) -> list[Path]:
    """The folders of the runs that a command line adds, the oldest first."""
    runs = root / "outputs" / "runs"
    before = set(runs.glob("[!.]*"))
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-c", ENTRY, "train", f"outputs={root}/outputs", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": path},
        check=True, cwd=root, stdout=sys.stderr,
    )  # fmt: skip
    return sorted(set(runs.glob("[!.]*")) - before, key=lambda folder: folder.stat().st_mtime)


def losses(folder: Path) -> dict[str, str]:
    """What a run's curves say, with every digit."""
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = [point["train/loss"] for point in points if "train/loss" in point]
    validation = [point["validation/loss"] for point in points if point.get("validation/loss") is not None]
    return {
        "steps": str(len(training)),
        "first": repr(training[0]),
        "last": repr(training[-1]),
        "sum": repr(sum(training)),
        "validation": repr(validation[-1]) if validation else "",
    }


def differences(rows: list[dict[str, str]], path: Path) -> int:
    """Says which rows differ from those of a table; the exit code."""
    with path.open(encoding="utf-8") as file:
        before = list(csv.DictReader(file))
    chosen = {row["run"] for row in rows}
    old, new = ({signature(row) for row in part if row["run"] in chosen} for part in (before, rows))
    for row in sorted(old - new):
        print("before:", *row)
    for row in sorted(new - old):
        print("now:   ", *row)
    if machines := {row["cpu"] for row in before} - {processor_name()}:
        print(f"The table was made on another processor: {', '.join(machines)}.")
    print(f"{len(new & old)} of {len(new)} rows are equal to {path}, bit for bit.")
    return int(old != new)


def signature(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("run", "steps", "first", "last", "sum", "validation"))


def write_inputs(root: Path) -> None:
    """Documents whose every second word follows from the one before it, instructions, preferences, prompts, "
    "a reward."""
    documents = root / "documents"
    documents.mkdir()
    for domain, nouns in NOUNS.items():
        numbers = random.Random(domain)
        lines = []
        for document in range(60):
            words = [numbers.choice(nouns) for _ in range(60)]
            text = " ".join(f"{word} {word.upper()} {numbers.randrange(1000)}." for word in words)
            lines.append(json.dumps({"id": f"{domain}-{document}", "text": text, "domain": domain}))
        (documents / f"{domain}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    write_rows(root / "instructions.jsonl", instructions())
    write_rows(root / "preferences.jsonl", preferences())
    write_rows(
        root / "prompts.jsonl",
        ({"prompt": f"say {word} {at}"} for at, word in enumerate(["cat", "dog", "owl", "fox"] * 16)),
    )
    (root / "ten_reward.py").write_text(REWARD)


def instructions() -> Iterator[dict[str, object]]:
    numbers = random.Random(1)
    for _ in range(80):
        request, right, _ = conversation(numbers)
        yield {"messages": [{"role": "user", "content": request}, {"role": "assistant", "content": right}]}


def preferences() -> Iterator[dict[str, object]]:
    numbers = random.Random(2)
    for number in range(80):
        request, right, wrong = conversation(numbers)
        yield {
            "prompt": [{"role": "user", "content": request}],
            "chosen": [{"role": "assistant", "content": right}],
            "rejected": [{"role": "assistant", "content": wrong + " or so" * (number % 3)}],
            "annotator": "ann" if number % 2 else "bob",
            "margin": 0.5,
        }


def conversation(numbers: random.Random) -> tuple[str, str, str]:
    """A request, the right answer, and a wrong one."""
    word = numbers.choice(WORDS)
    wrong = numbers.choice([other for other in WORDS if other != word])
    return f"say {word} {numbers.randrange(100)}", word, wrong


def write_rows(path: Path, rows: Iterator[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
