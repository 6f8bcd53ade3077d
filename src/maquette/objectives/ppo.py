"""Proximal policy optimisation from feedback: sample, score, and move towards what scored well, not far from the
reference.

Schulman et al. 2017 for the clipped losses, Ziegler et al. 2019 and Stiennon et al. 2020 for their use on language
models; `advantage=group` is the variant without a value function of Shao et al. 2024.

- One epoch is one iteration: rollouts, then several passes of minibatches (iterations.py).
- One AdamW moves policy and value function, each group at its own rate; Lightning's automatic optimisation does it.
- The reward is any `RewardFunction`; its scores are standardised by those of the reference's answers.
- The policy never has dropout: the ratio of policies is exactly 1 at an iteration's first step.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from maquette.artifacts import ConfigError, StageError
from maquette.data.prompts import PromptSource
from maquette.model import LanguageModel, ScalarModel
from maquette.model.linear import Linear
from maquette.objectives.advantages import group_advantages, token_rewards, value_advantages
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.iterations import Collected, Plan, PolicyIterations
from maquette.objectives.losses import (
    AdaptiveKLController,
    explained_variance,
    kl_estimate,
    masked_mean,
    masked_sum,
    ppo_policy_loss,
    ppo_value_loss,
)
from maquette.objectives.policy_config import PolicyConfig
from maquette.objectives.rewards import Completion, RewardFunction, checked_scores
from maquette.objectives.rollouts import (
    ANSWER_SEEDS,
    PolicyBatch,
    Trajectories,
    answer_statistics,
    sample_answers,
    scattered,
    trajectories_of,
)
from maquette.optimization.groups import parameter_groups

if TYPE_CHECKING:
    from maquette.text import Tokenizer

VALUE_RATE = 10 / 3
"""The value function's learning rate in the policy's, unless it is given."""

_FIRST_CALIBRATION_PROMPT = 1 << 40
"""Prompts that scores are standardised on: far behind those of any iteration."""


@dataclasses.dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1


class ProximalPolicyOptimization(Objective):
    """PPO over a source of prompts. `loader(plan)` gives the batches for Lightning; see the module's docstring.

    `reference`: what divergence is measured from, by default a copy of `model` as it is now. It is not in checkpoints.
    `value`: a model to start the value function from, where the settings want one.
    """

    model: LanguageModel

    def __init__(
        self,
        model: LanguageModel,
        optimization: Optimization,
        config: PolicyConfig,
        *,
        tokenizer: "Tokenizer",
        prompts: PromptSource,
        reward: RewardFunction,
        reference: LanguageModel | None = None,
        value: ScalarModel | None = None,
        seed: int = 0,
        world: World | None = None,
    ) -> None:
        """Raises `ConfigError` where the settings do not go with the models."""
        super().__init__(model, optimization)
        self.config, self.tokenizer, self.prompts, self.reward = config, tokenizer, prompts, reward
        self.seed, self.world = seed, world or World()
        self.value_head: nn.Module | None = None
        self.value: ScalarModel | None = None
        if config.advantage == "value" and config.value_from == "shared":
            self.value_head = Linear(model.config.width, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        elif config.advantage == "value":
            self.value = _value_function(model, value, config)
        # In a tuple, so that it is no submodule: neither trained nor saved.
        self._frozen = (_copy_of(model) if reference is None else reference.eval(),)
        for parameter in self.reference.parameters():
            parameter.requires_grad_(False)
        self.kl_coefficient = config.kl_coefficient
        self.controller: AdaptiveKLController | None = None
        if config.kl_target is not None:
            self.controller = AdaptiveKLController(config.kl_coefficient, config.kl_target, config.kl_horizon)
        self.score_scale: tuple[float, float] | None = None if config.normalize_scores else (0.0, 1.0)
        self._approximate_kl: list[float] = []
        self._stopped = False
        self._last_shown: tuple[Tensor, Metrics] | None = None
        self.train(True)

    @property
    def reference(self) -> LanguageModel:
        return self._frozen[0]

    def train(self, mode: bool = True) -> "ProximalPolicyOptimization":
        """Dropout stays off: with it two passes over the same answer would be of two policies."""
        super().train(False)
        self.training = mode
        return self

    def loader(self, plan: Plan) -> PolicyIterations:
        """The batches of this process."""
        return PolicyIterations(lambda iteration: self.collect(iteration, plan), plan, seed=self.seed)

    # Sampling ---------------------------------------------------------------------------------------------------------

    def collect(self, iteration: int, plan: Plan) -> Collected:
        """Answers of the policy as it is now, their advantages, and what they show.

        Raises `StageError` where a reward is not a finite number or a prompt leaves no room for an answer.
        """
        config = self.config
        answers = self.answers(iteration, plan.rollouts)
        scores, standard = self.scored(answers, self._scale(plan))
        rollouts = trajectories_of(answers, self.weights_device)
        reference, entropy = torch.zeros_like(rollouts.log_probs), torch.zeros_like(rollouts.log_probs)
        for rows in plan.groups():
            part = rollouts.select(rows)
            width = part.mask.size(1)
            log_probs, values, spread = self._detached(self._all_statistics, part)
            rollouts.log_probs[rows, :width] = log_probs
            if values is not None:
                rollouts.values[rows, :width] = values
            entropy[rows, :width] = spread
            reference[rows, :width] = self._detached(self._reference_log_probs, part)
        rewards = token_rewards(standard, rollouts.log_probs, reference, rollouts.mask, config, self.kl_coefficient)
        if config.advantage == "group":
            rollouts.advantages = group_advantages(rewards, rollouts.mask, config.group_size)
        else:
            rollouts.advantages, rollouts.returns = value_advantages(rewards, rollouts.values, rollouts.mask, config)
        kl = masked_sum(kl_estimate(rollouts.log_probs, reference), rollouts.mask, dim=1)
        metrics = {
            "objective/kl": self._over_processes(float(kl.mean())),
            "objective/kl_coefficient": self.kl_coefficient,
            "objective/scores": self._over_processes(float(scores.mean())),
            "objective/scores_std": float(scores.std()) if len(scores) > 1 else 0.0,
            "objective/non_score_reward": float(-self.kl_coefficient * kl.mean()),
            "objective/rlhf_reward": float((standard - self.kl_coefficient * kl).mean()),
            "objective/entropy": float(masked_sum(entropy, rollouts.mask, dim=1).mean()),
            "completions/mean_length": float(rollouts.mask.sum(dim=1).float().mean()),
            "completions/eos_rate": sum(answer.ended for answer in answers) / len(answers),
            "episode": float((iteration + 1) * plan.rollouts * self.world.size),
        }
        if config.advantage == "value":
            foretold = explained_variance(rollouts.values, rollouts.returns, rollouts.mask)
            metrics["val/explained_variance"] = float(torch.nan_to_num(foretold))
        if self.controller is not None:
            self.kl_coefficient = self.controller.update(metrics["objective/kl"], plan.rollouts * self.world.size)
        return rollouts, metrics

    def answers(self, iteration: int, count: int) -> list[Completion]:
        """This process's answers of an iteration: a pure function of the policy's weights and the seed."""
        first = iteration * count * self.world.size + self.world.rank * count
        size = self.config.group_size if self.config.advantage == "group" else 1
        prompts = [self.prompts[(first + row) // size] for row in range(count)]
        return self._sample(self.model, prompts, first=iteration * ANSWER_SEEDS + self.world.rank * count)

    def scored(self, answers: Sequence[Completion], scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """The reward's own scores, and what is optimised: standardised, less the penalty for a missing end. `(B,)`
        each."""
        mean, deviation = scale
        scores = torch.tensor(checked_scores(self.reward, answers), dtype=torch.float32, device=self.weights_device)
        endless = torch.tensor([not answer.ended for answer in answers], device=self.weights_device)
        return scores, (scores - mean) / deviation - self.config.missing_end_penalty * endless

    def _scale(self, plan: Plan) -> tuple[float, float]:
        """Mean and standard deviation of the reward over answers of the reference; taken once."""
        if self.score_scale is None:
            count = self.config.normalize_scores
            prompts = [self.prompts[_FIRST_CALIBRATION_PROMPT + number] for number in range(count)]
            answers = self._sample(self.reference, prompts, first=ANSWER_SEEDS << 20)
            scores = torch.tensor(checked_scores(self.reward, answers), dtype=torch.float64)
            deviation = float(scores.std()) if count > 1 else 0.0
            self.score_scale = float(scores.mean()), deviation if deviation > 1e-8 else 1.0
        return self.score_scale

    def _sample(self, model: LanguageModel, prompts: Sequence[Any], *, first: int) -> list[Completion]:
        config = self.config
        longest = max(len(prompt.ids) for prompt in prompts)
        context = self.model.config.context_length
        if longest >= context:
            raise StageError(
                f"A prompt has {longest:,} tokens; the policy's context holds {context:,} with the answer.",
                "Leave such prompts out, or train a model with a longer context.",
            )
        with self._precision():
            return sample_answers(
                model, self.tokenizer, prompts, max_tokens=config.answer_tokens, temperature=config.temperature,
                seed=self.seed, first=first,
            )  # fmt: skip

    # Learning ---------------------------------------------------------------------------------------------------------

    def evaluate(self, rollouts: Trajectories, *, entropy: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities, values and entropies of answer tokens, `(B, S)` each, under the weights as they are."""
        hidden = self.model.core(rollouts.tokens)
        log_probs, spread = answer_statistics(
            self.model, hidden, rollouts, temperature=self.config.temperature, entropy=entropy
        )
        values = None
        if self.value_head is not None:
            values = self.value_head(hidden[:, :-1]).squeeze(-1)
        elif self.value is not None:
            values = self.value(rollouts.tokens)[:, :-1]
        if values is not None:
            values = scattered(values.float()[rollouts.mask], rollouts.mask)
        return log_probs, values, spread

    def training_step(self, batch: PolicyBatch, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        if batch.opens_iteration:
            self._stopped = False
        if batch.opens_minibatch:
            self._approximate_kl.clear()
        if not self._stopped:
            loss = super().training_step(batch, batch_idx)
            if not self._has_gone_too_far():
                return loss
            self._stopped = True
            for parameter in self.parameters():  # what earlier micro-batches of this step have left
                parameter.grad = None
        if not self._shown and self._last_shown is not None:
            self._shown.append(self._last_shown)
        # Without gradients AdamW's step counts, but moves neither weights nor momentum.
        return None

    def loss(self, batch: PolicyBatch) -> tuple[Tensor, Metrics]:
        config, rollouts = self.config, batch.trajectories
        mask = rollouts.mask
        log_probs, values, entropy = self.evaluate(rollouts, entropy=config.entropy_weight > 0)
        policy_loss, clipped = ppo_policy_loss(
            log_probs, rollouts.log_probs, rollouts.advantages, mask, clip=config.clip
        )
        loss = policy_loss
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
                values, rollouts.values, rollouts.returns, mask, clip=config.value_clip
            )
            loss = loss + config.value_weight * value_loss
            metrics |= {"loss/value_avg": value_loss.detach(), "val/clipfrac_avg": value_clipped}
        if entropy is not None:
            mean_entropy = masked_mean(entropy, mask)
            loss = loss - config.entropy_weight * mean_entropy
            metrics["policy/entropy_avg"] = mean_entropy.detach()
        if config.stop_kl is not None:
            self._approximate_kl.append(self._over_processes(float(approximate_kl)))
        metrics |= {name: loss.new_tensor(value) for name, value in batch.metrics.items()}
        self._last_shown = (loss.detach(), metrics)
        return loss * batch.weight, metrics

    def judge(self, batch: PolicyBatch) -> Tensor:
        """Approximate divergence from the policy that sampled, in nats, of each answer token: `(tokens,)`."""
        log_probs, _, _ = self.evaluate(batch.trajectories, entropy=False)
        return (batch.trajectories.log_probs - log_probs)[batch.trajectories.mask]

    def _has_gone_too_far(self) -> bool:
        if self.config.stop_kl is None:
            return False
        return sum(self._approximate_kl) / len(self._approximate_kl) > self.config.stop_kl

    # Wiring -----------------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One AdamW: the policy's matrices (decayed) and the rest of it, and the value function at its own rate.

        Raises `ConfigError` for another optimiser.
        """
        plan = self.optimization
        if plan.config.kind != "adamw":
            raise ConfigError(f"optimizer={plan.config.kind} does not go with objective=ppo.", "Use optimizer=adamw.")
        value_rate = self.config.value_learning_rate
        groups = [
            *_adamw_groups(self.model, plan.learning_rate, plan.weight_decay),
            *_adamw_groups(
                self._value_module,
                VALUE_RATE * plan.learning_rate if value_rate is None else value_rate,
                plan.weight_decay,
            ),
        ]
        optimizer = AdamW(
            groups,
            lr=plan.learning_rate,
            betas=(plan.config.beta1, plan.config.beta2),
            eps=plan.config.eps,
            fused=plan.fused is not False,
        )
        scheduler = LambdaLR(optimizer, lambda step: plan.schedule.step_factor(step, plan.batch_tokens))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips policy and value function apart: their gradients have scales of their own."""
        clip = self.optimization.config.clip
        if clip is None:
            return
        self.gradient_norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        if self._value_module is not None:
            nn.utils.clip_grad_norm_(self._value_module.parameters(), clip)

    def on_fit_start(self) -> None:
        self.reference.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        last = self._last_shown
        checkpoint["policy"] = {
            "kl_coefficient": self.kl_coefficient,
            "score_scale": self.score_scale,
            "controller": None if self.controller is None else self.controller.state_dict(),
            "stopped": self._stopped,
            "last_shown": None if last is None else (float(last[0]), _plain(last[1])),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["policy"]
        self.kl_coefficient, self._stopped = state["kl_coefficient"], state["stopped"]
        self.score_scale = None if state["score_scale"] is None else tuple(state["score_scale"])
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
        if state["last_shown"] is not None:
            loss, metrics = state["last_shown"]
            self._last_shown = torch.tensor(loss), {name: torch.tensor(value) for name, value in metrics.items()}

    @property
    def weights_device(self) -> torch.device:
        return self.model.head_weight.device

    @property
    def _value_module(self) -> nn.Module | None:
        return self.value if self.value is not None else self.value_head

    def _reference_log_probs(self, rollouts: Trajectories) -> Tensor:
        hidden = self.reference.core(rollouts.tokens)
        return answer_statistics(self.reference, hidden, rollouts, temperature=self.config.temperature)[0]

    def _all_statistics(self, rollouts: Trajectories) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.evaluate(rollouts, entropy=True)

    def _detached(self, work: Callable[[Trajectories], Any], rollouts: Trajectories) -> Any:
        """`work(rollouts)` without its gradients. They are on meanwhile: with them the core takes its faster path of
        training, whose numbers are the very ones that the first step will compute again."""
        with torch.enable_grad(), self._precision():
            result = work(rollouts)
        if isinstance(result, tuple):
            return tuple(None if value is None else value.detach() for value in result)
        return result.detach()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """Training's number format, where a trainer is attached."""
        trainer = self._trainer
        return contextlib.nullcontext() if trainer is None else trainer.precision_plugin.forward_context()

    def _over_processes(self, value: float) -> float:
        """The mean over all processes."""
        if self.world.size == 1:
            return value
        mean = self.trainer.strategy.reduce(torch.tensor(value, device=self.device), reduce_op="mean")
        return float(mean)


def _value_function(model: LanguageModel, start: ScalarModel | None, config: PolicyConfig) -> ScalarModel:
    """The value function before its first step. Raises `ConfigError` where there is no reward model to start from, or
    it reads other tokens."""
    if config.value_from == "policy":
        value = ScalarModel.from_language_model(model)
        nn.init.zeros_(value.score.weight)
        return value
    if start is None:
        raise ConfigError(
            "value_from=reward, but the reward is no reward model.",
            "Use objective.value_from=policy (or shared), or a reward model.",
        )
    if start.config.vocabulary_size != model.config.vocabulary_size:
        raise ConfigError(
            f"The reward model knows {start.config.vocabulary_size:,} tokens, the policy "
            f"{model.config.vocabulary_size:,}.",
            "Train the reward model from the same checkpoint.",
        )
    value = ScalarModel(start.config).to(start.score.weight.device)
    value.load_state_dict(start.state_dict())
    return value


def _plain(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _copy_of(model: LanguageModel) -> LanguageModel:
    with torch.device("meta"):
        copy = LanguageModel(model.config)
    copy = copy.to_empty(device=model.head_weight.device).to(model.head_weight.dtype)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _adamw_groups(module: nn.Module | None, rate: float, decay: float) -> list[dict[str, Any]]:
    if module is None:
        return []
    found = parameter_groups(module)
    groups = (
        {"params": found.hidden + found.matrices, "lr": rate, "weight_decay": decay},
        {"params": found.embeddings + found.vectors, "lr": rate, "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]
