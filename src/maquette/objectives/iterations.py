"""The batches of a policy's training: one epoch of the loader is one iteration, and begins with rollouts.

Lightning asks an epoch's iterator for its first batch when the weights are those of the iteration before, so that is
when answers are sampled. All that the order depends on is (seed, iteration, place); a checkpoint in mid-iteration holds
the rollouts too, so a run that is killed, also while it samples, goes on to the same bits.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from maquette.artifacts import ConfigError, StageError
from maquette.objectives.rollouts import PolicyBatch, Trajectories, parts


@dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1


@dataclass(frozen=True)
class Plan:
    """`rollouts` answers an iteration, read `passes` times in `minibatches` optimiser steps of `micro_batches` forward
    passes each."""

    rollouts: int
    passes: int
    minibatches: int
    micro_batches: int = 1

    def __post_init__(self) -> None:
        if self.rollouts < self.minibatches * self.micro_batches:
            raise ConfigError(
                f"{self.rollouts} rollouts can't be shared by {self.minibatches} minibatches of {self.micro_batches} "
                "micro-batches.",
                "Use more rollouts or fewer minibatches.",
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of an iteration."""
        return self.passes * self.minibatches

    @property
    def batches(self) -> int:
        """Micro-batches of an iteration."""
        return self.steps * self.micro_batches

    def groups(self) -> list[slice]:
        """The rows of each micro-batch of the first pass, in order."""
        return [
            slice(part.start + inner.start, part.start + inner.stop)
            for part in parts(self.rollouts, self.minibatches)
            for inner in parts(part.stop - part.start, self.micro_batches)
        ]


Collected = tuple[Trajectories, dict[str, float]]
"""What an iteration begins with: its trajectories and what they show."""


class PolicyIterations:
    """A loader for Lightning: each time it is iterated over, the next iteration's batches.

    `collect(iteration)` samples and scores. The first pass reads the rows in their order, in the very groups whose
    log-probabilities `collect` has taken, so at the first minibatch the ratio of policies is exactly 1; later passes
    read them shuffled.
    """

    def __init__(
        self, collect: Callable[[int], Collected], plan: Plan, *, seed: int = 0, world: World | None = None
    ) -> None:
        self.collect, self.plan, self.seed, self.world = collect, plan, seed, world or World()
        self.iteration, self.place = 0, 0
        self._held: Collected | None = None

    def __len__(self) -> int:
        return self.plan.batches

    def __iter__(self) -> Iterator[PolicyBatch]:
        if self.place >= len(self):
            self.iteration, self.place, self._held = self.iteration + 1, 0, None
        if self._held is None:
            self._held = self.collect(self.iteration)
        trajectories, metrics = self._held
        while self.place < len(self):
            self.place += 1  # before the batch is used: what is saved after its step counts it as done
            yield self._batch(trajectories, metrics, self.place - 1)

    def _batch(self, trajectories: Trajectories, metrics: dict[str, float], place: int) -> PolicyBatch:
        number, inner = divmod(place, self.plan.micro_batches)
        pass_, minibatch = divmod(number, self.plan.minibatches)
        rows = self._order(pass_)
        groups = self.plan.groups()
        first = minibatch * self.plan.micro_batches
        chosen = groups[first + inner]
        # Means over a minibatch's tokens, whatever the micro-batches it comes in: each counts by its tokens.
        whole = slice(groups[first].start, groups[first + self.plan.micro_batches - 1].stop)
        tokens = [int(trajectories.mask[rows[part]].sum()) for part in (chosen, whole)]
        weight = self.plan.micro_batches * tokens[0] / tokens[1]
        return PolicyBatch(trajectories.select(rows[chosen]), weight, place == 0, inner == 0, metrics)

    def _order(self, pass_: int) -> torch.Tensor:
        order = list(range(self.plan.rollouts))
        if pass_:
            random.Random(f"{self.seed} {self.iteration} {pass_}").shuffle(order)
        return torch.tensor(order)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"iteration": self.iteration, "place": self.place}
        if self._held is not None and self.place < len(self):
            trajectories, metrics = self._held
            state["held"] = of_all_processes({"trajectories": trajectories.state_dict(), "metrics": metrics})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iteration, self.place = state["iteration"], state["place"]
        self._held = None
        if "held" in state:
            if len(state["held"]) != self.world.size:
                raise StageError(
                    f"The checkpoint lies within an iteration of {len(state['held'])} processes; there are "
                    f"{self.world.size}.",
                    "Go on with as many processes as before.",
                )
            held = state["held"][self.world.rank]
            self._held = Trajectories(**held["trajectories"]), dict(held["metrics"])


def of_all_processes(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks: the first process writes a checkpoint for all."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
