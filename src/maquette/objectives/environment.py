"""What a policy lives in: prompts, and the reward of its completions of them.

Of several processes each samples and scores its part, and all get the whole. What is drawn is a pure function of
(policy's weights, seed, iteration, place).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maquette.artifacts import MaquetteError, StageError
from maquette.data.conversations import Prompt, PromptSource
from maquette.data.process_group import ProcessGroup, of_all_processes
from maquette.model import LanguageModel
from maquette.objectives.completions import Completion, RewardFunction, checked_scores, sample_completions
from maquette.objectives.config import RolloutConfig
from maquette.objectives.losses import overlong_penalty
from maquette.objectives.vllm_rollouts import VllmSampler

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_ROW_SEEDS = 1 << 20
"""Rows of one iteration; seeds of completions are counted on from iteration to iteration."""

_FIRST_CALIBRATION_PROMPT = 1 << 40
"""Prompts that scores are standardised on: far behind those of any iteration."""

_FIRST_RESAMPLED_PROMPT = 1 << 41
"""Prompts in place of those whose completions are all alike."""


@dataclass
class Environment:
    """Prompts and a reward. Of several processes each samples and scores its part, and all get the whole.

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
        self._vllm = VllmSampler() if self.config.rollout_backend == "vllm" else None
        if not self.config.normalize_scores:
            self.score_scale = (0.0, 1.0)

    def completions(self, model: LanguageModel, iteration: int, count: int) -> tuple[list[Completion], Tensor]:
        """Those of an iteration, `count` of each process, and their scores. Groups of equal scores teach nothing: other
        prompts take their place, `resample_groups` times at most (Yu et al. 2025, section 3.2). Raises `StageError` for
        a prompt that fills the context, in all processes."""
        return self._of_all(lambda: self._own_completions(model, iteration, count))

    def _own_completions(self, model: LanguageModel, iteration: int, count: int) -> tuple[list[Completion], Tensor]:
        if self._vllm is not None:
            self._vllm.push(model, self.tokenizer)
        mine, size = self.group.rank * count, self.config.completions_per_prompt
        first, number = iteration * count * self.group.size + mine, iteration * _ROW_SEEDS + mine
        prompts = [self.prompts[(first + row) // size] for row in range(count)]
        sampler = self._vllm or sample_completions
        completions = self._sample(model, prompts, range(number, number + count), sampler)
        scores = self.scores(completions)
        for attempt in range(self.config.resample_groups):
            rows = of_equal(self.standardized(scores, completions), size).nonzero().flatten().tolist()
            if not rows:
                break
            start = (iteration * self.config.resample_groups + attempt) * _ROW_SEEDS + mine
            prompts = [self.prompts[_FIRST_RESAMPLED_PROMPT + (start + row) // size] for row in rows]
            others = self._sample(model, prompts, [_FIRST_RESAMPLED_PROMPT + start + row for row in rows], sampler)
            scores[rows] = self.scores(others)
            for row, other in zip(rows, others, strict=True):
                completions[row] = other
        return completions, scores

    def calibrate(self, reference: LanguageModel) -> tuple[float, float]:
        """Takes the scale of the scores from completions of the reference: their mean and standard deviation."""
        count = self.config.normalize_scores
        mine = list(parts_of(count, self.group.size))[self.group.rank]
        numbers = range(_FIRST_CALIBRATION_PROMPT + mine.start, _FIRST_CALIBRATION_PROMPT + mine.stop)

        def own() -> tuple[list[Completion], Tensor]:
            completions = self._sample(reference, [self.prompts[number] for number in numbers], numbers)
            return completions, self.scores(completions)

        _, scores = self._of_all(own)
        deviation = float(scores.std()) if count > 1 else 0.0
        self.score_scale = float(scores.mean()), deviation if deviation > 1e-8 else 1.0
        return self.score_scale

    def _of_all(self, own: Callable[[], tuple[list[Completion], Tensor]]) -> tuple[list[Completion], Tensor]:
        """The parts of all processes in their order. What one of them raises for people all raise: none waits."""
        if self.group.size == 1:
            return own()
        try:
            mine: tuple[list[Completion], Tensor] | MaquetteError = own()
        except MaquetteError as error:
            mine = error
        parts: list[tuple[list[Completion], Tensor]] = []
        for part in of_all_processes(mine):
            if isinstance(part, MaquetteError):
                raise part
            parts.append(part)
        return list(itertools.chain(*(part[0] for part in parts))), torch.cat([part[1] for part in parts])

    def scores(self, completions: Sequence[Completion]) -> Tensor:
        """The reward's own numbers, `(N,)`. Raises `StageError` where one is not finite."""
        scores = checked_scores(self.reward, completions) if completions else []
        return torch.tensor(scores, dtype=torch.float64)

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

    def _sample(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        numbers: Sequence[int],
        sampler: Callable[..., list[Completion]] = sample_completions,
    ) -> list[Completion]:
        config, context = self.config, model.config.max_position_embeddings
        longest = max((len(prompt.ids) for prompt in prompts), default=0)
        if longest >= context:
            raise StageError(
                f"A prompt has {longest:,} tokens; the policy's context holds {context:,} with the answer.",
                "Leave such prompts out, or train a model with a longer context.",
            )
        return sampler(
            model, self.tokenizer, prompts, max_tokens=config.max_completion_length, temperature=config.temperature,
            seed=self.seed, numbers=numbers,
        )  # fmt: skip


def of_equal(scores: Tensor, size: int) -> Tensor:
    """`(N,)` bool: whether all of a row's group, `size` consecutive ones of `scores (N,)`, are alike."""
    groups = scores.view(-1, size)
    return (groups == groups[:, :1]).all(dim=1).repeat_interleave(size)


def parts_of(size: int, number: int) -> Iterator[slice]:
    """Cuts `size` rows into `number` consecutive parts that differ by at most one row."""
    ends = [size * place // number for place in range(number + 1)]
    return (slice(start, end) for start, end in itertools.pairwise(ends))
