"""PPO's value function: what reward a completion is expected to bring, before each of its tokens.

`value_init` says what it starts from:

    reward     a copy of the reward model, which knows already what scores well (Stiennon et al. 2020, section 3.4)
    policy     a copy of the policy's core, with a score of zero everywhere
    shared     no model of its own: one number from the policy's hidden state, zero everywhere

Where advantages come from the other completions of a prompt there is none.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.model.adapters import adapted, without_adapter
from maquette.model.architecture import read_architecture
from maquette.model.heads import LanguageModel, ScalarModel
from maquette.model.linear import Linear
from maquette.model.loading import load_checkpoint, load_reward_model
from maquette.objectives.config import PolicyConfig

VALUE_RATE = 10 / 3
"""The value function's learning rate in the policy's, unless it is given."""


def value_function(
    policy: LanguageModel, start: ScalarModel | None, config: PolicyConfig
) -> ScalarModel | nn.Module | None:
    """The value function before its first step. `start`: the reward model, where there is one.

    Raises `ConfigError` where there is no reward model to start from, or it reads other tokens.
    """
    if not config.has_value:
        return None
    if config.value_init == "shared":
        head = Linear(policy.config.hidden_size, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head
    if config.value_init == "policy":
        value = ScalarModel.from_language_model(without_adapter(policy) if adapted(policy) else policy)
        nn.init.zeros_(value.score.weight)
        return value
    if start is None:
        raise ConfigError(
            "value_init=reward, but the reward is not a reward model with the policy's tokenizer.",
            "Use objective.value_init=policy (or shared), or such a reward model.",
        )
    if start.config.vocab_size != policy.config.vocab_size:
        raise ConfigError(
            f"The reward model knows {start.config.vocab_size:,} tokens, the policy {policy.config.vocab_size:,}.",
            "Train the reward model from the same checkpoint.",
        )
    value = ScalarModel(start.config).to(start.score.weight.device)
    value.load_state_dict(start.state_dict())
    return value


def saved_value_function(
    policy: LanguageModel, architecture: Mapping[str, Any] | None, config: PolicyConfig
) -> ScalarModel | nn.Module | None:
    """One that a checkpoint's weights fit; `architecture`: of one with a core of its own."""
    return (
        value_function(policy, None, config) if architecture is None else ScalarModel(read_architecture(architecture))
    )


def value_of_folder(folder: str, config: PolicyConfig) -> ScalarModel:
    """As a run begins with it, of the folder that it started from: the reward model's, or the policy's. Its score is
    trained, and left as it comes."""
    if config.value_init == "reward":
        return load_reward_model(folder)[0]
    return ScalarModel.from_language_model(load_checkpoint(folder)[0])


def expected_rewards(value: nn.Module, tokens: Tensor, hidden: Tensor) -> Tensor:
    """`(B, S)` of `tokens (B, T)`, of which the policy's core made `hidden (B, T, D)`."""
    if isinstance(value, ScalarModel):
        return value(tokens)[:, :-1].float()
    return value(hidden[:, :-1]).squeeze(-1).float()


def expect_standardized(value: ScalarModel, mean: float, deviation: float) -> None:
    """Has a reward model's copy expect scores as they are optimised, standardised: its head gives (r - mean) /
    deviation instead of r. Its level is arbitrary (Bradley-Terry knows differences only), and clipped to
    `clip_range_value` an iteration the value function would take dozens of them to come down to it."""
    with torch.no_grad():
        value.score.weight.div_(deviation)
        value.score.bias.sub_(mean).div_(deviation)
