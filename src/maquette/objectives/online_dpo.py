"""Online DPO: of two completions that the policy samples now, raise the one of the higher score and lower the other.

Guo et al. 2024, "Direct language model alignment from online AI feedback", algorithm 1: DPO's loss (dpo.py) on PPO's
rollouts (policy.py, rollouts.py). Pairs are never older than an iteration, so the policy is told about what it writes
itself; who prefers is a reward: a model, a task's gold reward, or a function. A pair of equal scores teaches nothing.
"""

import torch
from torch import Tensor

from maquette.objectives.base import Metrics
from maquette.objectives.config import OnlinePreferenceConfig
from maquette.objectives.dpo import pair_losses
from maquette.objectives.losses import masked_sum
from maquette.objectives.policy import PolicyOptimization
from maquette.objectives.preferences import reward_metrics
from maquette.objectives.rollouts import RolloutBatch, Rollouts


class OnlinePreferenceOptimization(PolicyOptimization):
    """DPO over rollouts: rows 2 k and 2 k + 1 are completions of one prompt. See the module's docstring."""

    config_class = OnlinePreferenceConfig
    config: OnlinePreferenceConfig

    @property
    def kl_coefficient(self) -> float:
        """DPO's beta is the KL penalty coefficient of what it maximises (Rafailov et al. 2023, equation 3)."""
        return self.config.beta

    def compute_advantages(self, rollouts: Rollouts, scores: Tensor, ended: Tensor) -> dict[str, float]:
        """1 at the tokens of the chosen completion, -1 at those of the rejected one, 0 where the scores are equal."""
        first, second = scores.view(-1, 2).unbind(dim=1)
        sign = torch.stack([first - second, second - first], dim=1).sign().flatten()
        rollouts.advantages = sign[:, None] * rollouts.mask
        return {"objective/scores_margin": float((first - second).abs().mean())}

    def loss(self, batch: RolloutBatch) -> tuple[Tensor, Metrics]:
        rollouts, mask = batch.rollouts, batch.rollouts.mask
        log_probs, _, _ = self.evaluate(rollouts, entropy=False)
        sign = rollouts.advantages.sum(dim=1).sign().view(-1, 2)
        order = torch.where(sign[:, :1] < 0, sign.new_tensor([1, 0]), sign.new_tensor([0, 1])).long()

        def chosen_first(values: Tensor) -> Tensor:
            """`(N,)` -> `(2, N / 2)`, of chosen and rejected completions."""
            return values.view(-1, 2).gather(1, order).T

        policy = chosen_first(masked_sum(log_probs, mask, dim=1))
        reference = chosen_first(masked_sum(rollouts.reference_log_probs, mask, dim=1))
        losses, chosen_rewards, rejected_rewards = pair_losses(
            self.config, policy, reference, chosen_first(mask.sum(dim=1))
        )
        loss = torch.where(sign[:, 0] != 0, losses, torch.zeros_like(losses)).mean()
        metrics = {
            **reward_metrics(chosen_rewards, rejected_rewards),
            "logps/chosen": policy[0].detach().mean(),
            "logps/rejected": policy[1].detach().mean(),
        }
        of_iteration = {name: loss.new_tensor(value) for name, value in batch.metrics.items()}
        return loss * batch.share, {name: value * batch.share for name, value in metrics.items()} | of_iteration
