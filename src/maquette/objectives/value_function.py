"""PPO's value function: what it starts from, and that it learns faster than the policy."""

import torch
from torch import nn

from maquette.artifacts import ConfigError
from maquette.model import LanguageModel, ScalarModel
from maquette.model.linear import Linear
from maquette.objectives.policy_config import PolicyConfig

VALUE_RATE = 10 / 3
"""The value function's learning rate in the policy's, unless it is given."""


def expect_standardized(value: ScalarModel, mean: float, deviation: float) -> None:
    """Has a reward model's copy expect scores as they are optimised, standardised: its head gives (r - mean) /
    deviation instead of r. Its level is arbitrary (Bradley-Terry knows differences only), and clipped to
    `clip_range_value` an iteration the value function would take dozens of them to come down to it."""
    with torch.no_grad():
        value.score.weight.div_(deviation)
        value.score.bias.sub_(mean).div_(deviation)


def value_function(
    model: LanguageModel, start: ScalarModel | None, config: PolicyConfig
) -> ScalarModel | nn.Module | None:
    """The value function before its first step: a model of its own, or (`value_init=shared`) a head, one number from
    the policy's hidden state; None where advantages need none. But for a reward model's it begins at zero everywhere.

    Raises `ConfigError` where there is no reward model to start from, or it reads other tokens.
    """
    if config.advantage != "value":
        return None
    if config.value_init == "shared":
        head = Linear(model.config.hidden_size, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head
    if config.value_init == "policy":
        value = ScalarModel.from_language_model(model)
        nn.init.zeros_(value.score.weight)
        return value
    if start is None:
        raise ConfigError(
            "value_init=reward, but the reward is no reward model.",
            "Use objective.value_init=policy (or shared), or a reward model.",
        )
    if start.config.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"The reward model knows {start.config.vocab_size:,} tokens, the policy {model.config.vocab_size:,}.",
            "Train the reward model from the same checkpoint.",
        )
    value = ScalarModel(start.config).to(start.score.weight.device)
    value.load_state_dict(start.state_dict())
    return value
