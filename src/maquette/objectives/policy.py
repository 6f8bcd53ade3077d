"""What every objective does that learns from completions of its own: prompts and a reward, the policy's rollouts, the
reference, and what the policy is worth on held-out prompts.

One iteration is one epoch of Lightning's: `collect` samples and scores with the policy as it is (rollouts.py), then the
objective's `loss` learns from minibatches. The policy never has dropout.
"""

import abc
import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.artifacts.progress import say
from maquette.data.process_group import ProcessGroup
from maquette.model.adapters import adapted, without_adapter
from maquette.model.heads import LanguageModel
from maquette.model.sharding import whole
from maquette.objectives.base import Objective, Optimization
from maquette.objectives.completions import sample_completions, token_statistics
from maquette.objectives.config import RolloutConfig
from maquette.objectives.environment import Environment
from maquette.objectives.rollouts import (
    Collected,
    RolloutLoader,
    Rollouts,
    RolloutSchedule,
    collect_rollouts,
)

_SAMPLES = 4
"""Held-out prompts that are answered at each validation, for people to read."""

_MANY_CUT = 0.25
"""Share of completions without an end that is worth a word."""


class PolicyOptimization(Objective):
    """An objective over a source of prompts. `loader(schedule)` gives the batches for Lightning.

    With a trainer, prompts and reward come from its datamodule (`maquette.training.PolicyData`); without one they may
    be given here, as `environment`. The reference, which the KL divergence is measured from, is the model as it is now,
    and in no checkpoint.
    """

    model: LanguageModel
    config: RolloutConfig
    uses_dropout = False
    validates_start = True
    watches_spikes = False

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        optimization: Optimization | Mapping[str, Any],
        config: Any = None,
        *,
        environment: Environment | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, optimization, config, **settings)
        # In a tuple, so that it is not a submodule: neither trained nor saved.
        self._frozen: tuple[LanguageModel, ...] = ()
        self._score_scale: tuple[float, float] | None = None
        self._environment = environment
        if self.model is not None:
            self._freeze_reference()

    def setup(self, stage: str) -> None:
        """Takes prompts and reward from the datamodule."""
        if stage == "fit" and self._environment is None:
            data = self.datamodule
            self._environment = Environment(
                self.config, data.tokenizer, data.feedback.prompts, data.feedback.reward,
                self.description.get("seed", 0), ProcessGroup(self.trainer.global_rank, self.trainer.world_size),
            )  # fmt: skip

    def configure_model(self) -> None:
        """Builds policy and reference; without a trainer the weights follow from a checkpoint."""
        if self.model is None:
            super().configure_model()
            self._freeze_reference()

    def _freeze_reference(self) -> None:
        """Makes the policy as it is now the reference."""
        if adapted(self.model):
            self._frozen = (without_adapter(self.model),)
        else:
            self._frozen = (copy.deepcopy(self.model).eval().requires_grad_(False),)
        self.train()  # without dropout

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
    @abc.abstractmethod
    def kl_coefficient(self) -> float:
        """What a nat from the reference costs, in standardised scores."""

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
                self.on_calibrated(*environment.calibrate(self.reference))
        with whole(self):  # no process waits for another, however long the completions are
            with self._precision():
                completions, scores = environment.completions(self.model, iteration, schedule.rollout_batch_size)
            rollouts, metrics = collect_rollouts(self, environment, schedule, completions, scores)
        metrics["episode"] = float((iteration + 1) * len(completions))
        cut = 1 - metrics["completions/eos_rate"]
        if iteration == 0 and cut >= _MANY_CUT and environment.group.rank == 0:
            say(f"{cut:.0%} of the first completions were cut at {self.config.max_completion_length:,} tokens, and the "
                "policy may learn to end by then; objective.max_completion_length=<tokens> allows more.")  # fmt: skip
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

    def evaluate(self, rollouts: Rollouts, *, entropy: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities, values where there are any, and entropies of the completion tokens under the weights as
        they are, `(B, S)`."""
        log_probs, spread, _ = self.token_statistics(rollouts, entropy=entropy)
        return log_probs, None, spread

    def token_statistics(self, rollouts: Rollouts, *, entropy: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-probabilities and entropies `(B, S)`, and the core's hidden states `(B, T, D)`."""
        hidden = self.model.core(rollouts.tokens)
        log_probs, spread = token_statistics(
            self.model, hidden, rollouts.tokens, rollouts.mask, temperature=self.config.temperature, entropy=entropy
        )
        return log_probs, spread, hidden

    @abc.abstractmethod
    def compute_advantages(self, rollouts: Rollouts, scores: Tensor, ended: Tensor) -> dict[str, float]:
        """See `rollouts.SampledPolicy`."""

    def on_calibrated(self, mean: float, deviation: float) -> None:
        """The scale of the scores is known: once, before the first step."""

    def reference_log_probs(self, rollouts: Rollouts) -> Tensor:
        """Of the completions' tokens under the reference, `(B, S)`."""
        return token_statistics(
            self.reference, self.reference.core(rollouts.tokens), rollouts.tokens, rollouts.mask,
            temperature=self.config.temperature,
        )[0]  # fmt: skip

    # Wiring -----------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """The reference computes where and in which number format the policy does: their KL begins at 0. So
        does a learned reward."""
        compute_dtype = getattr(
            self.trainer.strategy, "compute_dtype", self.model.head_weight.dtype
        )  # of sharded weights
        self.reference.to(self.device, compute_dtype)
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
        checkpoint["policy"] = {"score_scale": self.environment.score_scale}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if (scale := checkpoint["policy"]["score_scale"]) is not None:
            self._score_scale = scale[0], scale[1]

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
        with whole(self), self._precision():
            values = feedback.measure(self.model, self.reference)
        return {f"validation/{name}": value for name, value in values.items()}

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        """Greedy completions of held-out prompts."""
        data = self.datamodule
        held_out = data.feedback.held_out[:_SAMPLES]
        with self._precision():
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
