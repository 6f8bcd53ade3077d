"""A learned reward, as a reward function, and as an annotator of pairs that nobody has labelled.

A reward model reads conversations in its own chat template and tokens. A policy's completions are read as they were
sampled where both are the policy's too; else as text, encoded again. One from elsewhere is read where those who trained
it read it: at the last token, but for padding, of all that its template writes (`ScalarModel.reads_rendering`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maquette.artifacts import StageError
from maquette.feedback.comparison import Comparison, Judgement
from maquette.model import ScalarModel
from maquette.model.likelihoods import require_finite
from maquette.objectives.completions import Completion, padded_rows
from maquette.text import chat
from maquette.text.chat import Message

if TYPE_CHECKING:
    from maquette.text import Tokenizer


_BATCH = 64


class LearnedReward:
    """A reward model as a `RewardFunction`. `reads_ids`: whether completions have ids that it reads as they are; else
    their messages and answers are encoded by its own tokenizer."""

    def __init__(self, model: ScalarModel, tokenizer: "Tokenizer", *, reads_ids: bool = True) -> None:
        self.model, self.tokenizer, self.reads_ids = model.eval(), tokenizer, reads_ids

    def of_policy(self, tokenizer: "Tokenizer") -> "LearnedReward":
        """The reward of completions by a policy with this tokenizer."""
        same = tokenizer.chat_digest == self.tokenizer.chat_digest and not self.model.reads_rendering
        return LearnedReward(self.model, self.tokenizer, reads_ids=same)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """Raises `StageError` for a completion that is longer than the model's context, or that its template
        refuses."""
        return self._scores(completions if self.reads_ids else [self._read_again(one) for one in completions])

    def _scores(self, read: Sequence[Completion]) -> list[float]:
        scores = [0.0] * len(read)
        device = self.model.score.weight.device
        # Rows of like length together: less padding, and a row's number does not depend on its neighbours.
        order = sorted(range(len(read)), key=lambda row: _length(read[row]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            tokens, lengths, _ = padded_rows([read[row] for row in rows], device)
            if tokens.size(1) > self.model.config.max_position_embeddings:
                raise StageError(
                    f"A completion with its prompt has {tokens.size(1):,} tokens; the reward model's context holds "
                    f"{self.model.config.max_position_embeddings:,}.",
                    "Use shorter completions, or a reward model with a longer context.",
                )
            with torch.inference_mode():
                values = self.model(tokens)
                last = last_places(tokens, lengths, self.model.padding_id)
                last_values = require_finite(values.gather(1, last[:, None])[:, 0], "rewards")
            for row, score in zip(rows, last_values.tolist(), strict=True):
                scores[row] = score
        return scores

    def of_answers(self, answers: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        """Of (prompt, answer) each, the answer closed by an end of turn. Raises `StageError` as a call does."""
        return self._scores(self._read_answers(answers))

    def of_fitting(self, answers: Sequence[tuple[Sequence[Message], str]]) -> list[float | None]:
        """The same, with None for what is longer than the context."""
        read, context = self._read_answers(answers), self.model.config.max_position_embeddings
        fitting = [one for one in read if _length(one) <= context]
        scores = iter(self._scores(fitting))
        return [next(scores) if _length(one) <= context else None for one in read]

    def _read_answers(self, answers: Sequence[tuple[Sequence[Message], str]]) -> list[Completion]:
        return [
            self._read_again(Completion(tuple(messages), answer, (), (), ended=True)) for messages, answer in answers
        ]

    def _read_again(self, one: Completion) -> Completion:
        """With this model's own ids. What did not end has no end of turn here either."""
        whole = chat.render(self.tokenizer, [*one.messages, {"role": "assistant", "content": one.answer}])
        if not (one.ended and self.model.reads_rendering):
            whole = whole.until_the_end()
        ids = whole.ids
        if not one.ended and ids[-1] in self.tokenizer.stop_ids:
            ids = ids[:-1]
        return Completion(one.messages, one.answer, (), tuple(ids), one.ended, one.facts)


def last_places(tokens: Tensor, lengths: Tensor, padding_id: int | None) -> Tensor:
    """Where the score of each row of `tokens (B, T)`, of `lengths (B,)` tokens, is read: `(B,)`, the last token that is
    not `padding_id`, as `transformers` finds it."""
    if padding_id is None:
        return lengths - 1
    places = torch.arange(tokens.size(1), device=tokens.device)
    return (places * ((tokens != padding_id) & (places < lengths[:, None]))).amax(dim=1)


class RewardModelAnnotator:
    """Prefers the completion with the higher learned reward, by the difference of the two."""

    name = "reward_model"

    def __init__(self, reward: LearnedReward, name: str = "reward_model") -> None:
        self.reward, self.name = reward, name

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        answers = [(one.messages, answer) for one in comparisons for answer in (one.first, one.second)]
        scores = self.reward.of_answers(answers)
        judgements = []
        for first, second in zip(scores[::2], scores[1::2], strict=True):
            difference = first - second
            judgements.append(Judgement(0.5 if difference == 0 else float(difference > 0), difference))
        return judgements


def _length(completion: Completion) -> int:
    return len(completion.prompt_ids) + len(completion.answer_ids)
