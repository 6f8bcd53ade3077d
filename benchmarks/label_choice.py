"""What a label is worth by which pair it is spent on: the rules of `maquette annotate choose=random|uncertainty|
disagreement`.

    python benchmarks/label_choice.py measure     what results/label_choice.csv does not have yet
    python benchmarks/label_choice.py report      prints the table

The policy is the fine-tuned model of `make demo-alignment`, the pairs are its completions, the labels of a simulated
person. So that many seeds are affordable, the reward is no network: a logistic regression on counts of words by their
category and the one that was asked for (an ensemble: on resamples of the labels). All choices of a seed begin with the
same random labels; then each round adds those that its rule chooses from the pool. Each seed has prompts and people of
its own.
"""

import argparse
import csv
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from forecast_record import commit, read_rows
from numpy.typing import NDArray
from scipy.stats import t

from maquette.tracking.environment import processor_name

ROWS = Path(__file__).parent / "results" / "label_choice.csv"
COLUMNS = ["seed", "choice", "labels", "accuracy", "pool", "pairs", "seconds", "commit", "cpu"]
CHOICES = ("random", "uncertainty", "disagreement")

FIRST, MORE, ROUNDS = 50, 50, 8
"""Labels to begin with, labels of a round, rounds."""

ENSEMBLE = 8
POOL, HELD_OUT = 2000, 2000
"""Prompts whose pairs may be labelled, and prompts of the pairs that the reward is judged on."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["measure", "report"])
    parser.add_argument("--policy", default="latest", help="measure: run or folder of a fine-tuned model of the tasks")
    parser.add_argument("--outputs", default="outputs", help="measure: where the policy is")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.what == "report":
        return report(read_rows(arguments.rows))
    for seed in range(arguments.seeds):
        if str(seed) not in {row["seed"] for row in read_rows(arguments.rows)}:
            append(arguments.rows, measure(seed, arguments))
            print(f"seed {seed} is measured", flush=True)
    return 0


def measure(seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a seed: the accuracy to gold of each choice's reward after each round."""
    from maquette.feedback.annotators.simulated import AnnotatorProfile, GoldAnnotator, SimulatedAnnotator
    from maquette.feedback.choosing import most_worth, worth_of_a_label
    from maquette.feedback.config import PromptsConfig
    from maquette.feedback.policies import sample_pairs
    from maquette.model.loading import find_checkpoint

    start = time.process_time()
    policy = find_checkpoint(arguments.policy, arguments.outputs)
    pairs = sample_pairs(
        policy, PromptsConfig(seed=seed), count=POOL + HELD_OUT, first=0, answers=2, max_completion_length=20,
        temperature=1.0, seed=seed,
    )  # fmt: skip
    features = differences(pairs)
    gold = np.array([one.preference for one in GoldAnnotator().judge(pairs)])
    labels = np.array([one.preference for one in SimulatedAnnotator(AnnotatorProfile(0.15), seed=seed).judge(pairs)])
    pool = np.arange(len(pairs) // 2)
    held_out = np.arange(len(pairs) // 2, len(pairs))
    held_out = held_out[gold[held_out] != 0.5]
    numbers = np.random.default_rng(seed)
    first = numbers.permutation(pool)[:FIRST]
    rows = []
    for choice in CHOICES:
        labelled = first
        for number in range(ROUNDS + 1):
            reward = fitted(features[labelled], labels[labelled])
            accuracy = np.mean((features[held_out] @ reward > 0) == (gold[held_out] > 0.5))
            rows.append(
                {"seed": seed, "choice": choice, "labels": len(labelled), "accuracy": f"{accuracy:.5f}",
                 "pool": len(pool), "pairs": len(held_out)}
            )  # fmt: skip
            rest = np.setdiff1d(pool, labelled)
            worth = np.zeros(len(rest))
            if choice != "random":
                resamples = [numbers.choice(labelled, len(labelled)) for _ in range(ENSEMBLE)]
                members = [fitted(features[one], labels[one]) for one in resamples]
                worth = worth_of_a_label(1 / (1 + np.exp(-np.array(members) @ features[rest].T)), choice)
            chosen = most_worth(worth, [pairs[place].key for place in rest], MORE, seed=1000 * seed + number)
            labelled = np.concatenate([labelled, rest[chosen]])
    seconds = f"{time.process_time() - start:.0f}"
    return [row | {"seconds": seconds, "commit": commit(), "cpu": processor_name()} for row in rows]


def differences(pairs: Sequence[Any]) -> NDArray[np.float64]:
    """Counts in the first completion less those in the second, (n, features)."""
    return np.array([counts(pair.first, pair.facts) - counts(pair.second, pair.facts) for pair in pairs])


def counts(completion: str, facts: Mapping[str, Any]) -> NDArray[np.float64]:
    """Words of each category, by the category that was asked for; words that were not given; repeated words."""
    from maquette.feedback.tasks import words_of
    from maquette.feedback.tasks.exercises import CATEGORIES, CATEGORY_OF

    names = list(CATEGORIES)
    table, rest = np.zeros((len(names), len(names))), np.zeros(2)
    asked, written = names.index(CATEGORY_OF[facts["answer"][0]]), words_of(completion)
    for word in written:
        if word in facts["items"]:
            table[asked, names.index(CATEGORY_OF[word])] += 1
        else:
            rest[0] += 1
    rest[1] = len(written) - len(set(written))
    return np.concatenate([table.ravel(), rest])


def fitted(features: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the Bradley-Terry model, (D,): a logistic regression without intercept, with a ridge."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        return np.zeros(features.shape[1])
    return LogisticRegression(C=1.0, fit_intercept=False, max_iter=500).fit(features, labels).coef_[0]


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """A seed's rows in one write, so that a seed is there or not."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def report(rows: list[dict[str, str]]) -> int:
    """Accuracy to gold by choice and number of labels, and the gain of a label beside random's on the same seed."""
    accuracy = {(row["seed"], row["choice"], int(row["labels"])): float(row["accuracy"]) for row in rows}
    seeds = sorted({row["seed"] for row in rows}, key=int)
    if len(seeds) < 2:
        print("Fewer than two seeds are there: python benchmarks/label_choice.py measure")
        return 1
    steps = sorted({labels for _, _, labels in accuracy})
    print(f"{len(seeds)} seeds; accuracy to gold by labels\n{'':13}" + "".join(f"{labels:>8}" for labels in steps))
    means = {}
    for choice in CHOICES:
        table = np.array([[accuracy[seed, choice, labels] for labels in steps] for seed in seeds])
        print(f"{choice:13}" + "".join(f"{value:8.4f}" for value in table.mean(axis=0)))
        means[choice] = (table[:, 1:].mean(axis=1) - table[:, 0]) / (np.mean(steps[1:]) - steps[0])
    for choice in CHOICES[1:]:
        beside = 100 * (means[choice] - means["random"])
        half = float(t.ppf(0.975, len(seeds) - 1) * beside.std(ddof=1) / np.sqrt(len(seeds)))
        print(
            f"{choice}: {100 * means[choice].mean():+.4f} for 100 labels (mean over the rounds), random's "
            f"{100 * means['random'].mean():+.4f}; difference {beside.mean():+.4f} "
            f"(95%: {beside.mean() - half:+.4f} to {beside.mean() + half:+.4f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
