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

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.data.process_group import ProcessGroup
from maquette.model.adapters import adapted, attach, without_adapter
from maquette.model.architecture import describe_model
from maquette.model.heads import LanguageModel, ScalarModel
from maquette.model.parametrization import STANDARD
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.completions import sample_completions, scattered, token_statistics
from maquette.objectives.config import PolicyConfig
from maquette.objectives.losses import AdaptiveKLController, masked_mean, ppo_policy_loss, ppo_value_loss
from maquette.objectives.rollouts import (
    Collected,
    Environment,
    RolloutBatch,
    RolloutLoader,
    Rollouts,
    RolloutSchedule,
    collect_rollouts,
)
from maquette.objectives.value_function import (
    VALUE_RATE,
    expect_standardized,
    expected_rewards,
    saved_value_function,
    value_function,
)
from maquette.optimization.config import short_name
from maquette.optimization.groups import optimizer_groups
from maquette.optimization.optimizers import wants_hidden_matrices

_SAMPLES = 4
"""Held-out prompts that are answered at each validation, for people to read."""


class ProximalPolicyOptimization(Objective):
    """PPO over a source of prompts. `loader(schedule)` gives the batches for Lightning; see the module's docstring.

    With a trainer, prompts, reward and value function come from its datamodule (`maquette.training.PolicyData`);
    without one they may be given here: `environment`, and `value`, a model to start the value function from, where the
    settings need one. The reference, which the KL divergence is measured from, is the model as it is now, and in no
    checkpoint. `value_architecture`: of the value function in a checkpoint.
    """

    model: LanguageModel
    config_class = PolicyConfig
    uses_dropout = False
    validates_start = True
    watches_spikes = False

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        optimization: Optimization | Mapping[str, Any],
        config: PolicyConfig | None = None,
        *,
        environment: Environment | None = None,
        value: ScalarModel | None = None,
        value_architecture: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Raises `ConfigError` where the settings do not go with the models."""
        super().__init__(model, optimization, config, **settings)
        self.hparams["value_architecture"] = value_architecture
        self.value: nn.Module | None = None
        # In a tuple, so that it is not a submodule: neither trained nor saved.
        self._frozen: tuple[LanguageModel, ...] = ()
        self.controller = AdaptiveKLController(
            self.config.kl_coefficient, self.config.kl_target, self.config.kl_horizon
        )
        self._approximate_kl: list[float] = []
        self._stopped = False
        self._last_shown: tuple[Tensor, Metrics] | None = None
        self._score_scale: tuple[float, float] | None = None
        self._environment = environment
        if self.model is not None:
            self._add_companions(value_function(self.model, value, self.config))

    def setup(self, stage: str) -> None:
        """Takes prompts and reward from the datamodule."""
        if stage == "fit" and self._environment is None:
            data = self.datamodule
            self._environment = Environment(
                self.config, data.tokenizer, data.feedback.prompts, data.feedback.reward,
                self.description.get("seed", 0), ProcessGroup(self.trainer.global_rank, self.trainer.world_size),
            )  # fmt: skip

    def configure_model(self) -> None:
        """Builds policy, value function and reference; without a trainer their weights follow from a checkpoint."""
        if self.model is not None:
            return
        super().configure_model()
        if self._trainer is None:
            value = saved_value_function(self.model, self.hparams["value_architecture"], self.config)
        else:
            value = value_function(self.model, self.datamodule.feedback.value, self.config)
        self._add_companions(value)

    def _add_companions(self, value: nn.Module | None) -> None:
        """The value function, and the policy as it is now as the reference."""
        self.value = value
        if isinstance(value, ScalarModel):
            if adapter := self.description.get("adapter"):
                attach(value, adapter, seed=self.description.get("seed", 0))
            self.hparams["value_architecture"] = describe_model(value)["architecture"]
        if adapted(self.model):
            self._frozen = (without_adapter(self.model),)
        else:
            self._frozen = (copy.deepcopy(self.model).eval().requires_grad_(False),)
        self.train()  # without dropout, in the value function too

    @property
    def environment(self) -> Environment:
        if self._environment is None:
            raise ConfigError(
                "This policy has neither prompts nor a reward.", "Give it to a Trainer with a PolicyData datamodule."
            )
        return self._environment

    @property
    def reference(self) -> LanguageModel:
        return self._frozen[0]

    @property
    def kl_coefficient(self) -> float:
        return self.controller.coefficient

    def loader(self, schedule: RolloutSchedule) -> RolloutLoader:
        """The batches of this process."""
        environment = self.environment
        return RolloutLoader(
            lambda iteration: self.collect(iteration, schedule), schedule, seed=environment.seed,
            group=environment.group,
        )  # fmt: skip

    # Sampling ---------------------------------------------------------------------------------------------------------

    def collect(self, iteration: int, schedule: RolloutSchedule) -> Collected:
        """Completions of the policy as it is now, their advantages, and what they show.

        Raises `StageError` where a reward is not a finite number or a prompt leaves no room for a completion.
        """
        environment = self.environment
        with self._precision():
            if environment.score_scale is None:  # the very beginning
                scale = environment.calibrate(self.reference)
                if self.config.value_init == "reward" and isinstance(self.value, ScalarModel):
                    expect_standardized(self.value, *scale)
            completions, scores = environment.completions(self.model, iteration, schedule.rollout_batch_size)
        rollouts, metrics = collect_rollouts(self, environment, schedule, completions, scores, self.kl_coefficient)
        for name in ("objective/kl", "objective/scores"):
            metrics[name] = self._over_processes(metrics[name])
        drawn = schedule.rollout_batch_size * environment.group.size
        metrics["episode"] = float((iteration + 1) * drawn)
        self.controller.update(metrics["objective/kl"], drawn)
        return rollouts, metrics

    def look_back(self, rollouts: Rollouts) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Log-probabilities, values and entropies under the weights as they are, and log-probabilities under the
        reference, without gradients. They are on meanwhile: with them the core takes its faster path of training, whose
        numbers are the very ones that the first step will compute again."""
        with torch.enable_grad(), self._precision():
            log_probs, values, entropy = self.evaluate(rollouts, entropy=True)
            log_probs, values = log_probs.detach(), None if values is None else values.detach()
            assert entropy is not None
            return log_probs, values, entropy.detach(), self.reference_log_probs(rollouts).detach()

    def reference_log_probs(self, rollouts: Rollouts) -> Tensor:
        """Of the completions' tokens under the reference, `(B, S)`."""
        return token_statistics(
            self.reference, self.reference.core(rollouts.tokens), rollouts.tokens, rollouts.mask,
            temperature=self.config.temperature,
        )[0]  # fmt: skip

    # Learning ---------------------------------------------------------------------------------------------------------

    def evaluate(self, rollouts: Rollouts, *, entropy: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities, values and entropies of the completion tokens under the weights as they are, `(B, S)`."""
        hidden = self.model.core(rollouts.tokens)
        log_probs, spread = token_statistics(
            self.model, hidden, rollouts.tokens, rollouts.mask, temperature=self.config.temperature, entropy=entropy
        )
        if self.value is None:
            return log_probs, None, spread
        values = expected_rewards(self.value, rollouts.tokens, hidden)
        return log_probs, scattered(values[rollouts.mask], rollouts.mask), spread

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
        return 0.0 * torch.stack([one.sum() for one in self.parameters() if one.requires_grad]).sum()

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
                "loss/policy_avg": policy_loss.detach(),
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
            self._approximate_kl.append(self._over_processes(float(approximate_kl)))
        metrics |= {name: loss.new_tensor(value) for name, value in batch.metrics.items()}
        self._last_shown = (loss.detach(), metrics)
        return loss * batch.weight, metrics

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

    def on_fit_start(self) -> None:
        """The reference computes where and in which number format the policy does: their KL begins at 0. So
        does a learned reward."""
        self.reference.to(self.device, self.model.head_weight.dtype)
        reward_model = getattr(self.environment.reward, "model", None)
        if isinstance(reward_model, nn.Module):
            reward_model.to(self.device)
        if self._score_scale is not None:
            self.environment.score_scale = self._score_scale

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.trainer.global_step == 0 and (measured := self._measured()):
            self._send(measured, 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["policy"] = {
            "kl_coefficient": self.kl_coefficient,
            "score_scale": self.environment.score_scale,
            "stopped": self._stopped,
            "last_shown": None,
        }
        if self._last_shown is not None:
            loss, metrics = self._last_shown
            checkpoint["policy"]["last_shown"] = float(loss), {name: float(value) for name, value in metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["policy"]
        self.controller.load_state_dict({"coefficient": state["kl_coefficient"]})
        self._stopped = state["stopped"]
        if (scale := state["score_scale"]) is not None:
            self._score_scale = scale[0], scale[1]
        if state["last_shown"] is not None:
            loss, metrics = state["last_shown"]
            self._last_shown = torch.tensor(loss), {name: torch.tensor(value) for name, value in metrics.items()}

    # Validation -------------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measures the policy on held-out prompts; the loader has one batch, which stands for them all."""

    def on_validation_epoch_end(self) -> None:
        self.log_values(self._measured())

    def _measured(self) -> dict[str, float]:
        """Values of the policy on held-out prompts; none where no datamodule brings any."""
        feedback = getattr(self.datamodule, "feedback", None)
        if feedback is None:
            return {}
        values = feedback.measure(self.model, self.reference)
        return {f"validation/{name}": value for name, value in values.items()}

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        """Greedy completions of held-out prompts."""
        data = self.datamodule
        held_out = data.feedback.held_out[:_SAMPLES]
        completions = sample_completions(
            self.model, data.tokenizer, held_out, max_tokens=self.config.max_completion_length, temperature=0.0
        )
        return [
            {"prompt": prompt.messages[-1]["content"], "text": completion.answer}
            for prompt, completion in zip(held_out, completions, strict=True)
        ]

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """Training's number format, where a trainer is attached."""
        trainer = self._trainer
        return contextlib.nullcontext() if trainer is None else trainer.precision_plugin.forward_context()

    def _over_processes(self, value: float) -> float:
        """The mean over all processes."""
        if self.environment.group.size == 1:
            return value
        mean = self.trainer.strategy.reduce(torch.tensor(value, device=self.device), reduce_op="mean")
        return float(mean)
