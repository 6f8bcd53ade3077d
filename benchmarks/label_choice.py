"""What a label is worth by which pair it is spent on: `maquette annotate choose=random|uncertainty|disagreement`.

    python benchmarks/label_choice.py train       trains what results/label_choice.csv does not have yet
    python benchmarks/label_choice.py report      prints the table

The policy is the fine-tuned model of `make demo-alignment`. Each seed has prompts, people and reward models of its own:
an ensemble is trained on the first labels and chooses where the next go; the reward model on both is judged by how
often it agrees with gold on pairs of prompts that nobody was shown. Finished stages are found again, rows are appended.
"""

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from forecast_record import commit, read_rows
from scipy.stats import t

from maquette.tracking.environment import processor_name

ROWS = Path(__file__).parent / "results" / "label_choice.csv"
COLUMNS = ["seed", "choice", "labels", "more", "pool", "accuracy", "pairs", "seconds", "commit", "cpu"]
CHOICES = ("random", "uncertainty", "disagreement")

ENSEMBLE = 3
HELD_OUT = 1_000_000
"""The first prompt of those that are only measured on."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "report"])
    parser.add_argument("--policy", default="latest", help="train: run or folder of a fine-tuned model of the tasks")
    parser.add_argument("--outputs", default="outputs/label_choice")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1000, help="labels before there is a choice")
    parser.add_argument("--more", type=int, default=1000, help="labels that are chosen")
    parser.add_argument("--pool", type=int, default=6000, help="prompts whose pairs are chosen from")
    arguments = parser.parse_args()
    if arguments.what == "report":
        return report(read_rows(arguments.rows))
    for seed in range(arguments.seeds):
        done = {row["choice"] for row in read_rows(arguments.rows) if int(row["seed"]) == seed}
        if missing := [choice for choice in ("first", *CHOICES) if choice not in done]:
            measure(seed, missing, arguments)
    return 0


def measure(seed: int, choices: list[str], arguments: argparse.Namespace) -> None:
    """Appends the row of each choice."""
    from maquette.cli.command_line.functions import function_of
    from maquette.feedback.config import PREFERENCES, PromptsConfig
    from maquette.feedback.policies import sample_pairs
    from maquette.model.loading import find_checkpoint

    policy = find_checkpoint(arguments.policy, "outputs").absolute()
    at = [f"outputs={arguments.outputs}", f"checkpoint={policy}"]
    labelled = [*at, "tracking=none", f"seed={seed}", "repeats=1", "feedback.noise=0.15"]

    def train(preferences: str, number: int) -> str:
        record = function_of("train")(
            [*at, "objective=reward", f"preferences.path={preferences}", f"seed={number}", "objective.epochs=3", "objective.batch_size=16",
             "optimizer.lr=0.003", "logger=none", "threads=1", "compile=off", "callbacks.samples.prompts=[]"]
        )  # fmt: skip
        return str(Path(record.folder).absolute())

    held_out = sample_pairs(
        policy, PromptsConfig(seed=seed), count=2000, first=HELD_OUT, answers=2, max_completion_length=20,
        temperature=1.0, seed=seed,
    )  # fmt: skip
    first = function_of("annotate")([*labelled, f"count={2 * arguments.first}", f"labels={arguments.first}"])
    before = str(first / PREFERENCES)
    ensemble = [train(before, 100 * seed + member) for member in range(ENSEMBLE)]
    for choice in choices:
        start, reward, preferences = time.process_time(), ensemble[0], before
        if choice != "first":
            rewards = [] if choice == "random" else [f"rewards=[{','.join(ensemble)}]"]
            more = function_of("annotate")(
                [*labelled, f"count={arguments.pool}", f"first={2 * arguments.first}", f"labels={arguments.more}",
                 f"choose={choice}", f"add=['{before}']", *rewards]
            )  # fmt: skip
            preferences = str(more / PREFERENCES)
            reward = train(preferences, 100 * seed)
        accuracy, pairs = agreement_with_gold(reward, held_out)
        row = {
            "seed": seed, "choice": choice, "labels": len(Path(preferences).read_bytes().splitlines()),
            "more": 0 if choice == "first" else arguments.more, "pool": arguments.pool, "accuracy": f"{accuracy:.5f}",
            "pairs": pairs, "seconds": f"{time.process_time() - start:.0f}", "commit": commit(),
            "cpu": processor_name(),
        }  # fmt: skip
        append(arguments.rows, row)
        print(row, flush=True)


def agreement_with_gold(reward: str, pairs: list[Any]) -> tuple[float, int]:
    """How often a reward model prefers what gold prefers, of the pairs where gold prefers something."""
    from maquette.feedback.annotators.reward_model import RewardModelAnnotator
    from maquette.feedback.annotators.simulated import GoldAnnotator
    from maquette.feedback.building import open_reward_model

    gold = [one.preference for one in GoldAnnotator().judge(pairs)]
    learned = [one.preference for one in RewardModelAnnotator(open_reward_model(reward, "outputs")).judge(pairs)]
    alike = [one == other for one, other in zip(gold, learned, strict=True) if one != 0.5]
    return float(np.mean(alike)), len(alike)


def append(path: Path, row: dict[str, Any]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def report(rows: list[dict[str, str]]) -> int:
    """Accuracy by choice, its gain for 100 labels, and that gain beside random's on the same seed."""
    values = {(row["seed"], row["choice"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    seeds = [seed for seed in seeds if all((seed, choice) in values for choice in ("first", *CHOICES))]
    if len(seeds) < 2:
        print("Fewer than two seeds are whole: python benchmarks/label_choice.py train")
        return 1
    accuracy = {
        choice: np.array([float(values[seed, choice]["accuracy"]) for seed in seeds]) for choice in ("first", *CHOICES)
    }
    hundreds = float(values[seeds[0], "random"]["more"]) / 100
    print(f"{len(seeds)} seeds, accuracy to gold {accuracy['first'].mean():.3f} before there was a choice")
    for choice in CHOICES:
        gain = (accuracy[choice] - accuracy["first"]) / hundreds
        beside = gain - (accuracy["random"] - accuracy["first"]) / hundreds
        half = float(t.ppf(0.975, len(seeds) - 1) * beside.std(ddof=1) / np.sqrt(len(seeds)))
        print(
            f"{choice:13} {accuracy[choice].mean():.3f}, {gain.mean():+.4f} for 100 labels; beside random "
            f"{beside.mean():+.4f} (95%: {beside.mean() - half:+.4f} to {beside.mean() + half:+.4f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
