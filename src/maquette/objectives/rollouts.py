"""Rollouts: the completions that a policy samples and learns from, what they are worth, and the batches of them.

    collect_rollouts        completions of the policy as it is (environment.py) -> tensors, with what they show
    RolloutLoader           an iteration's batches: several passes of minibatches

All that is drawn is a pure function of (policy's weights, seed, iteration, place), and a checkpoint in mid-iteration
holds the rollouts too, so a run that is killed, also while it samples, resumes to the same bits. Several processes
share out what costs time (sampling, scoring, forward passes) and then know all of it: whatever is taken over a batch,
such as the mean that advantages are whitened by, is taken over the whole one, and the number of processes changes
nothing but the order of sums. Place s of a `(B, S)` tensor stands for the token that the logits of place s predict;
`mask` is true for the tokens of the completion.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.artifacts import ConfigError, StageError
from maquette.data.process_group import ProcessGroup, sum_of_all_processes
from maquette.model import LanguageModel
from maquette.objectives.completions import (
    Completion,
    drawn_log_probs,
    padded_rows,
)
from maquette.objectives.environment import Environment, of_equal, parts_of
from maquette.objectives.losses import kl_estimate, masked_mean, masked_sum, truncated_importance_weights


@dataclass
class Rollouts:
    """Completions as tensors: `tokens (N, T)`; everything else `(N, S)` with S = T - 1, zero outside `mask`.

    `lengths (N,)`: tokens of each row, prompt and completion. What was so before the first step of the iteration:
    `log_probs` of the policy and of the reference, `values`, and from them `advantages` and `returns`.
    """

    tokens: Tensor
    lengths: Tensor
    mask: Tensor
    log_probs: Tensor
    reference_log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    @classmethod
    def of(cls, completions: Sequence[Completion], device: torch.device | str = "cpu") -> "Rollouts":
        """Log-probabilities, values and the rest still zero."""
        tokens, lengths, mask = padded_rows(completions, device)
        return cls(tokens, lengths, mask, *(torch.zeros(mask.shape, device=mask.device) for _ in range(5)))

    @classmethod
    def joined(cls, parts: Sequence["Rollouts"]) -> "Rollouts":
        """The rows of all, padded to the longest."""
        longest = max(part.tokens.size(1) for part in parts)

        def padded(value: Tensor, part: "Rollouts") -> Tensor:
            return value if value.dim() == 1 else F.pad(value, (0, longest - part.tokens.size(1)))

        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: torch.cat([padded(getattr(part, name), part) for part in parts]) for name in names})

    def select(self, rows: Tensor | slice) -> "Rollouts":
        """Some rows, cut to the longest of them."""
        longest = int(self.lengths[rows].max())
        widths = {"tokens": longest, "lengths": None}
        cut = {name: value[rows] for name, value in vars(self).items()}
        return Rollouts(**{
            name: value if name == "lengths" else value[:, : widths.get(name, longest - 1)]
            for name, value in cut.items()
        })  # fmt: skip

    def keep(self, rows: Tensor) -> None:
        """Leaves nothing in the mask of the others; `rows (N,)` bool."""
        for name, value in vars(self).items():
            if name not in ("tokens", "lengths"):
                setattr(self, name, torch.where(rows[:, None], value, torch.zeros_like(value)))

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Rollouts":
        return Rollouts(**{name: value.to(device, non_blocking=non_blocking) for name, value in vars(self).items()})

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in vars(self).items()}


class SampledPolicy(Protocol):
    """What is asked of a policy about its rollouts, without gradients: `(B, S)` each, zero outside the mask."""

    model: LanguageModel

    @property
    def kl_coefficient(self) -> float:
        """What a nat from the reference costs, in standardised scores."""
        ...

    def look_back(self, rollouts: Rollouts) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Log-probabilities, values and entropies of its tokens, and log-probabilities under the reference."""
        ...

    def compute_advantages(self, rollouts: Rollouts, scores: Tensor, ended: Tensor) -> dict[str, float]:
        """Fills in advantages and returns, by the standardised `scores (N,)` of completions that have `ended (N,)` or
        were cut off; returns what is worth showing."""
        ...


Collected = tuple[Rollouts, dict[str, float]]
"""What an iteration begins with: its rollouts and what they show."""


def collect_rollouts(
    policy: SampledPolicy,
    environment: Environment,
    schedule: "RolloutSchedule",
    completions: Sequence[Completion],
    scores: Tensor,
) -> Collected:
    """The policy's completions as tensors, with what they were worth by their `scores (N,)`, and by TRL's names what
    they show.

    Divergence is shown as the k1 estimate whatever the reward counts, so that runs can be compared.
    """
    device, kl_coefficient = policy.model.head_weight.device, policy.kl_coefficient
    standardized = environment.standardized(scores, completions).to(device)
    rollouts = Rollouts.of(completions, device)
    mask = rollouts.mask
    entropy, reference = torch.zeros_like(rollouts.log_probs), rollouts.reference_log_probs
    for rows in schedule.groups(environment.group.rank):  # as the first pass will train on them
        part = rollouts.select(rows)
        width = part.mask.size(1)
        log_probs, values, spread, theirs = policy.look_back(part)
        rollouts.log_probs[rows, :width], entropy[rows, :width], reference[rows, :width] = log_probs, spread, theirs
        if values is not None:
            rollouts.values[rows, :width] = values
    if environment.group.size > 1:  # each has filled in its own rows, the others' are zero
        whole = sum_of_all_processes(torch.stack([rollouts.log_probs, entropy, reference, rollouts.values]))
        rollouts.log_probs, entropy, reference, rollouts.values = whole.unbind()
        rollouts.reference_log_probs = reference
    kl = masked_sum(kl_estimate(rollouts.log_probs, reference), mask, dim=1)
    metrics = {
        "objective/kl": float(kl.mean()),
        "objective/kl_coefficient": kl_coefficient,
        "objective/scores": float(scores.mean()),
        "objective/scores_std": float(scores.std()) if len(scores) > 1 else 0.0,
        "objective/non_score_reward": float(-kl_coefficient * kl.mean()),
        "objective/rlhf_reward": float((standardized - kl_coefficient * kl).mean()),
        "objective/entropy": float(masked_sum(entropy, mask, dim=1).mean()),
        "completions/mean_length": float(mask.sum(dim=1).float().mean()),
        "completions/eos_rate": sum(one.ended for one in completions) / len(completions),
    }
    if (size := environment.config.completions_per_prompt) > 1:
        metrics["frac_reward_zero_std"] = float(of_equal(standardized, size).float().mean())
    ended = torch.tensor([one.ended for one in completions], device=device)
    metrics |= policy.compute_advantages(rollouts, standardized, ended)
    if (drawn := drawn_log_probs(completions, mask)) is not None:
        ratio = getattr(environment.config, "ratio", "token")
        weights = truncated_importance_weights(rollouts.log_probs, drawn, mask, ratio=ratio)
        rollouts.advantages = rollouts.advantages * weights
        metrics |= {
            "sampling/importance_sampling_ratio/mean": float(masked_mean(weights, mask)),
            "sampling/sampling_logp_difference/mean": float(masked_mean((rollouts.log_probs - drawn).abs(), mask)),
        }
    return rollouts, metrics


# Batches --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RolloutSchedule:
    """`rollout_batch_size` completions an iteration and process, read `ppo_epochs` times in `minibatches` optimiser
    steps of `micro_batches` forward passes each. `unit` neighbours stay together."""

    rollout_batch_size: int
    ppo_epochs: int
    minibatches: int
    micro_batches: int = 1
    unit: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        if self.rollout_batch_size < self.unit * self.minibatches * self.micro_batches:
            raise ConfigError(
                f"{self.rollout_batch_size} rollouts can't be shared by {self.minibatches} minibatches of "
                f"{self.micro_batches} micro-batches.",
                "Use more rollouts or fewer minibatches.",
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of an iteration."""
        return self.ppo_epochs * self.minibatches

    @property
    def batches(self) -> int:
        """Micro-batches of an iteration."""
        return self.steps * self.micro_batches

    @property
    def units(self) -> int:
        """Of an iteration, over all processes."""
        return self.rollout_batch_size * self.processes // self.unit

    def steps_rows(self) -> list[slice]:
        """The rows of each optimiser step of a pass, over all processes: they do not depend on how many there are."""
        return [self._rows(part) for part in parts_of(self.units, self.minibatches)]

    def groups(self, rank: int = 0) -> list[slice]:
        """The rows of each micro-batch of the first pass of one process, in order."""
        groups = []
        for step in parts_of(self.units, self.minibatches):
            share = list(parts_of(step.stop - step.start, self.processes))[rank]
            for part in parts_of(share.stop - share.start, self.micro_batches):
                start = step.start + share.start
                groups.append(self._rows(slice(start + part.start, start + part.stop)))
        return groups

    def _rows(self, units: slice) -> slice:
        return slice(units.start * self.unit, units.stop * self.unit)


@dataclass
class RolloutBatch:
    """A micro-batch: some rollouts, what its means weigh over tokens (`weight`) and over completions (`share`), so that
    the mean over the minibatch's micro-batches in all processes is that of the minibatch, and what the iteration showed
    (the same in all of its batches)."""

    rollouts: Rollouts
    weight: float
    share: float
    opens_iteration: bool
    opens_minibatch: bool
    metrics: dict[str, float]

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "RolloutBatch":
        return dataclasses.replace(self, rollouts=self.rollouts.to(device, non_blocking=non_blocking))


class RolloutLoader:
    """A loader for Lightning whose epochs are iterations: it is asked for an epoch's first batch when the weights are
    those of the iteration before, so that is when `collect(iteration)` samples and scores.

    The first pass reads the rows in their order, in the very groups whose log-probabilities `collect` has taken, so at
    the first minibatch the ratio of policies is exactly 1; later passes read them shuffled.
    """

    def __init__(
        self,
        collect: Callable[[int], Collected],
        schedule: RolloutSchedule,
        *,
        seed: int = 0,
        group: ProcessGroup | None = None,
    ) -> None:
        self.collect, self.schedule, self.seed, self.group = collect, schedule, seed, group or ProcessGroup()
        self.iteration, self.place = 0, 0
        self._held: Collected | None = None

    def __len__(self) -> int:
        return self.schedule.batches

    def __iter__(self) -> Iterator[RolloutBatch]:
        if self.place >= len(self):
            self.iteration, self.place, self._held = self.iteration + 1, 0, None
        if self._held is None:
            self._held = self.collect(self.iteration)
        rollouts, metrics = self._held
        while self.place < len(self):
            self.place += 1  # before the batch is used: what is saved after its step counts it as done
            yield self._batch(rollouts, metrics, self.place - 1)

    def _batch(self, rollouts: Rollouts, metrics: dict[str, float], place: int) -> RolloutBatch:
        schedule = self.schedule
        number, inner = divmod(place, schedule.micro_batches)
        pass_, minibatch = divmod(number, schedule.minibatches)
        rows, whole = self._order(pass_), schedule.steps_rows()[minibatch]
        chosen = schedule.groups(self.group.rank)[minibatch * schedule.micro_batches + inner]
        # Means over a minibatch's tokens, whatever the parts it comes in: each counts by its tokens.
        parts = schedule.micro_batches * schedule.processes
        tokens = [int(rollouts.mask[rows[part]].sum()) for part in (chosen, whole)]
        share = parts * (chosen.stop - chosen.start) / (whole.stop - whole.start)
        weight = parts * tokens[0] / max(tokens[1], 1)
        return RolloutBatch(rollouts.select(rows[chosen]), weight, share, place == 0, inner == 0, metrics)

    def _order(self, pass_: int) -> Tensor:
        unit = self.schedule.unit
        order = list(range(self.schedule.units))
        if pass_:
            random.Random(f"{self.seed} {self.iteration} {pass_}").shuffle(order)
        return (torch.tensor(order)[:, None] * unit + torch.arange(unit)).flatten()

    def state_dict(self) -> dict[str, Any]:
        step, part = divmod(self.place, self.schedule.micro_batches)
        state: dict[str, Any] = {
            "iteration": self.iteration, "step": step, "part": part, "micro_batches": self.schedule.micro_batches
        }  # fmt: skip
        if self._held is not None and self.place < len(self):
            rollouts, metrics = self._held
            state["held"] = [{"trajectories": rollouts.state_dict(), "metrics": metrics}]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from a state, at the beginning of a step with any number of processes and micro-batches. Raises
        `StageError` where it lies within a step of others."""
        self.iteration, each = state["iteration"], self.schedule.micro_batches
        if "place" in state:  # of earlier versions: counts micro-batches
            self.place = state["place"]
        elif state["part"] and state["micro_batches"] != each:
            raise StageError(
                f"The checkpoint lies within a step of {state['micro_batches']} micro-batches; there are {each}.",
                f"Set trainer.accumulate_grad_batches={state['micro_batches']}.",
            )
        else:
            self.place = state["step"] * each + state["part"]
        self._held = None
        if "held" in state:
            # In earlier versions each process had a part of its own.
            parts = [Rollouts(**held["trajectories"]) for held in state["held"]]
            self._held = Rollouts.joined(parts), dict(state["held"][0]["metrics"])
