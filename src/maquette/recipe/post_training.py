"""The recipe after pretraining: from examples, or from prompts and rollouts, to every number of a run. Free of torch.

Peak learning rates are shares of what the recipe pretrains a model of this width with (objectives.py); in muP every
parameter has its share of it as in pretraining. Weights are not decayed unless told so: the run is short and begins at
weights worth keeping.
"""

from dataclasses import dataclass, field

from maquette.artifacts import ConfigError
from maquette.model.core_config import CoreConfig, FlopCount, ParameterCount, count_parameters, training_flops
from maquette.recipe.objectives import ObjectiveEntry
from maquette.recipe.pretraining import Recipe, check_parametrization
from maquette.recipe.rules import HyperparameterRules

_FORWARDS = 4
"""Passes of an iteration that only look: sampling, the policy's log-probabilities, the reference's, and the reward."""


@dataclass(frozen=True)
class PostTraining:
    """What is trained further, and what is given of the recipe's numbers; those left None follow from the rules."""

    objective: ObjectiveEntry
    architecture: CoreConfig
    learning_rate: float | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    rules: HyperparameterRules = field(default_factory=HyperparameterRules)

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
        flops = training_flops(self.architecture, steps * batch_size_tokens, max(1, round(tokens / examples)))
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
        once = training_flops(self.architecture, num_iterations * rollout_batch_size * row_tokens, row_tokens)
        share = ppo_epochs * (1 + has_value) + (_FORWARDS + has_value) / 3
        flops = FlopCount(round(once.core * share), round(once.attention * share), round(once.head * share))
        return self._recipe(count_parameters(self.architecture), steps, batch_size_tokens, flops)

    def _recipe(self, parameters: ParameterCount, steps: int, batch_size_tokens: int, flops: FlopCount) -> Recipe:
        rules, architecture = self.rules, self.architecture
        check_parametrization(architecture, rules)
        peak = rules.peak_learning_rate(architecture.hidden_size, rules.base_batch_size_tokens)
        learning_rate = self.objective.learning_rate * architecture.lr_multiplier * peak
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
