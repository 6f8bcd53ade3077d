"""The recipe after pretraining: from a set of examples to every number of a run that learns from them. Free of torch.

Peak learning rates are shares of what the recipe pretrains a model of this width with: 1 for imitation, a fifth for
reward models, a sixteenth for DPO, which falls apart at more (at width 128: 1.6e-3, 3e-4, 1e-4, which worked on the
embedded tasks; at width 4,096: 5e-5, 1e-5, 3e-6, near what models of seven billion parameters are tuned with).
"""

from maquette.artifacts import ConfigError
from maquette.model.architecture import CoreConfig, ParameterCount
from maquette.model.counts import FlopCount, count_parameters, training_flops
from maquette.recipe.pretraining import Recipe
from maquette.recipe.rules import DEFAULT_RULES, HyperparameterRules

RATES = {"sft": 1.0, "reward": 0.2, "dpo": 1 / 16}
"""Peak learning rate of an objective, as a share of pretraining's."""


def resolve_examples(
    kind: str,
    architecture: CoreConfig,
    *,
    examples: int,
    tokens: int,
    answer_tokens: int,
    pairs: bool,
    epochs: float,
    batch_size: int,
    learning_rate: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    rules: HyperparameterRules = DEFAULT_RULES,
) -> Recipe:
    """The recipe of `epochs` passes over `examples` of `tokens` tokens in all, `answer_tokens` of which have logits.

    `batch_size` counts examples, or pairs of them where they come in `pairs`. Weights are not decayed unless told so:
    the run is short and begins at weights worth keeping. FLOPs are those of forward and backward passes, at the
    examples' mean length. Raises `ConfigError` where nothing would be trained on.
    """
    units = examples // 2 if pairs else examples
    if epochs <= 0:
        raise ConfigError(f"objective.epochs={epochs:g} trains on nothing.", "Allowed: more than 0.")
    steps = max(1, round(epochs * units / batch_size))
    batch_size_tokens = max(1, round(batch_size * tokens / units))
    parameters = count_parameters(architecture)
    flops = training_flops(architecture, steps * batch_size_tokens, max(1, round(tokens / examples)))
    if kind == "reward":  # one number in place of logits
        parameters = ParameterCount(parameters.embedding, parameters.core, architecture.hidden_size + 1)
        head = 6 * architecture.hidden_size * steps * batch_size * 2
    else:
        head = round(flops.head * answer_tokens / tokens)
    rate = RATES[kind] * rules.peak_learning_rate(architecture.hidden_size, rules.base_batch_size_tokens)
    return Recipe(
        architecture=architecture,
        parameters=parameters,
        tokens=steps * batch_size_tokens,
        steps=steps,
        batch_size_tokens=batch_size_tokens,
        learning_rate=rate if learning_rate is None else learning_rate,
        warmup=rules.warmup if warmup is None else warmup,
        weight_decay=0.0 if weight_decay is None else weight_decay,
        flops=FlopCount(flops.core, flops.attention, head),
    )
