"""Win rates: an annotator compares two models' completions to the same prompts, in both orders.

A judge who prefers what stands first says so by contradicting itself when the completions change places. Each prompt is
therefore asked twice, and its preference is the mean: half a win where the two contradict each other. Intervals draw
prompts, not judgements.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from maquette.artifacts import ConfigError, StageError
from maquette.evaluation.journal import Journal
from maquette.evaluation.length_control import WinRate, length_controlled_win_rate
from maquette.feedback.comparison import Annotator, Comparison
from maquette.statistics import Interval, bootstrap_mean, detectable_difference
from maquette.text.chat import Message

_AT_ONCE = 64
_EITHER_SIDE = 0.05
"""Share of prompts that must have a completion at least as long as the baseline's, and one at most as long: equal
length would else lie outside of what was seen, and the rate there would be a guess with a small standard error."""


@dataclass(frozen=True)
class PairwiseResult:
    """A model against a baseline by one annotator.

    `preferences` (n,): of each prompt, 1 where the model won in both orders, NaN where the annotator failed;
    `win_rate` in percent with its `interval`; `rate` with and without control of length. `wins`, `ties` (in doubt or
    contradicting), `losses`, `failed` count prompts. `first_shown`: how often the completion shown first was preferred,
    0.5 without a bias of position; `consistent`: share of prompts judged alike in both orders."""

    annotator: str
    preferences: NDArray[np.float64]
    win_rate: float
    interval: Interval
    rate: WinRate | None
    wins: int
    ties: int
    losses: int
    failed: int
    first_shown: float
    consistent: float

    @property
    def p_value(self) -> float:
        """Two-sided, for a win rate of one half: Student's test over prompts; 1 where all are ties."""
        sound = self.preferences[np.isfinite(self.preferences)]
        if len(sound) < 2 or np.ptp(sound) == 0:
            return 1.0 if len(sound) < 2 or sound[0] == 0.5 else 0.5 ** (len(sound) - 1)
        return float(ttest_1samp(sound, 0.5).pvalue)

    @property
    def detectable(self) -> float:
        """How far from 50 a win rate must be for so many prompts to show it in four cases of five, in percent; NaN of
        fewer than two."""
        sound = self.preferences[np.isfinite(self.preferences)]
        return detectable_difference(100 * float(sound.std(ddof=1)) / len(sound) ** 0.5) if len(sound) > 1 else math.nan


def compare_completions(
    annotator: Annotator,
    prompts: Sequence[Sequence[Message]],
    completions: Sequence[str],
    baseline: Sequence[str],
    *,
    facts: Sequence[Mapping[str, Any]] | None = None,
    journal: Journal | None = None,
    resamples: int = 2000,
    level: float = 0.9,
    seed: int = 0,
    advance: Callable[[float], None] = lambda _: None,
) -> PairwiseResult:
    """Asks `annotator` about both completions of each prompt, in both orders; `advance` counts prompts.

    With a `journal` each judgement is kept as soon as it is made: a judge that fails or is stopped loses nothing, and
    only what is missing is asked again. Equal completions are a tie without asking.
    Raises `ConfigError` where the columns have different lengths, `StageError` where no prompt could be judged.
    """
    count = len(prompts)
    if not count or len(completions) != count or len(baseline) != count or (facts is not None and len(facts) != count):
        raise ConfigError(f"{count} prompts, {len(completions)} completions and {len(baseline)} of the baseline.")
    shown = [
        Comparison(tuple(prompts[i]), completions[i], baseline[i], facts[i] if facts is not None else {})
        for i in range(count)
    ]
    remaining = _judged(annotator, shown, journal, advance)
    forward = np.array([remaining[row.key] for row in shown], float)
    backward = 1 - np.array([remaining[row.swapped().key] for row in shown], float)
    preferences = (forward + backward) / 2
    sound = np.isfinite(preferences)
    if not sound.any():
        raise StageError(f"{annotator.name} gave no usable judgement on {count} prompts.", "Look at what it replies.")
    result = preferences[sound]
    interval = Interval(float("nan"), float("nan"))
    if len(result) > 1:
        interval = bootstrap_mean(100 * result, resamples=resamples, level=level, seed=seed).interval
    asked = sound & np.array([row.first != row.second for row in shown])
    first = np.concatenate([forward[asked], 1 - backward[asked]])
    return PairwiseResult(
        annotator.name,
        preferences,
        100 * float(result.mean()),
        interval,
        _length_controlled(preferences, completions, baseline),
        wins=int(np.sum(result > 0.5)),
        ties=int(np.sum(result == 0.5)),
        losses=int(np.sum(result < 0.5)),
        failed=int(count - sound.sum()),
        first_shown=float(first.mean()) if len(first) else 0.5,
        consistent=float(np.mean((forward[asked] > 0.5) == (backward[asked] > 0.5))) if asked.any() else 1.0,
    )


def battles(results: Mapping[tuple[str, str], PairwiseResult]) -> dict[str, list[Any]]:
    """Columns for `bradley_terry_ratings`: a battle for each prompt that each two models were judged on."""
    columns: dict[str, list[Any]] = {"winners": [], "losers": [], "ties": []}
    for (model, other), result in results.items():
        for preference in result.preferences[np.isfinite(result.preferences)]:
            won = preference >= 0.5
            columns["winners"].append(model if won else other)
            columns["losers"].append(other if won else model)
            columns["ties"].append(bool(preference == 0.5))
    return columns


def _judged(
    annotator: Annotator, shown: Sequence[Comparison], journal: Journal | None, advance: Callable[[float], None]
) -> dict[str, float]:
    """Preference of each comparison in both orders, by its key; NaN where the annotator failed."""
    known = {} if journal is None else journal.results
    name = f"pair|{annotator.name}|{{}}".format
    preferences: dict[str, float | None] = {}
    for start in range(0, len(shown), _AT_ONCE):
        pairs = shown[start : start + _AT_ONCE]
        rows = {row.key: row for pair in pairs for row in (pair, pair.swapped())}
        preferences |= {key: 0.5 if row.first == row.second else known.get(name(key)) for key, row in rows.items()}
        waiting = [row for key, row in rows.items() if preferences[key] is None]
        judgements = annotator.judge(waiting) if waiting else []
        fresh = {row.key: judgement.preference for row, judgement in zip(waiting, judgements, strict=True)}
        preferences |= fresh
        if journal is not None:  # what failed is asked again next time
            journal.add((name(key), value) for key, value in fresh.items() if value is not None)
        advance(len(pairs))
    return {key: math.nan if value is None else float(value) for key, value in preferences.items()}


def _length_controlled(
    preferences: NDArray[np.float64], completions: Sequence[str], baseline: Sequence[str]
) -> WinRate | None:
    """By characters, over the prompts that were judged. None where length and quality can't be told apart: also where
    nearly all completions are longer than the baseline's, or nearly all shorter."""
    sound = np.isfinite(preferences)
    lengths = np.array([[len(a), len(b)] for a, b in zip(completions, baseline, strict=True)], float)[sound]
    difference = lengths[:, 0] - lengths[:, 1]
    if sound.sum() < 2 or min(np.mean(difference >= 0), np.mean(difference <= 0)) < _EITHER_SIDE:
        return None
    try:
        return length_controlled_win_rate(preferences[sound], lengths[:, 0], lengths[:, 1])
    except ConfigError:
        return None
