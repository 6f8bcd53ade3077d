"""How initial weights and learning rates depend on a model's width. Free of torch.

In the maximal-update parametrisation (muP) every layer's output moves by the same amount in a step, however wide the
model is, so the best learning rate of a narrow model is that of a wide one (Yang et al. 2022, "Tensor Programs V").
With m = width / `base_hidden_size`, for Adam:

| parameter | deviation x | rate x | table 3 says |
|---|---|---|---|
| embedding, gains, biases, token shift | 1 | 1 | input weights: constant |
| hidden matrices | m^-1/2 | 1/m | variance 1/fan_in, rate 1/fan_in |
| head, router of experts | 1/m | 1/m | variance 1/fan_in^2, rate 1/fan_in |
| query matrices, further | (W_0/W)^1/2 | (W_0/W)^1/2 | attention logits q.k / W instead of q.k / sqrt(W) |

W is the width of a head and W_0 = `base_head_dim`. This is table 3's form, without multipliers in the forward pass;
the one that attention has there is moved into the query matrix, which under Adam is the same model (lemma J.1: a
multiplier theta is an initial weight and a rate times theta). So a model trained this way is an ordinary one, and its
exported weights give the same logits anywhere. At the base width it starts from, and learns like, the standard one.
"""

import math
from dataclasses import dataclass
from typing import Any

from maquette.model.architecture import TransformerConfig
from maquette.model.core_config import CoreConfig


@dataclass(frozen=True)
class Parametrization:
    """`kind`: standard (nothing depends on width), or mup."""

    kind: str = "standard"
    base_hidden_size: int = 32
    base_head_dim: int = 16

    def deviation_factor(self, name: str, config: CoreConfig) -> float:
        """What the standard deviation of the parameter `name`'s start is multiplied by."""
        if self.kind == "standard":
            return 1.0
        kind, growth = _kind(name), config.hidden_size / self.base_hidden_size
        if kind == "head":  # a score's standard start is 1 / sqrt(width) already
            return 1 / growth if not name.startswith("score") else 1 / math.sqrt(growth)
        if kind != "hidden" or config.kind == "lstm":  # whose standard start is 1 / sqrt(width) already
            return 1.0
        return self._query_factor(name, config) / math.sqrt(growth)

    def rate_factor(self, name: str, model: Any) -> float:
        """What the learning rate of the parameter `name` of `model` is multiplied by under AdamW."""
        if self.kind == "standard":
            return 1.0
        config: CoreConfig = model.config
        if _kind(name) == "constant":
            return 1.0
        return self._query_factor(name, config) * self.base_hidden_size / config.hidden_size

    def _query_factor(self, name: str, config: CoreConfig) -> float:
        if not isinstance(config, TransformerConfig) or not name.endswith("attention.query.weight"):
            return 1.0
        return math.sqrt(self.base_head_dim / config.width_of_head)


STANDARD = Parametrization()


def _kind(name: str) -> str:
    """`hidden` matrices, the `head`'s (or score's), or what stays `constant`."""
    parts = name.split(".")
    if not parts[-1].startswith("weight") or any(part.endswith("norm") for part in parts):
        return "constant"
    if "router" in parts:  # as wide as there are experts, however wide the model is
        return "head"
    if {"layers", "lstm"}.intersection(parts):
        return "hidden"
    return "head" if {"head", "score"}.intersection(parts) else "constant"
