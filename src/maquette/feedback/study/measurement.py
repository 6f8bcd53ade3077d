"""The policies of a study, measured on the same held-out prompts: sampled and greedy, against one reference."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.progress import progress
from maquette.artifacts.reading import load_sealed, reading, write_sealed
from maquette.data.conversations import Prompt
from maquette.feedback.overoptimisation import best_of_n_kl, best_of_n_means, powers_of_two
from maquette.feedback.policies import PolicyScores, measure_policy, sample_many, win_rate
from maquette.feedback.study.diversity import PolicyDiversity, measure_diversity
from maquette.feedback.tasks import words_of
from maquette.model.loading import load_checkpoint
from maquette.objectives.completions import RewardFunction, checked_scores
from maquette.statistics import IntervalEstimate


@dataclasses.dataclass(frozen=True)
class PolicyRun:
    """A policy to be measured: the folder of its run, and what training it took (0 for none)."""

    name: str
    kind: str
    folder: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flops: float = 0.0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class PolicyResult:
    """A measured policy. `scores` at T = 1 and `greedy` ones by the reward's name; `wins` and `greedy_wins` against the
    reference's completions of the same prompts, by the reward's name; `answers` to the first prompts, greedy;
    `diversity` None in studies of before it was measured."""

    name: str
    kind: str
    values: Mapping[str, Any]
    flops: float
    seconds: float
    kl: float
    words: float
    ended: float
    scores: Mapping[str, IntervalEstimate]
    greedy: Mapping[str, IntervalEstimate]
    wins: Mapping[str, IntervalEstimate]
    greedy_wins: Mapping[str, IntervalEstimate]
    answers: Sequence[str]
    diversity: PolicyDiversity | None = None


@dataclasses.dataclass(frozen=True)
class BestOfN:
    """Best-of-n of the reference by one reward: expected scores, words and KL divergence for each n."""

    reward: str
    n: Sequence[int]
    kl: Sequence[float]
    scores: Mapping[str, Sequence[float]]
    words: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """All that a study has measured. `instructions`: of the prompts whose completions are shown."""

    reference: str
    policies: Sequence[PolicyResult]
    best_of_n: Sequence[BestOfN]
    instructions: Sequence[str]
    prompts: int

    def save(self, path: Path) -> None:
        write_sealed(path, dataclasses.asdict(self))

    def policy(self, name: str) -> PolicyResult:
        return next(one for one in self.policies if one.name == name)


SHOWN = 6
"""Prompts whose completions are shown side by side."""


def measure_study(
    runs: Sequence[PolicyRun],
    reference: str,
    prompts: Sequence[Prompt],
    rewards: Mapping[str, RewardFunction],
    *,
    max_completion_length: int,
    best_of: int,
    seed: int = 0,
) -> Measurement:
    """Measures every run's policy; `reference` names the one that KL divergence and wins are measured against.

    `rewards` by name; those but "gold" are learned ones, each tried in best-of-n up to `best_of` completions (1: not at
    all). Raises `StageError` as `measure_policy` does.
    """
    sampled: dict[str, PolicyScores] = {}
    greedy: dict[str, PolicyScores] = {}
    diversity: dict[str, PolicyDiversity] = {}
    base, tokenizer = load_checkpoint(next(run.folder for run in runs if run.name == reference))
    with progress("measuring policies", len(runs), unit="policies") as advance:
        for run in runs:
            model, _ = load_checkpoint(run.folder)
            for scores, temperature in ((sampled, 1.0), (greedy, 0.0)):
                scores[run.name] = measure_policy(
                    model, tokenizer, prompts, rewards, reference=base, max_tokens=max_completion_length,
                    temperature=temperature, seed=seed,
                )  # fmt: skip
            best = greedy[run.name]
            diversity[run.name] = measure_diversity(
                model, tokenizer, prompts, best.completions, best.scores.get("gold"), max_tokens=max_completion_length,
                seed=seed + 2,
            )  # fmt: skip
            advance(1)
    results = [_result(run, sampled, greedy, reference, rewards, diversity[run.name]) for run in runs]
    curves: list[BestOfN] = []
    if best_of > 1:
        sampled_many = sample_many(base, tokenizer, prompts, best_of, max_tokens=max_completion_length, seed=seed + 1)
        flat = [one for row in sampled_many for one in row]
        shape = (len(prompts), best_of)
        scores_of = {name: np.array(checked_scores(one, flat)).reshape(shape) for name, one in rewards.items()}
        words = np.array([len(words_of(one.answer)) for one in flat], dtype=float).reshape(shape)
        curves = [_best_of(name, scores_of, words) for name in rewards if name != "gold"]
    shown = [prompt.messages[-1]["content"] for prompt in prompts[:SHOWN]]
    return Measurement(reference, results, curves, shown, len(prompts))


_BY_REWARD = ("scores", "greedy", "wins", "greedy_wins")


def read_measurement(path: Path) -> Measurement:
    """What `Measurement.save` wrote. Raises `StageError` for a file that another version wrote, or that is damaged."""

    def points(table: Mapping[str, Any]) -> dict[str, IntervalEstimate]:
        return {name: IntervalEstimate(**point) for name, point in table.items()}

    def diversity(policy: Mapping[str, Any]) -> PolicyDiversity | None:
        return PolicyDiversity(**values) if (values := policy.get("diversity")) else None

    hint = "Measure again: the same maquette alignment line with force=true."
    raw = load_sealed(path, hint=hint)
    with reading(path, hint=hint):
        policies = [
            PolicyResult(**(one | {name: points(one[name]) for name in _BY_REWARD} | {"diversity": diversity(one)}))
            for one in raw["policies"]
        ]
        best_of_n = [BestOfN(**one) for one in raw["best_of_n"]]
        return Measurement(raw["reference"], policies, best_of_n, raw["instructions"], raw["prompts"])


def _result(
    run: PolicyRun,
    sampled: Mapping[str, PolicyScores],
    greedy: Mapping[str, PolicyScores],
    reference: str,
    rewards: Mapping[str, RewardFunction],
    diversity: PolicyDiversity,
) -> PolicyResult:
    mine, best = sampled[run.name], greedy[run.name]
    return PolicyResult(
        name=run.name,
        kind=run.kind,
        values=run.values,
        flops=run.flops,
        seconds=run.seconds,
        kl=mine.kl,
        words=float(mine.words.mean()),
        ended=mine.ended,
        scores={name: mine.mean(name).plain for name in rewards},
        greedy={name: best.mean(name).plain for name in rewards},
        wins={name: win_rate(mine, sampled[reference], name).plain for name in rewards},
        greedy_wins={name: win_rate(best, greedy[reference], name).plain for name in rewards},
        answers=[one.answer for one in best.completions[:SHOWN]],
        diversity=diversity,
    )


def _best_of(name: str, scores: Mapping[str, np.ndarray], words: np.ndarray) -> BestOfN:
    numbers = powers_of_two(words.shape[1])
    chosen = scores[name]
    return BestOfN(
        reward=name,
        n=numbers,
        kl=[best_of_n_kl(n) for n in numbers],
        scores={other: [float(best_of_n_means(chosen, worth, n).mean()) for n in numbers]
                for other, worth in scores.items()},
        words=[float(best_of_n_means(chosen, words, n).mean()) for n in numbers],
    )  # fmt: skip
