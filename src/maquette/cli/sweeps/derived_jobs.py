"""Jobs that follow from the other jobs of a sweep: runs that share a trunk, and runs that measure the recipe.

- `sweep.branches`: jobs that differ in nothing but their tokens become one tree.
- `sweep.rate_pairs`: beside some jobs, two at half and twice the learning rate, from which `maquette fit` tells what
  the recipe's rate costs along the family (scaling/fits/recipe_cost.py).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maquette.cli.sweeps.jobs import SweepJob

_HORIZON = ("compute=", "tokens=", "tokens_per_parameter=")


def grown_together(jobs: list["SweepJob"], planned: Callable[[list[str]], "SweepJob"]) -> list["SweepJob"]:
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


def _tokens(job: "SweepJob") -> int:
    return job.forecast.tokens if job.forecast is not None else 0


def _compute(job: "SweepJob") -> int:
    return job.forecast.compute if job.forecast is not None else 0


PAIR_SHARE = 0.1
"""The pair beside the larger job costs at most so much of the sweep: beside the largest it would double a ladder."""


def with_rate_pairs(jobs: list["SweepJob"], planned: Callable[[list[str]], "SweepJob"]) -> list["SweepJob"]:
    """With `sweep.rate_pairs`, the jobs and their pairs, for each kind of model."""
    kinds: dict[str, list[SweepJob]] = {}
    for job in jobs:
        if job.forecast is not None and getattr(getattr(job.settings, "sweep", None), "rate_pairs", False):
            kinds.setdefault(job.forecast.kind, []).append(job)
    return [*jobs, *(planned(arguments) for some in kinds.values() for arguments in _pairs(some))]


def _pairs(jobs: list["SweepJob"]) -> Iterator[list[str]]:
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


def _middle(jobs: list["SweepJob"], compute: float) -> "SweepJob":
    """Of the jobs of about this compute the one of middle size."""
    alike = sorted((job for job in jobs if abs(_compute(job) / compute - 1) < 0.1), key=_size)
    return alike[len(alike) // 2]


def _size(job: "SweepJob") -> int:
    return job.forecast.size if job.forecast is not None else 0
