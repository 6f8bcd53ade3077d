"""The recipe of policy optimisation: its steps, its rates and what it costs. Free of torch."""

from maquette.model.architecture import CoreConfig
from maquette.model.counts import FlopCount, count_parameters, training_flops
from maquette.recipe.pretraining import Recipe
from maquette.recipe.rules import DEFAULT_RULES, HyperparameterRules

RATE = 0.2
"""Peak learning rate of a policy, as a share of what the recipe pretrains a model of its width with (at width 128:
3e-4, which worked on the embedded tasks)."""

_FORWARDS = 4
"""Passes of an iteration that only look: sampling, the policy's log-probabilities, the reference's, and the reward."""


def resolve_policy(
    architecture: CoreConfig,
    *,
    num_iterations: int,
    rollout_batch_size: int,
    ppo_epochs: int,
    num_minibatches: int,
    row_tokens: int,
    has_value: bool,
    learning_rate: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    rules: HyperparameterRules = DEFAULT_RULES,
) -> Recipe:
    """`num_iterations` of `rollout_batch_size` completions, each of about `row_tokens` tokens with its prompt, learned
    from `ppo_epochs` times in `num_minibatches` steps. `has_value`: a value function of the policy's size learns
    beside it.

    FLOPs count everything: sampling, scoring, and the forward and backward passes of learning.
    """
    steps = num_iterations * ppo_epochs * num_minibatches
    tokens = num_iterations * rollout_batch_size * row_tokens
    learning = training_flops(architecture, tokens, row_tokens)
    forward = _FORWARDS + has_value
    share = ppo_epochs * (1 + has_value) + forward / 3
    return Recipe(
        architecture=architecture,
        parameters=count_parameters(architecture),
        tokens=steps * max(1, rollout_batch_size // num_minibatches) * row_tokens,
        steps=steps,
        batch_size_tokens=max(1, rollout_batch_size // num_minibatches) * row_tokens,
        learning_rate=RATE * rules.peak_learning_rate(architecture.hidden_size, rules.base_batch_size_tokens)
        if learning_rate is None
        else learning_rate,
        warmup=rules.warmup if warmup is None else warmup,
        weight_decay=0.0 if weight_decay is None else weight_decay,
        flops=FlopCount(round(learning.core * share), round(learning.attention * share), round(learning.head * share)),
    )
