"""Kahneman-Tversky optimisation: raise completions that are good and lower those that are bad, each by itself.

Ethayarajh et al. 2024 (`preference_losses.kto_loss`): nobody has to compare two completions, a thumb up or down is
enough. A completion's log-ratio to the reference counts from a reference point, the KL divergence z of the policy from
the reference. As in the paper's section 4.1 and in TRL it is estimated from completions of other prompts, without a
gradient: `data.example_data.LabelledData` puts the prompt of each row before another row's completion. One z is for the
whole step, whatever micro-batches and processes it comes in; TRL takes one for each micro-batch.

Everything that is not the loss is DPO's (dpo.py): the reference is not in memory while this trains.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from maquette.data.example_batches import LabelledBatch
from maquette.objectives.base import Metrics
from maquette.objectives.completions import completion_log_probs
from maquette.objectives.config import LabelledConfig
from maquette.objectives.dpo import DirectPreferenceOptimization
from maquette.objectives.losses import kto_loss


class KahnemanTverskyOptimization(DirectPreferenceOptimization):
    """KTO over `LabelledBatch`es."""

    config_class = LabelledConfig  # type: ignore[assignment]
    config: LabelledConfig

    def loss(self, batch: LabelledBatch) -> tuple[Tensor, Metrics]:  # type: ignore[override]
        if batch.mismatched is not None:
            self._kl = self.estimate_kl(batch)
        losses, rewards, log_probs = self.labelled_losses(batch, self._kl)
        good = batch.desirable
        means = {
            f"{name}/{kind}": values[rows].mean()
            for name, values in (("rewards", rewards), ("logps", log_probs.detach()))
            for kind, rows in (("chosen", good), ("rejected", ~good))
            if rows.any()
        }
        if good.any() and not good.all():
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        return losses.mean(), means | {"objective/kl": self._kl}  # micro-batches have equally many completions

    def labelled_losses(self, batch: LabelledBatch, kl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, implicit rewards and log-probabilities of the completions: `(B,)` each."""
        log_probs, _ = completion_log_probs(self.model, batch.rows)
        config = self.config
        losses, rewards = kto_loss(
            log_probs, batch.reference, batch.desirable, kl, beta=config.beta,
            desirable_weight=config.desirable_weight, undesirable_weight=config.undesirable_weight,
        )  # fmt: skip
        return losses, rewards, log_probs

    @torch.no_grad()
    def estimate_kl(self, batch: LabelledBatch) -> Tensor:
        """z of the step that the batch opens, in nats, over all processes: a scalar, not below 0."""
        rows, reference = batch.mismatched, batch.mismatched_reference
        assert rows is not None and reference is not None
        total = reference.new_zeros(())
        for first in range(0, len(reference), len(batch.desirable)):  # as many rows at once as training has
            part = slice(first, first + len(batch.desirable))
            some = dataclasses.replace(
                rows, tokens=rows.tokens[part], loss_mask=rows.loss_mask[part], lengths=rows.lengths[part]
            )
            total += (completion_log_probs(self.model, some)[0] - reference[part]).sum()
        kl = total / len(reference)
        if self._trainer is not None and self.trainer.training and self.trainer.world_size > 1:
            kl = self.trainer.strategy.reduce(kl, reduce_op="mean")
        return kl.clamp(min=0)

    # Validation -------------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Losses, implicit rewards, and which completions are good: `(3, B)`."""
        losses, rewards, _ = self.labelled_losses(batch.batch, self.estimate_kl(batch.batch))
        values = torch.stack([losses, rewards, batch.batch.desirable.to(losses)])
        self._pairs.add(batch, values)
        return values

    def held_out_metrics(self, data: Any) -> dict[str, float]:
        losses, rewards, desirable = self._pairs.gathered(len(data.validation), self.sum_over_processes)
        good = desirable > 0
        values = {"validation/loss": float(losses.mean()), "validation/accuracy": float(((rewards > 0) == good).mean())}
        kinds = {"chosen": good, "rejected": ~good}
        return values | {
            f"validation/rewards/{kind}": float(rewards[rows].mean()) for kind, rows in kinds.items() if rows.any()
        }
