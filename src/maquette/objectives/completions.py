"""Completions: what a model writes after a prompt, what it is worth, how likely a model finds it, and how far one model
is from another on it.

Shared by every objective after pretraining, and by those who measure what came of them. Prompt and completion stand in
one row, padded on the right, so a token's place is the same everywhere; the prompt's and the completion's ids are
joined, never tokenised again. `mask (B, S)` with S = T - 1 is true for the tokens of the completion, its end of turn
among them.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maquette.artifacts import StageError
from maquette.data.conversations import Prompt
from maquette.data.example_batches import ConversationBatch
from maquette.model import LanguageModel, Sampling, likelihoods
from maquette.model.generation import document_prompt, generate, row_seed
from maquette.text.chat import Message

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_PADDING = 0
"""Any id does: padding stands after the text, so nothing sees it, and the mask leaves it out of every sum."""

_SHOWN_TOKENS = 48
_SHOWN_SAMPLING = Sampling(temperature=0.8, top_p=0.95)


@dataclasses.dataclass(frozen=True)
class Completion:
    """An answer to be scored.

    `answer` is its text; `answer_ids` all that was generated, with the closing end of turn where `ended`. `facts` is
    what the prompt's source knows of it. `log_probs`: of the tokens when they were drawn, where another program drew
    them (vllm_rollouts.py).
    """

    messages: tuple[Message, ...]
    answer: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    ended: bool
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    log_probs: tuple[float, ...] = ()


class RewardFunction(Protocol):
    """One number for each completion, the higher the better. Whether a reward model, a task with a gold reward, a
    person or any callable stands behind it, a policy never knows."""

    def __call__(self, completions: Sequence[Completion]) -> Sequence[float]: ...


def checked_scores(reward: RewardFunction, completions: Sequence[Completion]) -> list[float]:
    """The scores of `completions`. Raises `StageError` where there are not as many, or one is not a finite number."""
    scores = [float(score) for score in reward(completions)]
    if len(scores) != len(completions):
        raise StageError(f"The reward gave {len(scores)} scores for {len(completions)} answers.")
    for score, completion in zip(scores, completions, strict=True):
        if not math.isfinite(score):
            prompt = completion.messages[-1]["content"] if completion.messages else ""
            raise StageError(
                f"The reward of an answer is {score}: prompt {prompt!r:.80}, answer {completion.answer!r:.80}.",
                "A reward has to give a finite number for every answer, an empty one too.",
            )
    return scores


# Writing --------------------------------------------------------------------------------------------------------------


def sample_completions(
    model: LanguageModel,
    tokenizer: "Tokenizer",
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    first: int = 0,
    numbers: Sequence[int] | None = None,
    batch: int = 256,
) -> list[Completion]:
    """One completion of each prompt, of at most `max_tokens` tokens or until the context is full; `batch` at once.

    A completion draws its random numbers from (`seed`, its number) alone, so it is the same in any batch; `numbers` are
    by default those from `first` on. Raises `ConfigError` for a prompt that leaves no room in the context.
    """
    numbers = range(first, first + len(prompts)) if numbers is None else numbers
    generations = generate(
        model,
        [prompt.ids for prompt in prompts],
        sampling=Sampling(temperature=temperature),
        max_tokens=max_tokens,
        stop_ids=tuple(tokenizer.stop_ids),
        seeds=[row_seed(seed, number) for number in numbers],
        batch=batch,
    )
    completions: list[Completion] = []
    for prompt, one in zip(prompts, generations, strict=True):
        # The end is looked for in the completion alone: a prompt has ends of its own turns.
        ended = one.finish_reason == "stop_id"
        text = tokenizer.decode(one.tokens[:-1] if ended else one.tokens, skip_special=True)
        completions.append(Completion(prompt.messages, text, prompt.ids, one.tokens, ended, prompt.facts))
    return completions


def continue_documents(model: LanguageModel, tokenizer: "Tokenizer", prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Continues each prompt from the start of a document, so that people can read how a model learns: rows with
    `prompt` and `text`. The seed is fixed, and random state elsewhere is untouched."""
    if not prompts or not tokenizer.has_text:
        return []
    encoded = [document_prompt(tokenizer, prompt) for prompt in prompts]
    with torch.compiler.set_stance("force_eager"):
        made = generate(model, encoded, tokenizer=tokenizer, sampling=_SHOWN_SAMPLING, max_tokens=_SHOWN_TOKENS, seed=0)
    return [{"prompt": prompt, "text": generation.text} for prompt, generation in zip(prompts, made, strict=True)]


# Log-probabilities ----------------------------------------------------------------------------------------------------


def completion_states(model: LanguageModel, batch: ConversationBatch) -> tuple[Tensor, Tensor]:
    """The hidden state before every token that counts, `(tokens, D)`, and the token, `(tokens,)`, in the batch's order.

    Logits of the other tokens are never computed: of a conversation they are most."""
    segments = None if batch.segments is None else batch.segments[:, :-1]
    positions = None if batch.positions is None else batch.positions[:, :-1]
    hidden = model.core(batch.inputs, segments=segments, positions=positions, packed=batch.packed)
    return hidden[batch.mask], batch.targets[batch.mask]


def completion_log_probs(model: LanguageModel, batch: ConversationBatch) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's completion, and how many tokens it has: `(R,)` each. For rows of one example."""
    hidden, targets = completion_states(model, batch)
    log_probs, _ = likelihoods.token_statistics(
        hidden, model.head_weight, targets, logit_softcap=model.config.logit_softcap
    )
    counts = batch.mask.sum(dim=1)
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return log_probs.new_zeros(len(counts)).index_add(0, rows, log_probs), counts


def token_statistics(
    model: LanguageModel,
    hidden: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each completion token under the distribution it was drawn from, `(B, S)`, and that
    distribution's entropy where it is asked for. Zero outside the mask.

    `hidden (B, T, D)` of the core, which has read `tokens (B, T)`. Logits are made for the completions alone: prompts
    are often longer.
    """
    chosen, spread = likelihoods.token_statistics(
        hidden[:, :-1][mask], model.head_weight, tokens[:, 1:][mask],
        logit_softcap=model.config.logit_softcap, temperature=temperature, entropy=entropy,
    )  # fmt: skip
    return scattered(chosen, mask), None if spread is None else scattered(spread, mask)


def scattered(values: Tensor, mask: Tensor) -> Tensor:
    """`values (M,)` at the M true places of `mask (B, S)`, zero elsewhere; gradients go through."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def padded_rows(completions: Sequence[Completion], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Tokens `(N, T)` of prompts with their completions, lengths `(N,)` and mask `(N, S)`."""
    lengths = [len(one.prompt_ids) + len(one.answer_ids) for one in completions]
    tokens = torch.full((len(completions), max(lengths)), _PADDING, dtype=torch.int64)
    mask = torch.zeros(len(completions), max(lengths) - 1, dtype=torch.bool)
    for row, (one, length) in enumerate(zip(completions, lengths, strict=True)):
        tokens[row, :length] = torch.tensor([*one.prompt_ids, *one.answer_ids])
        mask[row, len(one.prompt_ids) - 1 : length - 1] = True
    return tokens.to(device), torch.tensor(lengths).to(device), mask.to(device)


def drawn_log_probs(completions: Sequence[Completion], mask: Tensor) -> Tensor | None:
    """Of the completions' tokens when they were drawn, `(N, S)`, zero outside `mask`; None where they are not known."""
    if not any(one.log_probs for one in completions):
        return None
    values = [value for one in completions for value in one.log_probs]
    return scattered(torch.tensor(values, device=mask.device), mask)


# Divergence -----------------------------------------------------------------------------------------------------------


def completion_kl(
    model: LanguageModel,
    reference: LanguageModel,
    completions: Sequence[Completion],
    *,
    temperature: float = 1.0,
    batch: int = 128,
) -> NDArray[np.float64]:
    """KL divergence from the reference along each completion, in nats: the sum over its tokens of KL(policy ||
    reference) of the whole distribution there. Its mean over the policy's own samples is the KL between the
    two, with less variance than the log-ratio of the sampled tokens.

    Raises `StageError` where the two read different tokens.
    """
    if model.config.vocab_size != reference.config.vocab_size:
        raise StageError("Policy and reference have different vocabularies: their KL has no meaning.")

    def kl_of_rows(mine: Tensor, theirs: Tensor) -> tuple[Tensor]:
        mine, theirs = (
            (one.logits(hidden).float() / temperature).log_softmax(-1)
            for one, hidden in ((model, mine), (reference, theirs))
        )
        return ((mine.exp() * (mine - theirs)).sum(-1),)

    def kl_of_batch(tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        hidden = (one.core(tokens)[:, :-1][mask] for one in (model, reference))
        return likelihoods.in_chunks(kl_of_rows, model.config.vocab_size, *hidden)

    return _sums_of_completions(completions, kl_of_batch, model.head_weight.device, batch)[0]


def completion_likelihoods(
    model: LanguageModel, completions: Sequence[Completion], *, temperature: float = 1.0, batch: int = 128
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-probability of each completion, its end of turn included, and the entropy of the distributions that its
    tokens are drawn from, summed along it: nats, `(n,)` each."""

    def of_batch(tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        chosen, entropy = likelihoods.token_statistics(
            model.core(tokens)[:, :-1][mask], model.head_weight, tokens[:, 1:][mask],
            logit_softcap=model.config.logit_softcap, temperature=temperature, entropy=True,
        )  # fmt: skip
        assert entropy is not None
        return chosen, entropy

    log_probs, entropies = _sums_of_completions(completions, of_batch, model.head_weight.device, batch)
    return log_probs, entropies


def _sums_of_completions(
    completions: Sequence[Completion],
    of_batch: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    device: torch.device,
    batch: int,
) -> NDArray[np.float64]:
    """Sums over each completion's tokens of what `of_batch(tokens (B, T), mask (B, S))` gives of each token of the
    mask, in its order: (statistics, n). Without gradients."""
    sums = []
    for start in range(0, len(completions), batch):
        tokens, _, mask = padded_rows(completions[start : start + batch], device)
        with torch.inference_mode():
            each = torch.stack(of_batch(tokens, mask))
            of_rows = each.new_zeros(len(each), len(mask))
            of_rows.index_add_(1, mask.nonzero()[:, 0], each)
        sums.append(of_rows.double().cpu().numpy())
    return np.concatenate(sums, axis=1)


def sampled_kl(
    model: LanguageModel,
    reference: LanguageModel | None,
    tokenizer: "Tokenizer",
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    seed: int = 0,
) -> tuple[list[Completion], dict[str, float]]:
    """Completions of `model` at temperature 1, and what they show: lengths, and where there is a reference
    KL(policy || reference) of a completion with its standard error. (Implicit rewards of DPO are about completions that
    somebody else gave; the KL that a method spends is about the policy's own.)"""
    with torch.compiler.set_stance("force_eager"):
        completions = sample_completions(model, tokenizer, prompts, max_tokens=max_tokens, seed=seed)
        kl = [] if reference is None else completion_kl(model, reference.eval(), completions).tolist()
    count, distance = len(completions), {}
    if kl:
        error = statistics.stdev(kl) / count**0.5 if count > 1 else 0.0
        distance = {"validation/kl": statistics.fmean(kl), "validation/kl_standard_error": error}
    return completions, distance | {
        "completions/mean_length": statistics.fmean(len(one.answer_ids) for one in completions),
        "completions/eos_rate": sum(one.ended for one in completions) / count,
    }
