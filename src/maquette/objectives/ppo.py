"""Proximal policy optimisation from feedback: sample, score, and move towards what scored well, not far from the
reference.

Schulman et al. 2017 for the clipped losses, Ziegler et al. 2019 and Stiennon et al. 2020 for their use on language
models. Forms without a value function, which compare a prompt's completions with each other (GRPO, Dr. GRPO, DAPO,
RLOO), are settings: conf/objective. One iteration is one epoch:

1. `collect`: the policy as it is completes prompts, and the completions are scored; each token gets its reward and its
   advantage over what the value function expected (rollouts.py, value_function.py)
2. `loss`: several passes of minibatches, clipped policy and value losses (losses.py)

One optimiser moves policy and value function, each at its own rate; Lightning's automatic optimisation does it. The
policy never has dropout: the ratio of policies is exactly 1 at an iteration's first step.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.model.adapters import attach
from maquette.model.architecture import describe_model
from maquette.model.heads import ScalarModel
from maquette.model.loading import leave_out_base, put_back_base
from maquette.model.parametrization import STANDARD
from maquette.model.sharding import is_here
from maquette.objectives.base import Metrics, Optimization
from maquette.objectives.completions import scattered
from maquette.objectives.config import PolicyConfig
from maquette.objectives.environment import Environment
from maquette.objectives.losses import (
    AdaptiveKLController,
    explained_variance,
    generalized_advantage_estimate,
    group_advantages,
    kl_estimate,
    masked_mean,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    whiten,
)
from maquette.objectives.policy import PolicyOptimization
from maquette.objectives.rollouts import (
    Collected,
    RolloutBatch,
    Rollouts,
    RolloutSchedule,
)
from maquette.objectives.value_function import (
    VALUE_RATE,
    expect_standardized,
    expected_rewards,
    saved_value_function,
    value_function,
    value_of_folder,
)
from maquette.optimization.config import short_name
from maquette.optimization.groups import optimizer_groups
from maquette.optimization.optimizers import wants_hidden_matrices


def compute_advantages(rollouts: Rollouts, scores: Tensor, config: PolicyConfig, kl_coefficient: float) -> None:
    """Fills in `advantages` and `returns` as PPO and its forms have them.

    `rollouts` know the policy's log-probabilities and values before its first step, and the reference's of the same
    tokens; `scores (N,)` are standardised. Rewards are whitened, with their mean
    kept, where the settings say so (Ziegler et al. 2019's code).
    """
    mask = rollouts.mask
    kl = kl_estimate(rollouts.log_probs, rollouts.reference_log_probs, kind=config.kl_estimator)
    rewards = shape_rewards(scores, kl, mask, kl_coefficient=kl_coefficient)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    if not config.has_value:
        rollouts.advantages = group_advantages(rewards, mask, config.group_size, baseline=config.advantage)
        return
    advantages, rollouts.returns = generalized_advantage_estimate(
        rewards, rollouts.values, mask, gamma=config.gamma, gae_lambda=config.gae_lambda
    )
    rollouts.advantages = whiten(advantages, mask)


class ProximalPolicyOptimization(PolicyOptimization):
    """PPO over a source of prompts; see the module's docstring and `PolicyOptimization`.

    `value`: a model to start the value function from, where there is no datamodule to bring it and the settings need
    one. `value_architecture`: of the value function in a checkpoint, and `value_checkpoint` the folder of the weights
    that it started from, which with an adapter are in no checkpoint.
    """

    config_class = PolicyConfig
    config: PolicyConfig

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        optimization: Optimization | Mapping[str, Any],
        config: PolicyConfig | None = None,
        *,
        environment: Environment | None = None,
        value: ScalarModel | None = None,
        value_architecture: Mapping[str, Any] | None = None,
        value_checkpoint: str | None = None,
        **settings: Any,
    ) -> None:
        """Raises `ConfigError` where the settings do not go with the models."""
        super().__init__(model, optimization, config, environment=environment, **settings)
        self.hparams["value_architecture"] = value_architecture
        self.hparams["value_checkpoint"] = value_checkpoint
        self.value: nn.Module | None = None
        self.controller = AdaptiveKLController(
            self.config.kl_coefficient, self.config.kl_target, self.config.kl_horizon
        )
        self._approximate_kl: list[float] = []
        self._stopped = False
        self._last_shown: tuple[Tensor, Metrics] | None = None
        if self.model is not None:
            self._add_value(value_function(self.model, value, self.config))

    def configure_model(self) -> None:
        """Builds policy, value function and reference; without a trainer their weights follow from a checkpoint."""
        if self.model is not None:
            return
        super().configure_model()
        if self._trainer is None:
            value = saved_value_function(self.model, self.hparams["value_architecture"], self.config)
        else:
            feedback = self.datamodule.feedback
            value = value_function(self.model, feedback.value, self.config)
            of_policy = self.description.get("checkpoint")
            self.hparams["value_checkpoint"] = (
                feedback.value_checkpoint if self.config.value_init == "reward" else of_policy
            )
        self._add_value(value)

    def _add_value(self, value: nn.Module | None) -> None:
        self.value = value
        if isinstance(value, ScalarModel):
            self._adapt(value)
            self.hparams["value_architecture"] = describe_model(value)["architecture"]
        self.train()  # without dropout

    def _adapt(self, value: ScalarModel) -> ScalarModel:
        if adapter := self.description.get("adapter"):
            attach(value, adapter, seed=self.description.get("seed", 0))
        return value

    @property
    def kl_coefficient(self) -> float:
        return self.controller.coefficient

    # Learning ---------------------------------------------------------------------------------------------------------

    def evaluate(self, rollouts: Rollouts, *, entropy: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities, values and entropies of the completion tokens under the weights as they are, `(B, S)`."""
        log_probs, spread, hidden = self.token_statistics(rollouts, entropy=entropy)
        if self.value is None:
            return log_probs, None, spread
        values = expected_rewards(self.value, rollouts.tokens, hidden)
        return log_probs, scattered(values[rollouts.mask], rollouts.mask), spread

    def compute_advantages(self, rollouts: Rollouts, scores: Tensor, ended: Tensor) -> dict[str, float]:
        """Fills in advantages and returns, and says how well the value function knew them."""
        compute_advantages(rollouts, scores, self.config, self.kl_coefficient)
        metrics = {}
        if self.config.has_value:
            explained = explained_variance(rollouts.values, rollouts.returns, rollouts.mask)
            metrics["val/explained_variance"] = float(torch.nan_to_num(explained))
        if self.config.mask_truncated:
            rollouts.keep(ended)
        return metrics

    def collect(self, iteration: int, schedule: RolloutSchedule) -> Collected:
        """See `PolicyOptimization.collect`; then the KL penalty coefficient is steered."""
        rollouts, metrics = super().collect(iteration, schedule)
        self.controller.update(metrics["objective/kl"], len(rollouts.lengths))
        return rollouts, metrics

    def on_calibrated(self, mean: float, deviation: float) -> None:
        """The value function begins on the scale of the scores."""
        if self.config.value_init == "reward" and isinstance(self.value, ScalarModel):
            expect_standardized(self.value, mean, deviation)

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        if batch.opens_iteration:
            self._stopped = False
        if batch.opens_minibatch:
            self._approximate_kl.clear()
        if not self._stopped:
            loss = super().training_step(batch, batch_idx)
            if not self._has_gone_too_far():
                return loss
            self._stopped = True
            self._drop_gradients()  # what earlier micro-batches of this step have left
        if not self._seen and self._last_shown is not None:
            self._seen.append(self._last_shown)
        # Lightning counts the step; without gradients AdamW changes neither weights nor momentum.
        if self.environment.group.size == 1:
            return None
        # Several processes leave no step out, so there it is one of zeros, taken away again before the optimiser's.
        return 0.0 * torch.stack([one.sum() for one in self.parameters() if one.requires_grad and is_here(one)]).sum()

    def configure_gradient_clipping(self, *arguments: Any, **settings: Any) -> None:
        """As every objective; in an iteration that has gone too far nothing is left to clip."""
        if self._stopped:
            self._drop_gradients()
        super().configure_gradient_clipping(*arguments, **settings)

    def _drop_gradients(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def loss(self, batch: RolloutBatch) -> tuple[Tensor, Metrics]:
        config, rollouts = self.config, batch.rollouts
        mask = rollouts.mask
        log_probs, values, entropy = self.evaluate(rollouts, entropy=config.ent_coef > 0)
        policy_loss, clipped = ppo_policy_loss(
            log_probs, rollouts.log_probs, rollouts.advantages, mask, clip_range=config.clip_range,
            clip_range_high=config.clip_range_high, ratio=config.ratio, normalizer=config.normalizer,
            longest=config.max_completion_length,
        )  # fmt: skip
        loss = policy_loss
        if config.normalizer != "tokens":  # everything else is a mean over tokens, and weighs accordingly below
            loss = loss * (batch.share / max(batch.weight, 1e-9))
        with torch.no_grad():
            log_ratio = log_probs - rollouts.log_probs  # zero outside the mask
            approximate_kl = masked_mean(log_ratio.square(), mask) / 2
            metrics = {
                "loss/policy_avg": loss.detach(),
                "policy/approxkl_avg": approximate_kl,
                "policy/clipfrac_avg": clipped,
                "val/ratio": masked_mean(log_ratio.exp(), mask),
            }
        if values is not None:
            value_loss, value_clipped = ppo_value_loss(
                values, rollouts.values, rollouts.returns, mask, clip_range=config.clip_range_value
            )
            loss = loss + config.vf_coef * value_loss
            metrics |= {"loss/value_avg": value_loss.detach(), "val/clipfrac_avg": value_clipped}
        if entropy is not None:
            mean_entropy = masked_mean(entropy, mask)
            loss = loss - config.ent_coef * mean_entropy
            metrics["policy/entropy_avg"] = mean_entropy.detach()
        if config.target_kl is not None:
            self._approximate_kl.append(self._over_processes(float(approximate_kl * batch.weight)))
        of_iteration = {name: loss.new_tensor(value) for name, value in batch.metrics.items()}
        weighted = {name: value * batch.weight for name, value in metrics.items()} | of_iteration
        # Of several processes each shows its part of a mean over all.
        alone = self.environment.group.size == 1
        self._last_shown = (loss.detach(), metrics | of_iteration) if alone else (
            loss.detach() * batch.weight, weighted
        )  # fmt: skip
        return loss * batch.weight, weighted

    def _has_gone_too_far(self) -> bool:
        if self.config.target_kl is None:
            return False
        return sum(self._approximate_kl) / len(self._approximate_kl) > self.config.target_kl

    # Wiring -----------------------------------------------------------------------------------------------------------

    @property
    def clipped_parts(self) -> tuple[nn.Module, ...]:
        """Policy and value function apart: their gradients have scales of their own."""
        return (self.model,) if self.value is None else (self.model, self.value)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimiser: the policy's matrices (decayed) and the rest of it, and the value function at its own rate.

        Raises `ConfigError` for one that treats hidden matrices in a way of their own: its rate for them is not the
        policy's, so the value function's could not be a multiple of it.
        """
        plan = self.optimization
        if wants_hidden_matrices(plan.optimizer):
            raise ConfigError(
                f"optimizer={short_name(plan.optimizer)} does not go with objective=ppo.", "Use optimizer=adamw."
            )
        more: list[dict[str, Any]] = []
        if self.value is not None:
            given = self.config.value_learning_rate
            more = optimizer_groups(
                self.value,
                learning_rate=VALUE_RATE * plan.learning_rate if given is None else given,
                weight_decay=plan.weight_decay,
                parametrization=plan.parametrization if isinstance(self.value, ScalarModel) else STANDARD,
            )
        return plan.configure(self.model, self._kinds, more)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.description.get("adapter") and isinstance(self.value, ScalarModel):
            leave_out_base(checkpoint, self.hparams["value_checkpoint"], self.value, "value")
        checkpoint["policy"] |= {
            "kl_coefficient": self.kl_coefficient, "stopped": self._stopped, "last_shown": None,
        }  # fmt: skip
        if self._last_shown is not None:
            loss, metrics = self._last_shown
            checkpoint["policy"]["last_shown"] = float(loss), {name: float(value) for name, value in metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        folder = self.hparams["value_checkpoint"]
        put_back_base(checkpoint, folder, lambda: self._adapt(value_of_folder(folder, self.config)), "value")
        state = checkpoint["policy"]
        self.controller.load_state_dict({"coefficient": state["kl_coefficient"]})
        self._stopped = state["stopped"]
        if state["last_shown"] is not None:
            loss, metrics = state["last_shown"]
            self._last_shown = torch.tensor(loss), {name: torch.tensor(value) for name, value in metrics.items()}
