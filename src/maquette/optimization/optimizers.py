"""The optimisers: AdamW for everything, or Muon for hidden matrices with AdamW for the rest."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from maquette.model.parametrization import STANDARD, Parametrization
from maquette.optimization.config import OptimizerConfig
from maquette.optimization.groups import Kinds, parameter_groups

_DEVICES_WITH_FUSED_ADAMW = ("cpu", "cuda")


class OptimizerPair(Optimizer):
    """Two optimisers that step as one, each on parameters of its own.

    Lightning's automatic optimisation takes a single optimiser. `param_groups` are those of both, so a
    learning-rate schedule reaches each of them; the state stays where it is, in the two.
    """

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self.pair = (first, second)
        super().__init__(itertools.chain.from_iterable(group["params"] for group in self._groups()), {})
        self._share()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.pair for group in optimizer.param_groups]

    def _share(self) -> None:
        """The same group dictionaries, so that a learning rate set here is the one that is used there."""
        self.param_groups = self._groups()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; `closure` computes the gradients and is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.pair:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.pair:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"pair": [optimizer.state_dict() for optimizer in self.pair]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.pair, state_dict["pair"], strict=True):
            optimizer.load_state_dict(state)
        self._share()


def build_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    learning_rate: float,
    weight_decay: float,
    fused: bool | None = None,
    parametrization: Parametrization = STANDARD,
    kinds: Kinds | None = None,
) -> Optimizer:
    """The optimiser of `model`'s trainable parameters, at its peak learning rate.

    `parametrization` gives parameters their share of AdamW's rate; the decay of a step (rate x weight_decay) is the
    same for all, so that it does not fade as a width-scaled rate falls (Wang and Aitchison 2024). `kinds`: see
    `parameter_groups`.

    `fused` runs AdamW's whole step as one kernel: five times faster than the other two ways on a processor. By default
    it is used where it exists; it can't go with a gradient scaler (`precision=16-mixed`), which wants to look at the
    gradients in between.
    """
    groups = parameter_groups(model, kinds)
    shares = {id(p): parametrization.rate_factor(name, model) for name, p in model.named_parameters()}
    if fused is None:
        fused = all(parameter.device.type in _DEVICES_WITH_FUSED_ADAMW for parameter in model.parameters())

    def adamw(decayed: list[nn.Parameter], kept: list[nn.Parameter]) -> AdamW:
        parts = []
        for parameters, decay in ((decayed, weight_decay), (kept, 0.0)):
            for share in dict.fromkeys(shares[id(parameter)] for parameter in parameters):
                alike = [parameter for parameter in parameters if shares[id(parameter)] == share]
                parts.append({"params": alike, "lr": share * learning_rate, "weight_decay": decay / share})
        return AdamW(
            parts,
            lr=learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=fused,
        )

    kept = [*groups.embeddings, *groups.vectors]
    if config.kind == "adamw" or not groups.hidden:
        return adamw([*groups.hidden, *groups.matrices], kept)
    # Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": the head and the embedding,
    # whose rows are tokens, are better left to AdamW.
    muon = Muon(groups.hidden, lr=config.muon_learning_rate, momentum=config.muon_momentum, weight_decay=weight_decay)
    return OptimizerPair(muon, adamw(groups.matrices, kept))
