"""Proximal policy optimisation from feedback: sample, score, and move towards what scored well, not far from the
reference.

Schulman et al. 2017 for the clipped losses, Ziegler et al. 2019 and Stiennon et al. 2020 for their use on language
models; `advantage=group` is the variant without a value function of Shao et al. 2024. One iteration is one epoch:

1. `collect`: the policy as it is answers prompts, and the answers are scored     environment.py, rollouts.py
2. each token gets its reward (score at the end, price of divergence everywhere)
   and its advantage over what the value function expected                        experience.py, advantages.py
3. `loss`: several passes of minibatches, clipped policy and value losses         iterations.py, policy_losses.py

One optimiser moves policy and value function, each at its own rate; Lightning's automatic optimisation does it. The
policy never has dropout: the ratio of policies is exactly 1 at an iteration's first step.
"""

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.data.prompts import PromptSource
from maquette.model import LanguageModel, ScalarModel
from maquette.model.architecture import describe_model, read_architecture
from maquette.model.loading import build_model
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.environment import Environment, World
from maquette.objectives.experience import credit, describe
from maquette.objectives.iterations import Collected, Plan, PolicyIterations
from maquette.objectives.losses import AdaptiveKLController, masked_mean, ppo_policy_loss, ppo_value_loss
from maquette.objectives.policy_config import PolicyConfig
from maquette.objectives.rewards import RewardFunction
from maquette.objectives.rollouts import (
    PolicyBatch,
    Trajectories,
    answer_statistics,
    sample_answers,
    scattered,
    trajectories_of,
)
from maquette.objectives.value_function import VALUE_RATE, expect_standardized, value_function
from maquette.optimization.config import short_name
from maquette.optimization.groups import optimizer_groups
from maquette.optimization.optimizers import wants_hidden_matrices

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_SAMPLES = 4
"""Held-out prompts that are answered at each validation, for people to read."""


class ProximalPolicyOptimization(Objective):
    """PPO over a source of prompts. `loader(plan)` gives the batches for Lightning; see the module's docstring.

    With a trainer, prompts, reward and value function come from its datamodule (`maquette.training.PolicyData`);
    without one they may be given here: `reference`, what the KL divergence is measured from, by default a copy of
    `model` as it is now (it is not in checkpoints); `value`, a model to start the value function from, where the
    settings need one. `value_architecture`: of the value function in a checkpoint.
    """

    model: LanguageModel
    config_class = PolicyConfig
    validates_start = True
    watches_spikes = False

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        optimization: Optimization | Mapping[str, Any],
        config: PolicyConfig | None = None,
        *,
        tokenizer: "Tokenizer | None" = None,
        prompts: PromptSource | None = None,
        reward: RewardFunction | None = None,
        reference: LanguageModel | None = None,
        value: ScalarModel | None = None,
        seed: int = 0,
        world: World | None = None,
        value_architecture: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Raises `ConfigError` where the settings do not go with the models."""
        given = isinstance(model, nn.Module)
        description = describe_model(model) if isinstance(model, nn.Module) else model
        super().__init__(description, optimization, config, **settings)
        self.hparams["value_architecture"] = value_architecture
        self.value: nn.Module | None = None
        # In a tuple, so that it is no submodule: neither trained nor saved.
        self._frozen: tuple[LanguageModel, ...] = ()
        self.kl_coefficient = self.config.kl_coefficient
        self.controller: AdaptiveKLController | None = None
        if self.config.kl_target is not None:
            self.controller = AdaptiveKLController(
                self.config.kl_coefficient, self.config.kl_target, self.config.kl_horizon
            )
        self._approximate_kl: list[float] = []
        self._stopped = False
        self._last_shown: tuple[Tensor, Metrics] | None = None
        self._score_scale: tuple[float, float] | None = None
        self._environment: Environment | None = None
        if tokenizer is not None and prompts is not None and reward is not None:
            self._environment = Environment(self.config, tokenizer, prompts, reward, seed, world or World())
        if given:
            language_model: Any = model
            self._assemble(language_model, value_function(language_model, value, self.config), reference)

    def setup(self, stage: str) -> None:
        """Takes prompts and reward from the datamodule."""
        if stage == "fit" and self._environment is None:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            self._environment = Environment(
                self.config, data.tokenizer, data.feedback.prompts, data.feedback.reward,
                self.description.get("seed", 0), World(self.trainer.global_rank, self.trainer.world_size),
            )  # fmt: skip

    def configure_model(self) -> None:
        """Builds policy, value function and reference; without a trainer their weights follow from a checkpoint."""
        if self.model is not None:
            return
        if self._trainer is None:
            policy: Any = build_model(self.description, weights=False)
            self._assemble(policy, self._empty_value(policy), None)
            return
        data: Any = self.trainer.datamodule
        start: Any = build_model(self.description)
        reference: Any = build_model(self.description)
        self._assemble(start, value_function(start, data.feedback.value, self.config), reference)

    def _empty_value(self, policy: LanguageModel) -> nn.Module | None:
        architecture = self.hparams["value_architecture"]
        if architecture is None:
            return value_function(policy, None, self.config)
        return ScalarModel(read_architecture(architecture))

    def _assemble(self, model: LanguageModel, value: nn.Module | None, reference: LanguageModel | None) -> None:
        self.set_model(model)
        self.value = value
        if isinstance(value, ScalarModel):
            self.hparams["value_architecture"] = describe_model(value)["architecture"]
        self._frozen = (copy.deepcopy(model).eval() if reference is None else reference.eval(),)
        for parameter in self.reference.parameters():
            parameter.requires_grad_(False)
        self.train(True)

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

    def train(self, mode: bool = True) -> "ProximalPolicyOptimization":
        """Dropout stays off: with it two passes over the same answer would be of two policies."""
        super().train(False)
        self.training = mode
        return self

    def loader(self, plan: Plan) -> PolicyIterations:
        """The batches of this process."""
        environment = self.environment
        return PolicyIterations(
            lambda iteration: self.collect(iteration, plan), plan, seed=environment.seed, world=environment.world
        )

    # Sampling ---------------------------------------------------------------------------------------------------------

    def collect(self, iteration: int, plan: Plan) -> Collected:
        """Answers of the policy as it is now, their advantages, and what they show.

        Raises `StageError` where a reward is not a finite number or a prompt leaves no room for an answer.
        """
        environment, device = self.environment, self.model.head_weight.device
        with self._precision():
            if environment.score_scale is None:
                self._calibrate()
            answers = environment.answers(self.model, iteration, plan.rollouts)
        scores = environment.scores(answers)
        standardized = environment.standardized(scores, answers).to(device)
        rollouts = trajectories_of(answers, device)
        entropy, reference = self._look_back(rollouts, plan)
        credit(rollouts, standardized, reference, self.config, self.kl_coefficient)
        metrics = describe(
            rollouts, answers, scores=scores, standardized=standardized, reference=reference, entropy=entropy,
            config=self.config, kl_coefficient=self.kl_coefficient,
        )  # fmt: skip
        for name in ("objective/kl", "objective/scores"):
            metrics[name] = self._over_processes(metrics[name])
        drawn = plan.rollouts * environment.world.size
        metrics["episode"] = float((iteration + 1) * drawn)
        if self.controller is not None:
            self.kl_coefficient = self.controller.update(metrics["objective/kl"], drawn)
        return rollouts, metrics

    def _calibrate(self) -> None:
        """Takes the scale of the scores, at the very beginning; a value function from a reward model takes it over."""
        scale = self.environment.calibrate(self.reference)
        if self.config.value_init == "reward" and isinstance(self.value, ScalarModel):
            expect_standardized(self.value, *scale)

    def _look_back(self, rollouts: Trajectories, plan: Plan) -> tuple[Tensor, Tensor]:
        """Fills in the policy's log-probabilities and values; returns its entropy and the reference's log-probabilities
        at the same tokens, `(N, S)` each. Row by row in the groups that the first pass will train on."""
        entropy, reference = torch.zeros_like(rollouts.log_probs), torch.zeros_like(rollouts.log_probs)
        for rows in plan.groups():
            part = rollouts.select(rows)
            width = part.mask.size(1)
            log_probs, values, spread = self._detached(lambda one: self.evaluate(one, entropy=True), part)
            rollouts.log_probs[rows, :width] = log_probs
            if values is not None:
                rollouts.values[rows, :width] = values
            entropy[rows, :width] = spread
            reference[rows, :width] = self._detached(self.reference_log_probs, part)
        return entropy, reference

    def reference_log_probs(self, rollouts: Trajectories) -> Tensor:
        """Of the answer tokens under the reference, `(B, S)`."""
        hidden = self.reference.core(rollouts.tokens)
        return answer_statistics(self.reference, hidden, rollouts, temperature=self.config.temperature)[0]

    # Learning ---------------------------------------------------------------------------------------------------------

    def evaluate(self, rollouts: Trajectories, *, entropy: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities, values and entropies of answer tokens, `(B, S)` each, under the weights as they are."""
        hidden = self.model.core(rollouts.tokens)
        log_probs, spread = answer_statistics(
            self.model, hidden, rollouts, temperature=self.config.temperature, entropy=entropy
        )
        values = None
        if isinstance(self.value, ScalarModel):
            values = self.value(rollouts.tokens)[:, :-1]
        elif self.value is not None:
            values = self.value(hidden[:, :-1]).squeeze(-1)
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
            self._drop_gradients()  # what earlier micro-batches of this step have left
        if not self._seen and self._last_shown is not None:
            self._seen.append(self._last_shown)
        # Without gradients AdamW's step counts, but moves neither weights nor momentum.
        if self.environment.world.size == 1:
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

    def loss(self, batch: PolicyBatch) -> tuple[Tensor, Metrics]:
        config, rollouts = self.config, batch.trajectories
        mask = rollouts.mask
        log_probs, values, entropy = self.evaluate(rollouts, entropy=config.ent_coef > 0)
        policy_loss, clipped = ppo_policy_loss(
            log_probs, rollouts.log_probs, rollouts.advantages, mask, clip_range=config.clip_range
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
        groups = optimizer_groups(self.model, learning_rate=plan.learning_rate, weight_decay=plan.weight_decay)
        if self.value is not None:
            given = self.config.value_learning_rate
            rate = VALUE_RATE * plan.learning_rate if given is None else given
            groups += optimizer_groups(self.value, learning_rate=rate, weight_decay=plan.weight_decay)
        return plan.configure_groups(groups)

    def on_fit_start(self) -> None:
        """The reference computes where and in which number format the policy does: their divergence begins at 0. So
        does a learned reward."""
        self.reference.to(self.device, self.model.head_weight.dtype)
        judge = getattr(self.environment.reward, "model", None)
        if isinstance(judge, nn.Module):
            judge.to(self.device)
        if self._score_scale is not None:
            self.environment.score_scale = self._score_scale

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.trainer.global_step == 0 and (measured := self._measured()):
            self._send(measured, 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        last = self._last_shown
        checkpoint["policy"] = {
            "kl_coefficient": self.kl_coefficient,
            "score_scale": self.environment.score_scale,
            "controller": None if self.controller is None else self.controller.state_dict(),
            "stopped": self._stopped,
            "last_shown": None if last is None else (float(last[0]), _plain(last[1])),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["policy"]
        self.kl_coefficient, self._stopped = state["kl_coefficient"], state["stopped"]
        scale = state["score_scale"]
        self._score_scale = None if scale is None else (scale[0], scale[1])
        if self._environment is not None:
            self._environment.score_scale = self._score_scale
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
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
        feedback = getattr(self.trainer.datamodule, "feedback", None)  # type: ignore[attr-defined]
        if feedback is None:
            return {}
        values = feedback.measure(self.model, self.reference)
        return {f"validation/{name}": value for name, value in values.items()}

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        """Greedy completions of held-out prompts."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        held_out = data.feedback.held_out[:_SAMPLES]
        answers = sample_answers(
            self.model, data.tokenizer, held_out, max_tokens=self.config.max_completion_length, temperature=0.0
        )
        return [
            {"prompt": prompt.messages[-1]["content"], "text": answer.answer}
            for prompt, answer in zip(held_out, answers, strict=True)
        ]

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
        if self.environment.world.size == 1:
            return value
        mean = self.trainer.strategy.reduce(torch.tensor(value, device=self.device), reduce_op="mean")
        return float(mean)


def _plain(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
