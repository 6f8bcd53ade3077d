"""Settings of a model: `conf/model/*.yaml`. Free of torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import is_dotted, plain_arguments, setting
from maquette.artifacts.targets import check_target
from maquette.model.architecture import ACTIVATIONS
from maquette.model.experts_config import ExpertSettings

EXPERTS = tuple(field.name for field in dataclasses.fields(ExpertSettings))
"""Settings of mixtures of experts; null: as in `ExpertSettings`."""

ACTIVATION_CHECKPOINTING = ("none", "block", "selective")
"""How much is computed again in the backward pass; see `maquette.model.activation_checkpointing`."""


@dataclass
class ModelConfig:
    """`conf/model/*.yaml`: the architecture. Sizes left null come from the recipe (`size=`)."""

    kind: str = setting("transformer", "architecture", choices=("transformer", "moe", "lstm"), own=True)
    settings: dict[str, Any] = setting(dict, "of a kind of your own: what it is built with besides its size")
    hidden_size: int | None = setting(None, "width of the residual stream; by default the recipe's", minimum=4)
    num_hidden_layers: int | None = setting(None, "number of layers; by default the recipe's", minimum=1)
    num_attention_heads: int | None = setting(None, "attention heads; by default the recipe's", minimum=1)
    num_key_value_heads: int | None = setting(
        None, "key-value heads: fewer than heads is grouped-query, 1 multi-query", minimum=1
    )
    head_dim: int | None = setting(None, "width of a head; by default hidden_size / heads", minimum=2)
    intermediate_size: int | None = setting(None, "inner width of the feed-forward; by default the recipe's", minimum=4)
    normalization: str = setting("rmsnorm", "normalisation before each block", choices=("rmsnorm", "layernorm"))
    normalization_eps: float = setting(1e-5, "added to the variance", minimum=0.0)
    positions: str = setting("rotary", "how positions are known", choices=("rotary", "learned"))
    rope_theta: float = setting(10_000.0, "base of the rotary frequencies", minimum=1.0)
    activation: str = setting("swiglu", "feed-forward", choices=ACTIVATIONS, own=True)
    attention: str | None = setting(None, "an attention layer of your own, as package.module.Class")
    sliding_window: int | None = setting(
        None, "tokens that each one sees in layers of sliding attention, its own included; by default all", minimum=1
    )
    layer_types: list[str] | None = setting(
        None, "attention of each layer, repeated: sliding_attention, full_attention; by default all alike"
    )
    qk_norm: bool = setting(False, "normalise queries and keys")
    tie_word_embeddings: bool = setting(False, "the head shares the embedding's matrix")
    bias: bool = setting(False, "biases in linear layers")
    logit_softcap: float | None = setting(None, "logits are squashed to +- this by tanh", minimum=1.0)
    token_shift: bool = setting(True, "each embedding takes a learned share of the previous token's")
    dropout: float = setting(0.0, "dropout in embeddings, attention and feed-forward", minimum=0.0, maximum=0.9)
    num_experts: int | None = setting(None, "kind=moe: feed-forwards to choose from", minimum=1)
    num_experts_per_tok: int | None = setting(None, "kind=moe: experts that a token goes through", minimum=1)
    n_shared_experts: int | None = setting(None, "kind=moe: further experts, for every token", minimum=0)
    norm_topk_prob: bool | None = setting(None, "kind=moe: the weights of a token's experts add up to 1")
    router_aux_loss_coef: float | None = setting(None, "kind=moe: weight of the load-balancing loss", minimum=0.0)
    router_z_loss_coef: float | None = setting(None, "kind=moe: weight of the router's z-loss", minimum=0.0)
    router_bias_update_rate: float | None = setting(
        None, "kind=moe: a bias balances loads without a loss, moved by this in a step; 0: none", minimum=0.0
    )

    def validate(self) -> None:
        """Raises `ConfigError` for a user's part that is not there, or settings that mean nothing to it."""
        for name in ("kind", "activation", "attention"):
            value = getattr(self, name)
            if value is not None and is_dotted(value):
                check_target(value, key=f"model.{name}")
        if self.attention is not None and not is_dotted(self.attention):
            raise ConfigError(
                f"model.attention={self.attention} is not the name of a class.",
                "Write it as package.module.Class, or leave it out for the usual attention.",
            )
        if self.kind == "transformer" and (given := [name for name in EXPERTS if getattr(self, name) is not None]):
            raise ConfigError(f"model.{given[0]} means nothing to a dense model.", "Use model=moe.")
        if not is_dotted(self.kind):
            if self.settings:
                raise ConfigError("model.settings belong to a model.kind of your own.", "Leave them out.")
            return
        usual = ModelConfig(kind=self.kind, settings=self.settings)
        meant = ("kind", "settings", "tie_word_embeddings", "logit_softcap")
        for name, value in vars(self).items():
            if name not in meant and value != getattr(usual, name):
                raise ConfigError(
                    f"model.{name} means nothing to model.kind={self.kind}.",
                    f"Give it as model.settings.{name}, if it takes it.",
                )

    @classmethod
    def of_target(cls, node: Mapping[str, Any]) -> "ModelConfig":
        """The settings that a node with a `_target_` of a user's means; its other keys are what it is built with."""
        own = plain_arguments(node)
        shared = {key: own.pop(key) for key in ("tie_word_embeddings", "logit_softcap") if key in own}
        return cls(kind=str(node["_target_"]), settings=own, **shared)

    def foreign_node(self) -> dict[str, Any] | None:
        """The node with a `_target_` of a user's that it means; None of ours."""
        return {"_target_": self.kind, **self.settings} if is_dotted(self.kind) else None

    @property
    def experts(self) -> dict[str, Any] | None:
        """Settings of the experts that are given; None of a dense model."""
        given = {name: getattr(self, name) for name in EXPERTS}
        return {name: value for name, value in given.items() if value is not None} if self.kind == "moe" else None

    @property
    def own_code(self) -> tuple[str, ...]:
        """Dotted names of the user's parts."""
        return tuple(name for name in (self.kind, self.activation, self.attention) if name and is_dotted(name))
