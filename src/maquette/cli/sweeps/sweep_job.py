"""A job of a sweep, and the jobs that follow from others: runs that share a trunk, and runs that measure the recipe.

- `sweep.branches`: jobs that differ in nothing but their tokens become one tree.
- `sweep.rate_pairs`: beside some jobs, two at half and twice the learning rate, from which `maquette fit` tells what
  the recipe's rate costs along the family (scaling/fits/recipe_cost.py).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from maquette.cli.sweeps.forecast import is_finished

if TYPE_CHECKING:
    from maquette.cli.sweeps.forecast import PlannedJob


@dataclasses.dataclass(frozen=True)
class SweepJob:
    """One job: all of its overrides, the `arguments` that set it apart, and its settings where it was just composed.

    `forecast` is what it will be, None where nobody can say; `run` the folder of its run, where an earlier launch of
    the sweep has found it; `error` why it can't be at all.
    """

    overrides: tuple[str, ...]
    arguments: tuple[str, ...]
    settings: Any = None
    forecast: "PlannedJob | None" = None
    run: str | None = None
    error: str | None = None

    @property
    def title(self) -> str:
        return " ".join(argument.lstrip("+") for argument in self.arguments)

    @property
    def is_done(self) -> bool:
        if self.forecast is None:
            return self.run is not None and is_finished(self.run)
        return self.forecast.finished


_HORIZON = ("compute=", "tokens=", "tokens_per_parameter=")


def grown_together(jobs: list[SweepJob], planned: Callable[[list[str]], SweepJob]) -> list[SweepJob]:
    """With `sweep.branches`: jobs that differ in nothing but their tokens become one, the longest, with branches.

    With `sweep.bias` the lengths of the model that has most of them are trained with schedules of their own as well.
    """
    groups: dict[tuple[str, ...], list[SweepJob]] = {}
    for job in jobs:
        branched = getattr(getattr(job.settings, "sweep", None), "branches", False) and job.forecast is not None
        rest = tuple(argument for argument in job.overrides if not argument.startswith(_HORIZON))
        groups.setdefault(rest if branched else job.overrides, []).append(job)
    trees = [group for group in groups.values() if len(group) > 1]
    if not trees:
        return jobs
    result = []
    for group in groups.values():
        group.sort(key=_tokens)
        arguments = [*group[-1].overrides]
        if len(group) > 1:
            arguments.append(f"scheduler.branches=[{','.join(str(_tokens(job)) for job in group[:-1])}]")
        result.append(planned(arguments) if len(group) > 1 else group[0])
    if trees[0][0].settings.sweep.bias:
        measured = min(trees, key=lambda group: (-len(group), sum(map(_compute, group))))
        for job in measured:
            own = [argument for argument in job.overrides if not argument.startswith("scheduler")]
            result.append(planned([*own, "scheduler=linear"]))
    return result


def _tokens(job: SweepJob) -> int:
    return job.forecast.tokens if job.forecast is not None else 0


def _compute(job: SweepJob) -> int:
    return job.forecast.compute if job.forecast is not None else 0


PAIR_SHARE = 0.1
"""The pair beside the larger job costs at most so much of the sweep: beside the largest it would double a ladder."""


def with_rate_pairs(jobs: list[SweepJob], planned: Callable[[list[str]], SweepJob]) -> list[SweepJob]:
    """With `sweep.rate_pairs`, the jobs and their pairs, for each kind of model."""
    kinds: dict[str, list[SweepJob]] = {}
    for job in jobs:
        if job.forecast is not None and getattr(getattr(job.settings, "sweep", None), "rate_pairs", False):
            kinds.setdefault(job.forecast.kind, []).append(job)
    return [*jobs, *(planned(arguments) for some in kinds.values() for arguments in _pairs(some))]


def _pairs(jobs: list[SweepJob]) -> Iterator[list[str]]:
    """The overrides of both pairs; of jobs of the same compute the one of middle size is taken."""
    total = sum(map(_compute, jobs))
    cheap = [job for job in jobs if 2 * _compute(job) <= PAIR_SHARE * total]
    ends = {id(job): job for job in (_middle(jobs, min(map(_compute, jobs))),)}
    if cheap:
        largest = _middle(cheap, max(map(_compute, cheap)))
        ends[id(largest)] = largest
    for job in ends.values():
        assert job.forecast is not None
        own = [text for text in job.overrides if not text.startswith(("optimizer.lr=", "scheduler.branches="))]
        for multiple in (0.5, 2.0):
            yield [*own, f"optimizer.lr={multiple * job.forecast.learning_rate:.6g}"]


def _middle(jobs: list[SweepJob], compute: float) -> SweepJob:
    """Of the jobs of about this compute the one of middle size."""
    alike = sorted((job for job in jobs if abs(_compute(job) / compute - 1) < 0.1), key=_size)
    return alike[len(alike) // 2]


def _size(job: SweepJob) -> int:
    return job.forecast.size if job.forecast is not None else 0
