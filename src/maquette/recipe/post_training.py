"""The recipe after pretraining: from examples, or from prompts and rollouts, to every number of a run. Free of torch.

Peak learning rates are shares of what the recipe pretrains a model of this width with (objectives.py). Weights are not
decayed unless told so: the run is short and begins at weights worth keeping.
"""

from maquette.artifacts import ConfigError
from maquette.model.core_config import CoreConfig, FlopCount, ParameterCount, count_parameters, training_flops
from maquette.recipe.objectives import ObjectiveEntry
from maquette.recipe.pretraining import Recipe
from maquette.recipe.rules import DEFAULT_RULES, HyperparameterRules

_FORWARDS = 4
"""Passes of an iteration that only look: sampling, the policy's log-probabilities, the reference's, and the reward."""


def resolve_examples(
    objective: ObjectiveEntry,
    architecture: CoreConfig,
    *,
    examples: int,
    tokens: int,
    answer_tokens: int,
    epochs: float,
    batch_size: int,
    learning_rate: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    rules: HyperparameterRules = DEFAULT_RULES,
) -> Recipe:
    """The recipe of `epochs` passes over `examples` of `tokens` tokens in all, `answer_tokens` of which have logits.

    `batch_size` counts examples, or pairs of them where the objective reads preferences. FLOPs are those of forward and
    backward passes, at the examples' mean length. Raises `ConfigError` where nothing would be trained on.
    """
    units = examples // 2 if objective.reads == "preferences" else examples
    if epochs <= 0:
        raise ConfigError(f"objective.epochs={epochs:g} trains on nothing.", "Allowed: more than 0.")
    steps = max(1, round(epochs * units / batch_size))
    batch_size_tokens = max(1, round(batch_size * tokens / units))
    parameters = count_parameters(architecture)
    flops = training_flops(architecture, steps * batch_size_tokens, max(1, round(tokens / examples)))
    if objective.scalar:
        parameters = ParameterCount(parameters.embedding, parameters.core, architecture.hidden_size + 1)
        head = 6 * architecture.hidden_size * steps * batch_size * 2
    else:
        head = round(flops.head * answer_tokens / tokens)
    return Recipe(
        architecture=architecture,
        parameters=parameters,
        tokens=steps * batch_size_tokens,
        steps=steps,
        batch_size_tokens=batch_size_tokens,
        learning_rate=_rate(objective, architecture, rules) if learning_rate is None else learning_rate,
        warmup=rules.warmup if warmup is None else warmup,
        weight_decay=0.0 if weight_decay is None else weight_decay,
        flops=FlopCount(flops.core, flops.attention, head),
    )


def resolve_policy(
    objective: ObjectiveEntry,
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
    batch_size_tokens = max(1, rollout_batch_size // num_minibatches) * row_tokens
    learning = training_flops(architecture, num_iterations * rollout_batch_size * row_tokens, row_tokens)
    share = ppo_epochs * (1 + has_value) + (_FORWARDS + has_value) / 3
    return Recipe(
        architecture=architecture,
        parameters=count_parameters(architecture),
        tokens=steps * batch_size_tokens,
        steps=steps,
        batch_size_tokens=batch_size_tokens,
        learning_rate=_rate(objective, architecture, rules) if learning_rate is None else learning_rate,
        warmup=rules.warmup if warmup is None else warmup,
        weight_decay=0.0 if weight_decay is None else weight_decay,
        flops=FlopCount(round(learning.core * share), round(learning.attention * share), round(learning.head * share)),
    )


def _rate(objective: ObjectiveEntry, architecture: CoreConfig, rules: HyperparameterRules) -> float:
    return objective.learning_rate * rules.peak_learning_rate(architecture.hidden_size, rules.base_batch_size_tokens)
