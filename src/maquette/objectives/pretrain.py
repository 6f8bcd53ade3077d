"""Pretraining: predict every next token of plain text.

Cross-entropy of each token given those before it, averaged over the batch; optionally the z-loss, which keeps the
logits' normaliser near 1 (Chowdhery et al. 2022, section 5). Validation reads held-out text, a loader for each domain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.data import TokenBatch
from maquette.data.pretraining_data import HeldOutBatch
from maquette.data.process_group import sum_of_all_processes
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.objectives.balancing import ExpertBalance
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.completions import continue_documents
from maquette.objectives.config import PretrainConfig
from maquette.objectives.held_out import DomainLoss, copying_metrics, domain_sums, metric_name, overall, sums_of


class Pretraining(Objective):
    """Language modelling over `TokenBatch`es, or plain `(B, T + 1)` tensors of tokens, or mappings with `input_ids`.

    `rope_thetas` has the rotary base of every phase of the mixture; None keeps the model's own. The base belongs to the
    text that is being read, so a batch's phase sets it. Raises `ConfigError` where the model has no such thing.
    """

    model: LanguageModel
    config_class = PretrainConfig

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        optimization: Optimization | Mapping[str, Any],
        config: PretrainConfig | None = None,
        *,
        rope_thetas: Sequence[float | None] = (None,),
        **settings: Any,
    ) -> None:
        super().__init__(model, optimization, config, **settings)
        self.hparams["rope_thetas"] = list(rope_thetas)
        architecture = self.description["architecture"]
        self._phase: int | None = None
        own = architecture.get("rope_theta")
        self.rope_thetas = [base or own for base in rope_thetas]
        if any(rope_thetas) and architecture.get("positions") != "rotary":
            raise ConfigError(
                "A phase of the mixture sets rope_theta, but the model has no rotary positions.",
                "Leave it out, or use model.positions=rotary.",
            )

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        batch = as_tokens(batch)
        self.enter_phase(batch.phase)
        return self.cross_entropy(batch, z_loss=self.config.z_loss)[0], {}

    def cross_entropy(self, batch: TokenBatch, *, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and the cross-entropy of each predicted token, `(B, T)`."""
        hidden = self.model.core(batch.inputs, segments=batch.segments, packed=batch.packed)  # (B, T, D)
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
            base = self.rope_thetas[phase]
            if base is not None and base != getattr(self.model.config, "rope_theta", None):
                self.model.core.change_context(rope_theta=base)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["phase"] = self._phase

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if (phase := checkpoint.get("phase")) is not None:
            self.enter_phase(phase)

    # Experts ----------------------------------------------------------------------------------------------------------

    def set_model(self, model: nn.Module) -> None:
        super().set_model(model)
        self._balance = ExpertBalance.of(model)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self._balance is None:
            return super().training_step(batch, batch_idx)
        with self._balance.watching():
            loss = super().training_step(batch, batch_idx)
        added, metrics = self._balance.losses(sum_of_all_processes)
        self._seen[-1][1].update(metrics)
        return loss + added

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self._balance is not None:  # here, before a checkpoint can be written
            self._balance.move_biases()

    def _mean_of_step(self) -> dict[str, Tensor]:
        values = super()._mean_of_step()
        return values if self._balance is None else values | self._balance.end_step(shown=self.is_log_step)

    # Validation -------------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Cross-entropy in nats of every predicted token, `(B, T)`; sums by domain are kept."""
        held_out = batch if isinstance(batch, HeldOutBatch) else HeldOutBatch(as_tokens(batch), "held out")
        nats = self.cross_entropy(held_out.tokens)[1]
        if held_out.marks is not None:
            sums = sums_of(held_out.domain, held_out.marks, nats)
        else:
            sums = domain_sums(nats, held_out.bytes, held_out.kinds)
        name = "copying" if held_out.marks is not None else held_out.domain
        if name not in self._sums:
            self._sums[name] = torch.zeros_like(sums)
        if held_out.counts:
            self._sums[name] += sums
        return nats

    def on_validation_epoch_end(self) -> None:
        """`validation/loss` and so on over all domains as the mixture weighs them, and for each domain; after the last
        step also by kind of token, and how much is copied."""
        sums = {name: self.sum_over_processes(values) for name, values in self._sums.items()}
        copying = sums.pop("copying", None)
        losses = {name: DomainLoss.of(row) for name, row in sums.items()}
        weights = getattr(self.datamodule, "validation_weights", {})
        values: dict[str, float] = {"tokens": self.trainer.global_step * self.optimization.batch_size_tokens}
        values |= overall(losses, weights)
        for domain, loss in losses.items():
            values |= {metric_name(domain, key): value for key, value in loss.describe().items()}
        if copying is not None:
            values |= copying_metrics(copying)
        self.log_values(values)

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        tokenizer = getattr(self.datamodule, "tokenizer", None)
        return [] if tokenizer is None else continue_documents(self.model, tokenizer, prompts)


def as_tokens(batch: Any) -> TokenBatch:
    """A batch of anybody's loader as a `TokenBatch`: `(B, T + 1)` token ids as a tensor, or under `input_ids`."""
    if isinstance(batch, TokenBatch):
        return batch
    tokens = batch["input_ids"] if isinstance(batch, Mapping) else batch
    if isinstance(tokens, list | tuple) and len(tokens) == 1:
        tokens = tokens[0]
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.is_floating_point():
        raise ConfigError(
            f"A pretraining batch must be token ids of shape (sequences, tokens), got {_described(tokens)}.",
            "Let the loader give an integer tensor, a mapping with input_ids, or a TokenBatch.",
        )
    return TokenBatch(tokens.long(), torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device))


def _described(value: Any) -> str:
    return (
        f"a {value.dtype} tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )
