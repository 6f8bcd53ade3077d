"""Direct preference optimisation: raise the chosen completion, lower the rejected one.

Rafailov et al. 2023, equation 7: -log sigmoid(beta ((log pi - log pi_ref)(chosen) - (log pi - log pi_ref)(rejected))),
and its relatives (`pair_losses`; the formulas are in preference_losses.py). Nothing is sampled to train; validation
samples, to measure the KL divergence. The reference's log-probabilities come with the batch (made by
`preferences.ReferenceLogProbs`, put in by `data.example_batches.preference_batches`), so the reference is not in memory
while this trains; SimPO and ORPO have none. Neither model has dropout: it would be in the policy's log-probabilities
and not in the reference's.
"""

from typing import Any

import torch
from torch import Tensor

from maquette.data.example_batches import PreferenceBatch
from maquette.model import LanguageModel
from maquette.model.sharding import whole
from maquette.objectives.base import Metrics, Objective
from maquette.objectives.completions import Completion, completion_log_probs, sampled_kl
from maquette.objectives.config import PairLossConfig, PreferenceConfig
from maquette.objectives.losses import dpo_loss, orpo_loss, simpo_loss
from maquette.objectives.preferences import HeldOutPairs, preference_metrics, reward_metrics

_SHOWN = 4


def pair_losses(
    config: PairLossConfig, policy: Tensor, reference: Tensor | None, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, and rewards of the chosen and the rejected completions, `(B,)` each, as the settings have them.

    Of chosen and rejected completions, `(2, B)` each: `policy` and `reference`, log-probabilities of the whole
    completion (None where the loss has no reference), and `counts` of their tokens.
    """
    if config.loss_type == "simpo":
        return simpo_loss(*(policy / counts), beta=config.beta, gamma=config.simpo_gamma)
    if config.loss_type == "orpo":
        return orpo_loss(*(policy / counts), beta=config.beta)
    assert reference is not None
    if config.length_normalized:
        policy, reference = policy / counts, reference / counts
    return dpo_loss(
        *policy, *reference, beta=config.beta, variant=config.loss_type, label_smoothing=config.label_smoothing
    )


class DirectPreferenceOptimization(Objective):
    """DPO over `PreferenceBatch`es that have the reference's log-probabilities, where the loss has a reference."""

    model: LanguageModel
    config_class = PreferenceConfig
    uses_dropout = False

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, Metrics]:
        log_probs, counts = self.log_probs(batch)
        losses, chosen_rewards, rejected_rewards = self.losses(batch, log_probs, counts)
        chosen, rejected = log_probs
        loss = losses.mean()  # micro-batches have equally many pairs
        if self.config.sft_weight:
            # The divisor is the step's chosen tokens over its micro-batches: their mean is per token of the step.
            loss = loss - self.config.sft_weight * chosen.sum() / batch.chosen.divisor
        return loss, {
            **reward_metrics(chosen_rewards, rejected_rewards),
            "logps/chosen": chosen.detach().mean(),
            "logps/rejected": rejected.detach().mean(),
        }

    def log_probs(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the chosen and the rejected completions, and their numbers of tokens: `(2, B)` each."""
        log_probs, counts = completion_log_probs(self.model, batch.rows())
        return torch.stack(log_probs.chunk(2)), torch.stack(counts.chunk(2))

    def losses(self, batch: PreferenceBatch, log_probs: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, and implicit rewards of the chosen and the rejected completions: `(B,)` each."""
        reference = None
        if batch.reference_chosen is not None and batch.reference_rejected is not None:
            reference = torch.stack([batch.reference_chosen, batch.reference_rejected])
        return pair_losses(self.config, log_probs, reference, counts)

    # Validation -------------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._pairs = HeldOutPairs(3)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Losses, and implicit rewards of chosen and rejected completions: `(3, B)`."""
        values = torch.stack(self.losses(batch.batch, *self.log_probs(batch.batch)))
        self._pairs.add(batch, values)
        return values

    def on_validation_epoch_end(self) -> None:
        data = self.datamodule
        values: dict[str, float] = data.progress(self.trainer.global_step)
        if len(data.validation):
            values |= self.held_out_metrics(data)
        self._sampled: list[Completion] = []
        with whole(self):  # the first process samples, with all weights
            if self.trainer.is_global_zero:
                values |= self._sample(data)
        self.log_values(values)

    def held_out_metrics(self, data: Any) -> dict[str, float]:
        """What `validation_step` has found, over everything that is held out."""
        losses, chosen, rejected = self._pairs.gathered(len(data.validation) // 2, self.sum_over_processes)
        return preference_metrics(data.validation, chosen, rejected) | {"validation/loss": float(losses.mean())}

    def _sample(self, data: Any) -> dict[str, float]:
        """KL from the reference, on the policy's own completions. The reference comes back for this, and leaves; where
        the loss has none, lengths alone."""
        prompts = data.prompts(self.config.sample_prompts, self.model.config.max_position_embeddings)
        if not prompts:
            return {}
        reference = data.reference_model()
        self._sampled, values = sampled_kl(
            self.model, None if reference is None else reference.to(self.model.head_weight), data.tokenizer, prompts,
            max_tokens=self.config.max_completion_length, seed=self.description.get("seed", 0),
        )  # fmt: skip
        return values

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        """Some of the completions that the KL was measured on."""
        return [self.datamodule.shown(completion) for completion in self._sampled[:_SHOWN]]
