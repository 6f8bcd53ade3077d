"""What a model costs: parameters and FLOPs, counted exactly, by two conventions that are never mixed. Free of torch.

`N` and `C` of a law are by default core + head parameters and exact training FLOPs; `kaplan_compute` is 6 N D with the
core's parameters alone, to reproduce the literature.
"""

from dataclasses import dataclass

from maquette.model.architecture import CoreConfig, ParameterCount


def count_parameters(config: CoreConfig) -> ParameterCount:
    """Exact numbers of parameters of `LanguageModel(config)`, from its shape alone."""
    return config.parameters()


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations by part; a multiplication and an addition are two. `core` holds the products with the
    core's matrices, `attention` those of queries, keys and values with one another, `head` those with the head."""

    core: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        return self.core + self.attention + self.head


def forward_flops(config: CoreConfig, tokens: int, context: int) -> FlopCount:
    """FLOPs of the matrix products of one forward pass over `tokens` tokens in sequences of `context`.

    Attention is counted by the convention of Hoffmann et al. 2022 (appendix F) and Chowdhery et al. 2022 (appendix B):
    every query meets all `context` keys, although a causal kernel may skip those ahead of it. Norms, activations,
    softmax and look-ups are not counted; no more are numbers recomputed to save memory.
    """
    core, attention = config.forward_flops(tokens, context)
    return FlopCount(core=core, attention=attention, head=2 * tokens * config.vocab_size * config.hidden_size)


def training_flops(config: CoreConfig, tokens: int, context: int) -> FlopCount:
    """FLOPs of forward and backward over `tokens` tokens: each product of the forward pass needs two in the backward
    pass, one for the gradient of either factor. For the rest see `forward_flops`."""
    forward = forward_flops(config, tokens, context)
    return FlopCount(core=3 * forward.core, attention=3 * forward.attention, head=3 * forward.head)


def kaplan_compute(config: CoreConfig, tokens: int) -> int:
    """Training FLOPs as Kaplan et al. 2020 count them (section 2.1): 6 N D with N the parameters of the core alone."""
    return 6 * count_parameters(config).core * tokens
