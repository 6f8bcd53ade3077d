"""Length-controlled win rate: what a model would win if its completions were as long as the baseline's.

Dubois et al. 2024, "Length-Controlled AlpacaEval", section 3, as AlpacaEval 2 computes it. With z_i the baseline's
length less the model's on prompt i, over that difference's standard deviation, and d_i the prompt's difficulty,

    P(the model wins on i) = sigmoid(t tanh(z_i) + a d_i + b),      controlled = 100 mean_i sigmoid(a d_i + b).

t and a are held by an L1 penalty that cross-validation by prompt chooses; b, which is the quality asked for, is free.
The anchors are completions by the baseline itself, asked to be verbose or concise: in their rows b stands at zero, so
that they speak of length alone. A model whose completions differ from the baseline's by always the same can't tell the
two apart without them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from maquette.artifacts import ConfigError

Floats = NDArray[np.float64]

Anchors = Mapping[str, Sequence[ArrayLike]] | Iterable[Sequence[ArrayLike]]
"""The baseline's verbose and concise twins: `(preferences, lengths)` of each, over the same prompts."""

ANCHOR_WEIGHT = 0.1
"""Weight of an anchor's row beside the model's own (AlpacaEval 2: 0.2 shared by two)."""

_FOLDS = 5
_PENALTIES = np.logspace(1, -3, 5)  # strengths that are tried, the strongest first
_LARGEST = 30.0  # log-odds: where a fold has one outcome only, b has no bound


@dataclass(frozen=True)
class WinRate:
    """Percent of prompts that a model wins against a baseline, ties half.

    `standard_error` is that of `controlled`, in percent, over prompts; `length_effect` is t: below zero where the judge
    prefers the longer completion.
    """

    raw: float
    controlled: float
    standard_error: float
    length_effect: float = 0.0


def length_controlled_win_rate(
    preferences: ArrayLike,
    lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    anchors: Anchors | None = None,
) -> WinRate:
    """Win rates in percent from `preferences` (n,) in [0, 1] (1: the model wins, 0.5: a tie), one for each prompt.

    `lengths` and `baseline_lengths` (n,): of the two completions, in any one unit. `difficulty` (n,): of the prompts,
    such as the log-odds that a middling model loses. `anchors`: see the top of this file. Raises `ConfigError` for
    columns of different lengths and values out of range, by row; and where all completions differ in length by the same
    amount, so that length and quality can't be told apart."""
    wins = _column("preferences", preferences)
    if outside := np.flatnonzero((wins < 0) | (wins > 1)).tolist():
        raise ConfigError(
            f"preferences[{outside[0]}] is {wins[outside[0]]:g}; it must lie between 0 and 1.",
            "1 says that the model wins, 0 that the baseline does, 0.5 a tie.",
        )
    count = len(wins)
    if count < 2:
        raise ConfigError("A win rate needs at least two prompts.")
    baseline = _column("baseline_lengths", baseline_lengths, count)
    shorter = baseline - _column("lengths", lengths, count)
    hardness = np.zeros(count) if difficulty is None else _column("difficulty", difficulty, count)
    rows = [(wins, shorter, np.ones(count), np.ones(count))]
    for name, (anchor_wins, anchor_lengths) in _named(anchors):
        anchor = _column(f"the preferences of {name}", anchor_wins, count)
        difference = baseline - _column(f"the lengths of {name}", anchor_lengths, count)
        rows.append((anchor, difference, np.zeros(count), np.full(count, ANCHOR_WEIGHT)))
    outcome, differences, is_model, weight = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    spread = float(np.std(shorter, ddof=1)) or float(np.std(differences, ddof=1))
    raw = 100 * float(wins.mean())
    if spread == 0 and shorter[0] != 0:
        raise ConfigError(
            f"Every completion is {-shorter[0]:g} longer than the baseline's: length and quality can't be told apart.",
            "Give anchors=: the judged completions of the baseline when asked to be verbose, and to be concise.",
        )
    if wins.min() == wins.max() and wins[0] in (0.0, 1.0):
        return WinRate(raw, raw, 0.0)
    length = np.tanh(differences / spread) if spread else np.zeros(len(differences))
    hardness_scale = float(np.std(hardness)) or 1.0
    hard = np.tile(hardness / hardness_scale, len(rows))
    prompt = np.tile(np.arange(count), len(rows))
    features = np.stack([length, hard, is_model], axis=1)
    coefficients = _fit(features, outcome, weight, prompt)
    return _reported(coefficients, features, outcome, weight, prompt, raw)


def _fit(features: Floats, outcome: Floats, weight: Floats, prompt: NDArray[np.intp]) -> Floats:
    """t, a and b, under the weakest penalty that predicts left-out prompts as well as the best (within a standard
    error): a penalty too strong leaves length in the rate, which is the error that matters here."""
    folds = min(_FOLDS, int(prompt.max()) + 1)
    fold = np.random.default_rng(0).permutation(int(prompt.max()) + 1)[prompt] % folds
    scores = np.zeros((len(_PENALTIES), folds))
    for part in range(folds):
        train, test = fold != part, fold == part
        for index, penalty in enumerate(_PENALTIES):
            chosen = _penalised(features[train], outcome[train], weight[train], penalty)
            scores[index, part] = -_loss(chosen, features[test], outcome[test], weight[test])[0]
    behind = scores[scores.sum(axis=1).argmax()] - scores
    near = behind.sum(axis=1) <= np.sqrt(folds) * behind.std(axis=1, ddof=1)
    return _penalised(features, outcome, weight, float(_PENALTIES[np.flatnonzero(near).max()]))


def _penalised(features: Floats, outcome: Floats, weight: Floats, penalty: float) -> Floats:
    """The least loss plus `penalty` times (|t| + |a|): each of them is the difference of two parts not below zero."""
    parts = np.concatenate([features, -features[:, :2]], axis=1)  # t, a, b, and what is taken from t and a
    price = penalty * np.array([1.0, 1.0, 0.0, 1.0, 1.0])

    def objective(values: Floats) -> tuple[float, Floats]:
        loss, gradient = _loss(values, parts, outcome, weight)
        return loss + float(price @ values), gradient + price

    bounds = [(0, None), (0, None), (-_LARGEST, _LARGEST), (0, None), (0, None)]
    solution = minimize(
        objective, np.zeros(5), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-6}
    ).x
    return np.array([solution[0] - solution[3], solution[1] - solution[4], solution[2]])


def _loss(coefficients: Floats, features: Floats, outcome: Floats, weight: Floats) -> tuple[float, Floats]:
    """Cross-entropy in nats, and its gradient."""
    odds = features @ coefficients
    loss = weight @ (outcome * log_expit(odds) + (1 - outcome) * log_expit(-odds))
    return -float(loss), (weight * (expit(odds) - outcome)) @ features


def _reported(
    coefficients: Floats,
    features: Floats,
    outcome: Floats,
    weight: Floats,
    prompt: NDArray[np.intp],
    raw: float,
) -> WinRate:
    """The rate at equal lengths, and its standard error by the delta method: prompts are what was drawn, so each
    prompt's rows go together (the sandwich of Huber 1967)."""
    count = int(prompt.max()) + 1
    equal = features[:count] * [0.0, 1.0, 1.0]
    rate = expit(equal @ coefficients)
    predicted = expit(features @ coefficients)
    information = (features * (weight * predicted * (1 - predicted))[:, None]).T @ features
    scores = np.zeros((count, 3))
    np.add.at(scores, prompt, features * (weight * (outcome - predicted))[:, None])
    gradient = (equal * (rate * (1 - rate))[:, None]).mean(axis=0)
    influence = (rate - rate.mean()) / count + scores @ np.linalg.pinv(information, hermitian=True) @ gradient
    error = float(np.sqrt(count / (count - 1) * np.sum(influence**2)))
    return WinRate(raw, 100 * float(rate.mean()), 100 * error, float(coefficients[0]))


def _named(anchors: Anchors | None) -> list[tuple[str, Sequence[ArrayLike]]]:
    if anchors is None:
        return []
    named = anchors.items() if isinstance(anchors, Mapping) else ((f"anchor {i}", a) for i, a in enumerate(anchors, 1))
    listed = list(named)
    for name, columns in listed:
        if len(columns) != 2:
            raise ConfigError(f"{name} has {len(columns)} columns.", "Give (preferences, lengths) of each anchor.")
    return listed


def _column(name: str, values: ArrayLike, count: int | None = None) -> Floats:
    column = np.asarray(values, float)
    if column.ndim != 1 or (count is not None and len(column) != count):
        raise ConfigError(f"{name} has shape {column.shape}.", f"Give one number for each of {count or 'the'} prompts.")
    bad = np.flatnonzero(~np.isfinite(column))
    if len(bad):
        raise ConfigError(f"{name}[{bad[0]}] is {column[bad[0]]}.", "Leave out what was not judged, and count it.")
    return column
