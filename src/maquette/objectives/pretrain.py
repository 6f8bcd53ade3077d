"""Pretraining: predict every next token of plain text.

Cross-entropy of each token given those before it, averaged over the batch; optionally the z-loss, which keeps the
logits' normaliser near 1 (Chowdhery et al. 2022, section 5).
"""

from collections.abc import Sequence

from torch import Tensor

from maquette.artifacts import ConfigError
from maquette.data import TokenBatch
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.config import PretrainConfig


class Pretraining(Objective):
    """Language modelling over `TokenBatch`es.

    `rope_bases` has the rotary base of every phase of the mixture; None keeps the model's own. The base belongs to the
    text that is being read, so a batch's phase sets it. Raises `ConfigError` where the model has no such thing.
    """

    model: LanguageModel

    def __init__(
        self,
        model: LanguageModel,
        optimization: Optimization,
        config: PretrainConfig,
        *,
        rope_bases: Sequence[float | None] = (None,),
    ) -> None:
        super().__init__(model, optimization)
        self.config = config
        self._phase: int | None = None
        own = getattr(model.config, "rope_theta", None)
        self.rope_bases = [base or own for base in rope_bases]
        if any(rope_bases) and getattr(model.config, "positions", None) != "rotary":
            raise ConfigError(
                "A phase of the mixture sets rope_theta, but the model has no rotary positions.",
                "Leave it out, or use model.positions=rotary.",
            )

    def loss(self, batch: TokenBatch) -> tuple[Tensor, Metrics]:
        self.enter_phase(batch.phase)
        return self.cross_entropy(batch, z_loss=self.config.z_loss)[0], {}

    def judge(self, batch: TokenBatch) -> Tensor:
        """Cross-entropy of every predicted token, `(B, T)`, in nats."""
        return self.cross_entropy(batch)[1]

    def cross_entropy(self, batch: TokenBatch, *, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and the cross-entropy of each predicted token, `(B, T)`."""
        hidden = self.model.core(batch.inputs, segments=batch.segments)  # (B, T, D)
        return next_token_loss(
            hidden,
            self.model.head_weight,
            batch.targets,
            logit_softcap=self.model.config.logit_softcap,
            z_loss=z_loss,
            logits_limit=self.config.logits_limit,
        )

    def enter_phase(self, phase: int) -> None:
        """Reads positions with the rotary base of this phase from now on."""
        if phase != self._phase:
            self._phase = phase
            base = self.rope_bases[phase]
            if base is not None and base != getattr(self.model.config, "rope_theta", None):
                self.model.core.change_context(rope_theta=base)
