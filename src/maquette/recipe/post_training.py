"""The recipe after pretraining: from examples, or from prompts and rollouts, to every number of a run. Free of torch.

Peak learning rates are shares of what the recipe pretrains a model of this width with (objectives.py); in muP every
parameter has its share of it as in pretraining. An adapter learns up to ten times as fast. Weights are not decayed
unless told so: the run is short and begins at weights worth keeping.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maquette.artifacts import ConfigError
from maquette.model.architecture import MixtureOfExpertsConfig, TransformerConfig
from maquette.model.core_config import CoreConfig, FlopCount, ParameterCount, count_parameters, training_flops
from maquette.recipe.objectives import ObjectiveEntry
from maquette.recipe.pretraining import Recipe, check_parametrization
from maquette.recipe.rules import HyperparameterRules

_FORWARDS = 4
"""Passes of an iteration that only look: sampling, the policy's log-probabilities, the reference's, and the reward."""

_ADAPTER_RATE, _ADAPTER_WIDTH, _ADAPTER_EXPONENT = 10.0, 2000, 0.35
"""Peak learning rate of an adapter over that of all weights: about 10 whatever the rank for models of some 2,000
channels and more (Schulman et al. 2025, "LoRA Without Regret"). Rates for all weights fall faster with the width than
the best ones for adapters: at width 64 it is 3 (benchmarks/adapter_rates.py), at SmolLM2's 576 here 6."""

_FROZEN = 2 / 3
"""FLOPs of a matrix that is not trained over those of one that is: its own gradient is not taken."""


@dataclass(frozen=True)
class PostTraining:
    """What is trained further, and what is given of the recipe's numbers; those left None follow from the rules."""

    objective: ObjectiveEntry
    architecture: CoreConfig
    learning_rate: float | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    rules: HyperparameterRules = field(default_factory=HyperparameterRules)
    adapter: Mapping[str, Any] | None = None

    def over_examples(
        self, *, examples: int, tokens: int, answer_tokens: int, epochs: float, batch_size: int
    ) -> Recipe:
        """The recipe of `epochs` passes over `examples` of `tokens` tokens in all, `answer_tokens` of which have
        logits.

        `batch_size` counts examples, or pairs of them where the objective reads preferences. FLOPs are those of forward
        and backward passes, at the examples' mean length. Raises `ConfigError` where nothing would be trained on.
        """
        units = examples // 2 if self.objective.reads_pairs else examples
        if epochs <= 0:
            raise ConfigError(f"objective.epochs={epochs:g} trains on nothing.", "Allowed: more than 0.")
        steps = max(1, round(epochs * units / batch_size))
        batch_size_tokens = max(1, round(batch_size * tokens / units))
        parameters, width = count_parameters(self.architecture), self.architecture.hidden_size
        flops = self._learning(steps * batch_size_tokens, max(1, round(tokens / examples)))
        head = round(flops.head * answer_tokens / tokens)
        if self.objective.scalar:
            parameters = ParameterCount(parameters.embedding, parameters.core, width + 1)
            head = 6 * width * steps * batch_size * 2
        return self._recipe(parameters, steps, batch_size_tokens, FlopCount(flops.core, flops.attention, head))

    def of_policy(
        self,
        *,
        num_iterations: int,
        rollout_batch_size: int,
        ppo_epochs: int,
        num_minibatches: int,
        row_tokens: int,
        has_value: bool,
    ) -> Recipe:
        """`num_iterations` of `rollout_batch_size` completions, each of about `row_tokens` tokens with its prompt,
        learned from `ppo_epochs` times in `num_minibatches` steps. `has_value`: a value function of the policy's size
        learns beside it.

        FLOPs count everything: sampling, scoring, and the forward and backward passes of learning.
        """
        steps = num_iterations * ppo_epochs * num_minibatches
        batch_size_tokens = max(1, rollout_batch_size // num_minibatches) * row_tokens
        tokens = num_iterations * rollout_batch_size * row_tokens
        once, learning = training_flops(self.architecture, tokens, row_tokens), self._learning(tokens, row_tokens)
        passes, looks = ppo_epochs * (1 + has_value), (_FORWARDS + has_value) / 3
        core, attention, head = (
            round(getattr(learning, part) * passes + getattr(once, part) * looks)
            for part in ("core", "attention", "head")
        )
        return self._recipe(
            count_parameters(self.architecture), steps, batch_size_tokens, FlopCount(core, attention, head)
        )

    def _learning(self, tokens: int, context: int) -> FlopCount:
        """Of forward and backward passes. With an adapter the model's own matrices are not trained: no gradient of
        theirs is taken, and the adapter's products come on top."""
        flops = training_flops(self.architecture, tokens, context)
        if not self.adapter:
            return flops
        added = 6 * tokens * adapter_parameters(self.architecture, self.adapter)
        return FlopCount(round(flops.core * _FROZEN) + added, flops.attention, round(flops.head * _FROZEN))

    def _recipe(self, parameters: ParameterCount, steps: int, batch_size_tokens: int, flops: FlopCount) -> Recipe:
        rules, architecture = self.rules, self.architecture
        check_parametrization(architecture, rules)
        peak = rules.peak_learning_rate(architecture.hidden_size, rules.base_batch_size_tokens)
        learning_rate = self.objective.learning_rate * architecture.lr_multiplier * peak
        if self.adapter:
            width = min(architecture.hidden_size, _ADAPTER_WIDTH)
            learning_rate *= _ADAPTER_RATE * (width / _ADAPTER_WIDTH) ** _ADAPTER_EXPONENT
        return Recipe(
            architecture=architecture,
            parameters=parameters,
            tokens=steps * batch_size_tokens,
            steps=steps,
            batch_size_tokens=batch_size_tokens,
            learning_rate=learning_rate if self.learning_rate is None else self.learning_rate,
            warmup=rules.warmup if self.warmup is None else self.warmup,
            weight_decay=0.0 if self.weight_decay is None else self.weight_decay,
            flops=flops,
            parametrization=rules.parametrization,
        )


def adapter_parameters(architecture: CoreConfig, adapter: Mapping[str, Any]) -> int:
    """Of A and B on the layers that LoRA is put on, r (inputs + outputs) each; 0 for what has no rank."""
    if not isinstance(architecture, TransformerConfig):
        return 0
    width, inner = architecture.hidden_size, architecture.inner_width
    queries, keys = (
        heads * architecture.width_of_head for heads in (architecture.num_attention_heads, architecture.key_value_heads)
    )
    sums = {"query": width + queries, "key": width + keys, "value": width + keys, "output": queries + width}
    sums |= {"gate": width + inner if architecture.activation == "swiglu" else 0, "up": width + inner}
    sums["down"] = inner + width
    names = adapter.get("target_modules") or list(sums)
    if isinstance(architecture, MixtureOfExpertsConfig):  # whose experts are not adapted
        names = [name for name in names if name not in ("gate", "up", "down")]
    rank = adapter.get("r", 8) if str(adapter.get("_target_", "")).endswith("LoraConfig") else 0
    return int(rank * architecture.num_hidden_layers * sum(sums[name] for name in sums if name in names))
