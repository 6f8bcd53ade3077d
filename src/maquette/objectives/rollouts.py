"""Rollouts: answers of the policy as it is now, and the tensors that an iteration of PPO trains on.

Prompt and answer stand in one row, padded on the right, so a token's place is the same as in every other objective;
the prompt's and the answer's ids are joined, never tokenised anew. Place s of a `(B, S)` tensor stands for the token
that the logits of place s predict; `mask` is true for the tokens of the answer, the end of turn among them.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maquette.data.prompts import Prompt
from maquette.model import LanguageModel, Sampling
from maquette.model.generation import generate, row_seed
from maquette.objectives.rewards import Completion

if TYPE_CHECKING:
    from maquette.text import Tokenizer

ANSWER_SEEDS = 1 << 20
"""Rows of one iteration; seeds of answers are counted on from iteration to iteration."""

_PADDING = 0
"""Any id does: padding stands after the text, so nothing sees it, and the mask leaves it out of every sum."""


@dataclasses.dataclass
class Trajectories:
    """Answers as tensors: `tokens (N, T)`; everything else `(N, S)` with S = T - 1, zero outside `mask`.

    `lengths (N,)`: tokens of each row, prompt and answer. What was so before the first step of the iteration:
    `log_probs` of the policy, `values`, and from them `advantages` and `returns`.
    """

    tokens: Tensor
    lengths: Tensor
    mask: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return self.tokens.size(0)

    def select(self, rows: Tensor | slice) -> "Trajectories":
        """Some rows, cut to the longest of them."""
        longest = int(self.lengths[rows].max())
        cut = {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}
        return Trajectories(
            **{
                name: value if name == "lengths" else value[:, : longest if name == "tokens" else longest - 1]
                for name, value in cut.items()
            }
        )

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Trajectories":
        return Trajectories(
            **{
                field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
                for field in dataclasses.fields(self)
            }
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name).cpu() for field in dataclasses.fields(self)}


@dataclasses.dataclass
class PolicyBatch:
    """A micro-batch: some trajectories, the weight of its means in those of its minibatch, and what the iteration
    showed (the same in all of its batches)."""

    trajectories: Trajectories
    weight: float
    opens_iteration: bool
    opens_minibatch: bool
    metrics: dict[str, float]

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "PolicyBatch":
        return dataclasses.replace(self, trajectories=self.trajectories.to(device, non_blocking=non_blocking))


def sample_answers(
    model: LanguageModel,
    tokenizer: "Tokenizer",
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
) -> list[Completion]:
    """One answer to each prompt, `batch` at a time: at most `max_tokens` tokens, or until the context is full.

    Answer i draws its random numbers from (`seed`, `first` + i) alone, so it is the same in any batch. Raises
    `ConfigError` for a prompt that leaves no room in the context.
    """
    ends = tokenizer.stop_ids
    answers: list[Completion] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        found = generate(
            model,
            [prompt.ids for prompt in part],
            sampling=Sampling(temperature=temperature),
            max_tokens=max_tokens,
            stop_ids=tuple(ends),
            seeds=[row_seed(seed, first + start + place) for place in range(len(part))],
        )
        for prompt, one in zip(part, found, strict=True):
            # The end is looked for in the answer alone: a prompt has ends of its own turns.
            ended = one.finish_reason == "stop_id"
            text = tokenizer.decode(one.tokens[:-1] if ended else one.tokens, skip_special=True)
            answers.append(Completion(prompt.messages, text, prompt.ids, one.tokens, ended, prompt.facts))
    return answers


def trajectories_of(answers: Sequence[Completion], device: torch.device | str = "cpu") -> Trajectories:
    """Rows of prompt and answer, padded on the right; log-probabilities, values and the rest still zero."""
    lengths = [len(answer.prompt_ids) + len(answer.answer_ids) for answer in answers]
    tokens = torch.full((len(answers), max(lengths)), _PADDING, dtype=torch.int64)
    mask = torch.zeros(len(answers), max(lengths) - 1, dtype=torch.bool)
    for row, (answer, length) in enumerate(zip(answers, lengths, strict=True)):
        tokens[row, :length] = torch.tensor([*answer.prompt_ids, *answer.answer_ids])
        mask[row, len(answer.prompt_ids) - 1 : length - 1] = True
    empty = [torch.zeros(mask.shape) for _ in range(4)]
    return Trajectories(tokens, torch.tensor(lengths), mask, *empty).to(torch.device(device))


def answer_statistics(
    model: LanguageModel, hidden: Tensor, trajectories: Trajectories, *, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each answer token under the distribution it was drawn from, `(B, S)`, and that distribution's
    entropy where it is asked for. Zero outside the mask.

    `hidden (B, T, D)` of the core. Logits are made for answer tokens alone: prompts are often longer than answers.
    """
    mask = trajectories.mask
    logits = model.logits(hidden[:, :-1][mask]).float()  # (answer tokens, V)
    if temperature != 1.0:
        logits = logits / temperature
    log_probs = logits.log_softmax(dim=-1)
    chosen = log_probs.gather(1, trajectories.tokens[:, 1:][mask][:, None])[:, 0]
    spread = -(log_probs.exp() * log_probs).sum(dim=-1) if entropy else None
    return scattered(chosen, mask), None if spread is None else scattered(spread, mask)


def scattered(values: Tensor, mask: Tensor) -> Tensor:
    """`values (M,)` at the M true places of `mask (B, S)`, zero elsewhere; gradients go through."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def parts(size: int, number: int) -> Iterator[slice]:
    """Cuts `size` rows into `number` consecutive parts that differ by at most one row."""
    ends = [size * place // number for place in range(number + 1)]
    return (slice(start, end) for start, end in itertools.pairwise(ends))
