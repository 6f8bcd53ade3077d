"""Many evaluations side by side: one table a suite, means and mean win rates, and who differs beyond chance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maquette.artifacts import ConfigError
from maquette.artifacts.reading import load_sealed
from maquette.evaluation.baselines import ALL
from maquette.reports.tables import p_value
from maquette.statistics import PairedDifference, detectable_difference, holm, paired_bootstrap

FILE = "evaluation.json"


@dataclass(frozen=True)
class LeaderboardRow:
    """One checkpoint on a suite: mean accuracy and mean win rate over its tasks, bits per byte, and the mean accuracy's
    difference from the first row's over the same questions. `adjusted`: its p-value for as many comparisons as the
    leaderboard makes; `detectable`: the difference that these questions show in four cases of five."""

    name: str
    checkpoint: str
    tokenizer: str
    scores: dict[str, float]
    mean_accuracy: float | None
    mean_win_rate: float | None
    bits_per_byte: float | None
    perplexity: float | None
    behind: PairedDifference | None
    adjusted: float | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class Leaderboard:
    """Evaluations that asked the same questions in the same way (`protocol` is the digest of both), best first."""

    suite: str
    protocol: str
    rows: tuple[LeaderboardRow, ...]

    @property
    def one_tokenizer(self) -> bool:
        """Whether perplexities by token may be compared."""
        return len({row.tokenizer for row in self.rows}) == 1

    @property
    def detectable(self) -> float | None:
        """The smallest difference from the first row that would be seen whoever it is; None of a model alone."""
        return max((row.detectable for row in self.rows if row.detectable is not None), default=None)

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Headings, and the rows' cells under them."""
        tasks = list(dict.fromkeys(name for row in self.rows for name in row.scores))
        head = ["model", "mean win rate", "mean accuracy", "behind the first", *tasks, "bits per byte", "perplexity"]
        rows = [
            [row.name, _cell(row.mean_win_rate), _cell(row.mean_accuracy), _behind(row),
             *(_cell(row.scores.get(task)) for task in tasks), _cell(row.bits_per_byte),
             _cell(row.perplexity) if self.one_tokenizer else "other tokenizers"]
            for row in self.rows
        ]  # fmt: skip
        return head, rows


def read_evaluations(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The finished evaluations among `folders`. Raises `StageError` where one is damaged."""
    evaluations = []
    for folder in folders:
        path = folder / FILE
        if path.is_file():
            evaluations.append(load_sealed(path, hint="Evaluate again with force=true."))
    return evaluations


def rankings(evaluations: Sequence[dict[str, Any]], *, resamples: int = 2000, seed: int = 0) -> list[Leaderboard]:
    """One leaderboard for each way of asking; of a model evaluated twice the same way, the newer."""
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for evaluation in sorted(evaluations, key=lambda row: row["created"]):
        group = groups.setdefault((evaluation["suite"]["name"], evaluation["comparable"]), {})
        group[evaluation["digests"]["model"]] = evaluation
    return [
        Leaderboard(suite, protocol, tuple(_ranked(list(group.values()), resamples, seed)))
        for (suite, protocol), group in sorted(groups.items())
    ]


def _ranked(group: list[dict[str, Any]], resamples: int, seed: int) -> Iterable[LeaderboardRow]:
    scores = {
        row["digests"]["model"]: {name: task["accuracy"] for name, task in row["headline"].items()} for row in group
    }
    tasks = {name: own for name, own in scores.items() if own}
    rates = {one.model: one.mean_win_rate for one in score_models(tasks)} if len(tasks) > 1 else {}

    def order(row: dict[str, Any]) -> tuple[float, float]:
        accuracy = row["mean_accuracy"]
        return -rates.get(row["digests"]["model"], 0.0), 1.0 if accuracy is None else -accuracy

    group = sorted(group, key=order)
    behind = [compare(group[0], row, resamples=resamples, seed=seed) for row in group[1:]]
    compared = [place for place, difference in enumerate(behind, 1) if difference is not None]
    adjusted = dict(zip(compared, holm([one.p_value for one in behind if one is not None]), strict=True))
    for place, row in enumerate(group):
        difference = behind[place - 1] if place else None
        model, likelihood = row["digests"]["model"], row["likelihood"].get(ALL)
        yield LeaderboardRow(
            row["name"], row["checkpoint"], row["digests"]["tokenizer"], scores[model], row["mean_accuracy"],
            rates.get(model),
            likelihood["bits_per_byte"]["value"] if likelihood else None,
            likelihood["perplexity"]["value"] if likelihood else None,
            difference, float(adjusted[place]) if place in adjusted else None,
            None if difference is None else detectable_difference(difference.standard_error),
        )  # fmt: skip


def compare(
    first: dict[str, Any], second: dict[str, Any], *, resamples: int = 2000, seed: int = 0
) -> PairedDifference | None:
    """Accuracy of the first less the second over the questions that both answered, drawn again together.

    None where they have fewer than two in common.
    """
    shared = sorted(
        (task, question)
        for task, own in first["items"].items()
        for question in own.keys() & second["items"].get(task, {})
    )
    if len(shared) < 2:
        return None
    a, b = ([row["items"][task][question] for task, question in shared] for row in (first, second))
    return paired_bootstrap(a, b, resamples=resamples, seed=seed)


def _behind(row: LeaderboardRow) -> str:
    """A difference with its interval and adjusted p-value, in words short enough for a table."""
    if row.behind is None or row.adjusted is None:
        return ""
    low, high = row.behind.interval
    return f"{row.behind.difference:.3f} ({low:.3f} to {high:.3f}), p {p_value(row.adjusted)}"


def _cell(value: float | None) -> Any:
    return "" if value is None else (value, f"{value:.3f}")


@dataclass(frozen=True)
class ModelScore:
    """A model over all scenarios: `mean_win_rate` and plain `mean_score`, both in [0, 1] where scores are."""

    model: str
    mean_win_rate: float
    mean_score: float
    scenarios: int


def score_models(scores: Mapping[str, Mapping[str, float]]) -> list[ModelScore]:
    """Models by mean win rate, best first. `scores` maps a model to its score on each scenario.

    The win rate on a scenario is the share of the other models that a model beats there, ties half (Liang et al. 2022,
    "Holistic Evaluation of Language Models", section 1.1); its mean is over the scenarios that the model and at
    least one other were run on. It depends on which models are compared; the plain mean does not, but adds scores that
    may not be alike. With one model there is no win rate (NaN).
    """
    if not scores:
        raise ConfigError("There are no scores to aggregate.")
    table = pd.DataFrame([dict(own) for own in scores.values()], index=list(scores)).astype(float)
    beaten = (table.rank() - 1) / (table.count() - 1)  # a tie counts half; of nobody it is NaN
    rates, means, counts = beaten.mean(axis=1), table.mean(axis=1), table.count(axis=1)
    rows = [ModelScore(model, float(rates[model]), float(means[model]), int(counts[model])) for model in scores]
    return sorted(rows, key=lambda row: (*np.nan_to_num([-row.mean_win_rate, -row.mean_score], nan=1.0), row.model))
