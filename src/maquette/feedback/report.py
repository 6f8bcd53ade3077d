"""The report of annotation: how good the labels are, what sways them, what they cost, and how many are enough."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.files import write_json, write_text
from maquette.feedback.agreement import (
    Votes,
    accuracy_to_gold,
    estimate_biases,
    inter_annotator_agreement,
    label_curve,
)
from maquette.feedback.comparison import Comparison, Judgement
from maquette.feedback.tasks import is_list, words_of
from maquette.reports import render
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.statistics import Estimate, bootstrap_mean


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of one kind of annotator: `votes (labels of each pair, pairs)`, dollars for 1,000 labels, and whatever
    else there is to tell (cached questions, nonsense replies)."""

    name: str
    votes: Votes
    dollars_per_thousand: float = 0.0
    notes: Mapping[str, float] = dataclasses.field(default_factory=dict)


def votes_of(judgements: Sequence[Judgement]) -> Votes:
    """Preferences as numbers, NaN where there is none: (n,)."""
    return np.array([math.nan if one.preference is None else one.preference for one in judgements])


def describe_annotator(labels: Labels, pairs: Sequence[Comparison], gold: Votes | None) -> dict[str, Any]:
    """What there is to say of one annotator, as it stands in report.json; None where it is not known (no gold, a
    single label).

    `gold (pairs,)`: gold reward of the first completion less that of the second, where the prompts have one.
    """
    votes = labels.votes
    one = votes[0]
    words = np.array([len(words_of(pair.first)) - len(words_of(pair.second)) for pair in pairs], dtype=float)
    lists = np.array([is_list(pair.first) - is_list(pair.second) for pair in pairs], dtype=float)
    decided = ~np.isnan(one) & (one != 0.5)
    lengths_tell = decided & (words != 0)
    biases = None if gold is None else estimate_biases(one, gold, words, lists)
    curve = None if gold is None or not _has_better_answers(votes, gold) else label_curve(votes, gold)
    return {
        "name": labels.name,
        "labels": int((~np.isnan(one)).sum()),
        "undecided": int((one == 0.5).sum()),
        "missing": int(np.isnan(one).sum()),
        "accuracy_to_gold": None if gold is None else _numbers(accuracy_to_gold(one, gold)),
        "inter_annotator_agreement": _numbers(inter_annotator_agreement(votes) if len(votes) > 1 else None),
        "prefers_longer": _share((one[lengths_tell] > 0.5) == (words[lengths_tell] > 0)),
        "prefers_first": _share(one[decided] > 0.5),
        "odds": None if biases is None else dataclasses.asdict(biases),
        "bias": None if curve is None else curve.bias,
        "variance": None if curve is None else curve.variance,
        "majority_error": None if curve is None else curve.error.tolist(),
        "dollars_per_thousand": labels.dollars_per_thousand,
        **labels.notes,
    }


def write_report(
    folder: Path,
    annotators: Sequence[Mapping[str, Any]],
    pairs: Sequence[Comparison],
    agreement: Mapping[str, Estimate],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes report.md, report.json and, where gold is known, figures/bias_variance; returns the manifest's facts.

    `agreement`: between annotators of different kinds, by their names. `notes`: names of facts that only some
    annotators have. The first of `annotators` (as `describe_annotator` gives them) gave the labels.
    """
    facts = {
        "pairs": len(pairs),
        "annotators": list(annotators),
        "agreement_between": {name: _numbers(one) for name, one in agreement.items()},
    }
    write_json(folder / "report.json", facts)
    write_text(folder / "report.md", render("annotation.md.j2", {**facts, "notes": notes}))
    if any(one["bias"] is not None for one in annotators):
        draw_bias_variance(annotators, folder / "figures" / "bias_variance")
    if priced := agreement_and_price(annotators, agreement):
        draw_price(*priced, folder / "figures" / "price")
    return facts


def agreement_and_price(
    annotators: Sequence[Mapping[str, Any]], agreement: Mapping[str, Estimate]
) -> tuple[str, dict[str, tuple[float, float, float, float]]] | None:
    """By whom judges are measured, gold or the first annotator, and of each judge its price for 1,000 labels and its
    agreement with them, with its interval. None for a single judge."""
    judges = [one for one in annotators if one["name"] != "gold"]
    if len(judges) < 2:
        return None
    if any(one["accuracy_to_gold"] is not None for one in judges):
        shares = {one["name"]: one["accuracy_to_gold"] for one in judges}
        truth = "gold"
    else:
        truth = str(judges[0]["name"])
        between = {other["name"]: agreement.get(f"{truth}, {other['name']}") for other in judges[1:]}
        shares = {name: _numbers(one) for name, one in between.items()}
    prices = {one["name"]: float(one["dollars_per_thousand"]) for one in judges}
    return truth, {
        name: (prices[name], share["value"], share["low"], share["high"])
        for name, share in shares.items() if share is not None
    }  # fmt: skip


def draw_bias_variance(annotators: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Left: each annotator's bias over its variance. Right: the error of the majority as labels of a pair grow."""
    figure, (left, right) = new_figure(1, 2, width=5.2)
    for color, one in zip(COLORS, (one for one in annotators if one["bias"] is not None), strict=False):
        left.plot(one["variance"], one["bias"], "o", color=color, label=one["name"])
        odd = one["majority_error"][::2]
        right.plot(range(1, 2 * len(odd), 2), odd, "o-", color=color, markersize=4, label=one["name"])
        right.axhline(one["bias"], color=color, linestyle=":", linewidth=1)
    left.set_xlabel("variance: a label differs from the annotator's own majority (share)")
    left.set_ylabel("bias: the majority is wrong by gold (share)")
    left.set_title("Bias against variance")
    right.set_xlabel("labels of each pair")
    right.set_ylabel("error of the majority by gold (share)")
    right.set_title("More labels cure variance, not bias (dotted)")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    left.set_xlim(left=0)
    return save_figure(figure, path)


def draw_price(truth: str, judges: Mapping[str, tuple[float, float, float, float]], path: Path) -> Path:
    """Agreement with `truth` over the price of 1,000 labels; see `agreement_and_price`."""
    figure, axes = new_figure(width=5.4, height=3.8)
    for color, (name, (price, share, low, high)) in zip(itertools.cycle(COLORS), judges.items(), strict=False):
        errors = [[share - low], [high - share]]
        axes.errorbar([price], [share], yerr=errors, fmt="o", color=color, capsize=3, label=name)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set(xlabel="dollars for 1,000 labels", ylabel=f"agreement with {truth}, 95% intervals")
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def _share(values: np.ndarray) -> dict[str, float] | None:
    return _numbers(bootstrap_mean(values, level=0.95) if len(values) > 1 else None)


def _has_better_answers(votes: Votes, gold: Votes) -> bool:
    return bool(((gold != 0) & ~np.isnan(votes).any(axis=0)).any())


def _numbers(one: Estimate | None) -> dict[str, float] | None:
    return None if one is None else dataclasses.asdict(one.plain)
