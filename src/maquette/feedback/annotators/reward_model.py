"""A learned reward, as a reward function, and as an annotator of pairs that nobody has labelled."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from maquette.artifacts import StageError
from maquette.feedback.comparison import Comparison, Judgement
from maquette.model import ScalarModel
from maquette.model.likelihoods import require_finite
from maquette.objectives.completions import Completion, padded_rows
from maquette.text import chat

if TYPE_CHECKING:
    from maquette.text import Tokenizer


_BATCH = 64


class LearnedReward:
    """A reward model as a `RewardFunction`: its number at the last real token, the end of turn where there is one."""

    def __init__(self, model: ScalarModel, tokenizer: "Tokenizer") -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """Raises `StageError` for a completion that is longer than the model's context."""
        scores = [0.0] * len(completions)
        device = self.model.score.weight.device
        # Rows of like length together: less padding, and a row's number does not depend on its neighbours.
        order = sorted(range(len(completions)), key=lambda row: _length(completions[row]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            tokens, lengths, _ = padded_rows([completions[row] for row in rows], device)
            if tokens.size(1) > self.model.config.max_position_embeddings:
                raise StageError(
                    f"A completion with its prompt has {tokens.size(1):,} tokens; the reward model's context holds "
                    f"{self.model.config.max_position_embeddings:,}.",
                    "Use shorter completions, or a reward model with a longer context.",
                )
            with torch.inference_mode():
                values = self.model(tokens)
                last = require_finite(values.gather(1, lengths[:, None] - 1)[:, 0], "rewards")
            for row, score in zip(rows, last.tolist(), strict=True):
                scores[row] = score
        return scores

    def check_tokenizer(self, digest: str) -> None:
        """Raises `StageError` where a policy with the tokenizer of this digest would be read wrongly."""
        if digest != self.tokenizer.digest:
            raise StageError(
                f"The reward model has another tokenizer ({self.tokenizer.digest[:8]}) than the policy ({digest[:8]}).",
                "Train the reward model from the policy's own checkpoint.",
            )


class RewardModelAnnotator:
    """Prefers the completion with the higher learned reward, by the difference of the two."""

    name = "reward_model"

    def __init__(self, reward: LearnedReward, name: str = "reward_model") -> None:
        self.reward, self.name = reward, name

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        completions = [one for pair in comparisons for one in (pair, pair.swapped())]
        scores = self.reward([completion_of(self.reward.tokenizer, one) for one in completions])
        judgements = []
        for first, second in zip(scores[::2], scores[1::2], strict=True):
            difference = first - second
            judgements.append(Judgement(0.5 if difference == 0 else float(difference > 0), difference))
        return judgements


def completion_of(tokenizer: "Tokenizer", one: Comparison) -> Completion:
    """The first completion of a comparison as ids, closed by an end of turn."""
    prompt = chat.render(tokenizer, one.messages, open_assistant=True).ids
    whole = chat.render(tokenizer, [*one.messages, {"role": "assistant", "content": one.first}]).until_the_end()
    return Completion(one.messages, one.first, tuple(prompt), tuple(whole.ids[len(prompt) :]), True, one.facts)


def _length(completion: Completion) -> int:
    return len(completion.prompt_ids) + len(completion.answer_ids)
