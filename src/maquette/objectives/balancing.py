"""Even loads for experts while a sparse model is pretrained: the router's losses, its bias, and how even it is.

    loss = cross-entropy + aux_coef x mean over layers of (load-balancing loss) + z_coef x mean over layers of (z-loss)

Loads are counted over the tokens of a micro-batch in all processes, so that processes at an equal global batch do what
one does; the bias moves once an optimiser step, by the loads of all of its micro-batches. `train/loss` stays the
cross-entropy, which is what dense and sparse models are compared by. Training after pretraining leaves the router to
its objective (as OLMoE does: Muennighoff et al. 2024, section 4.3), and the bias as it is.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from maquette.model.architecture import MixtureOfExpertsConfig
from maquette.model.experts import MixtureOfExperts, Routed, mixtures_of, recorded
from maquette.model.routing import balanced_bias, load_balancing_loss, load_figures, router_z_loss

Reduce = Callable[[Tensor], Tensor]
"""A tensor's sum over all processes."""


@dataclass
class ExpertBalance:
    """Of one model with experts. `loads (L, E)`: tokens that each expert has got in the step so far."""

    config: MixtureOfExpertsConfig
    mixtures: list[MixtureOfExperts]
    loads: Tensor | None = None
    routed: list[list[Routed]] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module) -> "ExpertBalance | None":
        """None for a dense model."""
        config, mixtures = getattr(model, "config", None), mixtures_of(model)
        return cls(config, mixtures) if isinstance(config, MixtureOfExpertsConfig) else None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The forward pass of a micro-batch happens within."""
        with recorded(self.mixtures) as self.routed:
            yield

    def losses(self, over_processes: Reduce) -> tuple[Tensor, dict[str, Tensor]]:
        """What to add to the micro-batch's loss, and its parts as metrics."""
        routed, self.routed = [layer[0] for layer in self.routed], []
        counts = over_processes(torch.stack([layer.counts for layer in routed]))
        self.loads = counts if self.loads is None else self.loads + counts
        top_k = self.config.num_experts_per_tok
        pairs = list(zip(routed, counts, strict=True))
        balance = torch.stack([load_balancing_loss(layer.logits, count, top_k) for layer, count in pairs]).mean()
        normalizer = torch.stack([router_z_loss(layer.logits) for layer in routed]).mean()
        added = self.config.router_aux_loss_coef * balance + self.config.router_z_loss_coef * normalizer
        return added, {
            "train/load_balancing_loss": balance.detach(), "train/router_z_loss": normalizer.detach(),
        }  # fmt: skip

    @torch.no_grad()
    def move_biases(self) -> None:
        """After an optimiser step."""
        assert self.loads is not None
        for mixture, load in zip(self.mixtures, self.loads, strict=True):
            if mixture.router_bias is not None:
                mixture.router_bias.copy_(balanced_bias(mixture.router_bias, load, self.config.router_bias_update_rate))

    def end_step(self, *, shown: bool) -> dict[str, Tensor]:
        """Forgets the step's loads; how even they were where it is `shown`."""
        loads, self.loads = self.loads, None
        return load_figures(loads) if shown and loads is not None else {}
