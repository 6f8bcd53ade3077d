"""Many scenarios, one number: mean win rate as HELM has it, and the plain mean beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from maquette.artifacts import ConfigError


@dataclass(frozen=True)
class ModelScore:
    """A model over all scenarios: `mean_win_rate` and plain `mean_score`, both in [0, 1] where scores are."""

    model: str
    mean_win_rate: float
    mean_score: float
    scenarios: int


def standings(scores: Mapping[str, Mapping[str, float]], *, higher_is_better: bool = True) -> list[ModelScore]:
    """Models by mean win rate, best first. `scores` maps a model to its score on each scenario.

    The win rate on a scenario is the share of the other models that a model beats there, ties half (Liang et al. 2022,
    "Holistic Evaluation of Language Models", section 1.1); its mean is over the scenarios that the model and at
    least one other were run on. It depends on which models are compared; the plain mean does not, but adds scores that
    may not be alike. With one model there is no win rate (NaN).
    """
    if not scores:
        raise ConfigError("There are no scores to aggregate.")
    sign = 1.0 if higher_is_better else -1.0
    found = []
    for model, own in scores.items():
        rates = []
        for scenario, score in own.items():
            others = [sign * row[scenario] for name, row in scores.items() if name != model and scenario in row]
            if others:
                beaten = [0.5 if sign * score == other else float(sign * score > other) for other in others]
                rates.append(float(np.mean(beaten)))
        mean = float(np.mean(list(own.values()))) if own else float("nan")
        found.append(ModelScore(model, float(np.mean(rates)) if rates else float("nan"), mean, len(own)))
    return sorted(found, key=lambda row: (-_or_least(row.mean_win_rate), -sign * _or_least(row.mean_score), row.model))


def _or_least(value: float) -> float:
    return value if np.isfinite(value) else -1.0
