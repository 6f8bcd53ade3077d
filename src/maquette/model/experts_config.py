"""The shape of a mixture of experts: what a sparse transformer has in place of one feed-forward. Free of torch.

A token goes through `num_experts_per_tok` of `num_experts` feed-forwards and through the shared ones, so that a model
has more parameters than it uses for a token. N and C of a law count what a token uses (the *active* ones); the others
are `ParameterCount.inactive`.
"""

from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError


@dataclass(frozen=True)
class ExpertSettings:
    """The fields that a sparse transformer has beside the dense one's; names are those of `transformers`, where it has
    them. `intermediate_size` is that of one expert.

    `norm_topk_prob`: the weights of a token's experts are divided by their sum (Mixtral, Qwen3-MoE), or are the
    router's probabilities as they are (Switch Transformers, OLMoE). `n_shared_experts`: feed-forwards of an expert's
    width that every token goes through (DeepSeekMoE, Dai et al. 2024, section 3.2), kept as one.
    `router_aux_loss_coef`, `router_z_loss_coef`: weights of the two losses of `routing.py`.
    `router_bias_update_rate`: balances without a loss, `routing.balanced_bias`; 0 leaves it out.
    """

    num_experts: int = 8
    num_experts_per_tok: int = 2
    n_shared_experts: int = 0
    norm_topk_prob: bool = True
    router_aux_loss_coef: float = 0.01
    router_z_loss_coef: float = 0.001
    router_bias_update_rate: float = 0.0

    @property
    def active_experts(self) -> int:
        """Experts that a token goes through, with the shared ones."""
        return self.num_experts_per_tok + self.n_shared_experts

    @property
    def idle_experts(self) -> int:
        """Experts that a token does not go through."""
        return self.num_experts - self.num_experts_per_tok

    def check_experts(self, *, activation: str, bias: bool) -> None:
        """Raises `ConfigError` where there are too few experts, or they can't be what the transformer asks for."""
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ConfigError(
                f"num_experts_per_tok={self.num_experts_per_tok} of num_experts={self.num_experts} is not possible.",
                "A token goes through at least one expert, and at most through all.",
            )
        for name in ("n_shared_experts", "router_aux_loss_coef", "router_z_loss_coef", "router_bias_update_rate"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is out of range.", "Allowed: at least 0.")
        if activation != "swiglu" or bias:
            raise ConfigError(
                f"Experts are SwiGLU without biases; activation={activation}, bias={str(bias).lower()}.",
                "Leave both as they are in conf/model/moe.yaml, or use a dense model.",
            )
