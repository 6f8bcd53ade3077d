"""Rollouts: the completions that a policy samples and learns from, what they are worth, and the batches of them.

    Environment             prompts, and the reward of their completions
    collect_rollouts        completions of the policy as it is -> tensors, with what they show
    RolloutLoader           an iteration's batches: several passes of minibatches

All that is drawn is a pure function of (policy's weights, seed, iteration, place), and a checkpoint in mid-iteration
holds the rollouts too, so a run that is killed, also while it samples, resumes to the same bits. Place s of a `(B, S)`
tensor stands for the token that the logits of place s predict; `mask` is true for the tokens of the completion.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from maquette.artifacts import ConfigError, StageError
from maquette.data.conversations import Prompt, PromptSource
from maquette.data.process_group import ProcessGroup, of_all_processes
from maquette.model import LanguageModel
from maquette.objectives.completions import (
    Completion,
    RewardFunction,
    checked_scores,
    padded_rows,
    sample_completions,
)
from maquette.objectives.config import RolloutConfig
from maquette.objectives.losses import kl_estimate, masked_sum, overlong_penalty

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_ROW_SEEDS = 1 << 20
"""Rows of one iteration; seeds of completions are counted on from iteration to iteration."""

_FIRST_CALIBRATION_PROMPT = 1 << 40
"""Prompts that scores are standardised on: far behind those of any iteration."""

_FIRST_RESAMPLED_PROMPT = 1 << 41
"""Prompts in place of those whose completions are all alike."""


# Sampling and scoring -------------------------------------------------------------------------------------------------


@dataclass
class Environment:
    """Prompts and a reward, as one process sees them.

    `score_scale`: mean and standard deviation that scores are standardised by; None until `calibrate` has taken them.
    """

    config: RolloutConfig
    tokenizer: "Tokenizer"
    prompts: PromptSource
    reward: RewardFunction
    seed: int = 0
    group: ProcessGroup = dataclasses.field(default_factory=ProcessGroup)
    score_scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.config.normalize_scores:
            self.score_scale = (0.0, 1.0)

    def completions(self, model: LanguageModel, iteration: int, count: int) -> tuple[list[Completion], Tensor]:
        """This process's `count` of an iteration, and their scores `(count,)`. Groups of equal scores teach nothing:
        other prompts take their place, `resample_groups` times at most (Yu et al. 2025, section 3.2). Raises
        `StageError` for a prompt that fills the context."""
        mine, size = self.group.rank * count, self.config.completions_per_prompt
        first, number = iteration * count * self.group.size + mine, iteration * _ROW_SEEDS + mine
        prompts = [self.prompts[(first + row) // size] for row in range(count)]
        completions = self._sample(model, prompts, range(number, number + count))
        scores = self.scores(completions)
        for attempt in range(self.config.resample_groups):
            rows = of_equal(self.standardized(scores, completions), size).nonzero().flatten().tolist()
            if not rows:
                break
            start = (iteration * self.config.resample_groups + attempt) * _ROW_SEEDS + mine
            prompts = [self.prompts[_FIRST_RESAMPLED_PROMPT + (start + row) // size] for row in rows]
            others = self._sample(model, prompts, [_FIRST_RESAMPLED_PROMPT + start + row for row in rows])
            scores[rows] = self.scores(others)
            for row, other in zip(rows, others, strict=True):
                completions[row] = other
        return completions, scores

    def calibrate(self, reference: LanguageModel) -> tuple[float, float]:
        """Takes the scale of the scores from completions of the reference: their mean and standard deviation."""
        count = self.config.normalize_scores
        prompts = [self.prompts[_FIRST_CALIBRATION_PROMPT + number] for number in range(count)]
        numbers = range(_FIRST_CALIBRATION_PROMPT, _FIRST_CALIBRATION_PROMPT + count)
        scores = self.scores(self._sample(reference, prompts, numbers)).double()
        deviation = float(scores.std()) if count > 1 else 0.0
        self.score_scale = float(scores.mean()), deviation if deviation > 1e-8 else 1.0
        return self.score_scale

    def scores(self, completions: Sequence[Completion]) -> Tensor:
        """The reward's own numbers, `(N,)`. Raises `StageError` where one is not finite."""
        return torch.tensor(checked_scores(self.reward, completions), dtype=torch.float64)

    def standardized(self, scores: Tensor, completions: Sequence[Completion]) -> Tensor:
        """What is optimised, `(N,)`: scores on their scale, less the penalties for a completion without an end and for
        one that is nearly too long."""
        assert self.score_scale is not None
        mean, deviation = self.score_scale
        config, endless = self.config, torch.tensor([not one.ended for one in completions])
        standardized = (scores - mean) / deviation - config.missing_eos_penalty * endless
        if config.overlong_buffer:
            lengths = torch.tensor([len(one.answer_ids) for one in completions])
            standardized -= overlong_penalty(lengths, config.max_completion_length, config.overlong_buffer)
        return standardized.float()

    def _sample(self, model: LanguageModel, prompts: Sequence[Prompt], numbers: Sequence[int]) -> list[Completion]:
        config, context = self.config, model.config.max_position_embeddings
        longest = max(len(prompt.ids) for prompt in prompts)
        if longest >= context:
            raise StageError(
                f"A prompt has {longest:,} tokens; the policy's context holds {context:,} with the answer.",
                "Leave such prompts out, or train a model with a longer context.",
            )
        return sample_completions(
            model, self.tokenizer, prompts, max_tokens=config.max_completion_length, temperature=config.temperature,
            seed=self.seed, numbers=numbers,
        )  # fmt: skip


def of_equal(scores: Tensor, size: int) -> Tensor:
    """`(N,)` bool: whether all of a row's group, `size` consecutive ones of `scores (N,)`, are alike."""
    groups = scores.view(-1, size)
    return (groups == groups[:, :1]).all(dim=1).repeat_interleave(size)


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
    for rows in schedule.groups():  # as the first pass will train on them
        part = rollouts.select(rows)
        width = part.mask.size(1)
        log_probs, values, spread, theirs = policy.look_back(part)
        rollouts.log_probs[rows, :width], entropy[rows, :width], reference[rows, :width] = log_probs, spread, theirs
        if values is not None:
            rollouts.values[rows, :width] = values
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
    return rollouts, metrics | policy.compute_advantages(rollouts, standardized, ended)


# Batches --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RolloutSchedule:
    """`rollout_batch_size` completions an iteration, read `ppo_epochs` times in `minibatches` optimiser steps of
    `micro_batches` forward passes each. `unit` neighbours stay together."""

    rollout_batch_size: int
    ppo_epochs: int
    minibatches: int
    micro_batches: int = 1
    unit: int = 1

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

    def groups(self) -> list[slice]:
        """The rows of each micro-batch of the first pass, in order."""
        return [
            slice((part.start + inner.start) * self.unit, (part.start + inner.stop) * self.unit)
            for part in _parts(self.rollout_batch_size // self.unit, self.minibatches)
            for inner in _parts(part.stop - part.start, self.micro_batches)
        ]


def _parts(size: int, number: int) -> Iterator[slice]:
    """Cuts `size` rows into `number` consecutive parts that differ by at most one row."""
    ends = [size * place // number for place in range(number + 1)]
    return (slice(start, end) for start, end in itertools.pairwise(ends))


@dataclass
class RolloutBatch:
    """A micro-batch: some rollouts, what its means weigh in those of its minibatch, over tokens (`weight`) and over
    completions (`share`), and what the iteration showed (the same in all of its batches)."""

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
        rows, groups = self._order(pass_), schedule.groups()
        first = minibatch * schedule.micro_batches
        chosen = groups[first + inner]
        # Means over a minibatch's tokens, whatever the micro-batches it comes in: each counts by its tokens.
        whole = slice(groups[first].start, groups[first + schedule.micro_batches - 1].stop)
        parts = schedule.micro_batches
        tokens = [int(rollouts.mask[rows[part]].sum()) for part in (chosen, whole)]
        share = parts * (chosen.stop - chosen.start) / (whole.stop - whole.start)
        weight = parts * tokens[0] / max(tokens[1], 1)
        return RolloutBatch(rollouts.select(rows[chosen]), weight, share, place == 0, inner == 0, metrics)

    def _order(self, pass_: int) -> Tensor:
        unit = self.schedule.unit
        order = list(range(self.schedule.rollout_batch_size // unit))
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
            state["held"] = of_all_processes({"trajectories": rollouts.state_dict(), "metrics": metrics})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from a state, at the beginning of a step with any number of micro-batches. Raises `StageError` where
        it belongs to other processes."""
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
            if len(state["held"]) != self.group.size:
                raise StageError(
                    f"The checkpoint lies within an iteration of {len(state['held'])} processes; there are "
                    f"{self.group.size}.",
                    "Go on with as many processes as before.",
                )
            held = state["held"][self.group.rank]
            self._held = Rollouts(**held["trajectories"]), dict(held["metrics"])
