"""Pretraining: the loss against the logits, gradients under accumulation, phases, and that it learns."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from maquette.artifacts import ConfigError
from maquette.data import TokenBatch
from maquette.data.pretraining_data import HeldOutBatch
from maquette.model import LanguageModel, TransformerConfig
from maquette.objectives import Optimization, Pretraining
from maquette.objectives.config import PretrainConfig
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig, LinearSchedulerConfig
from support.list_logger import ListLogger

SHAPE = TransformerConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=32,
    token_shift=True,
)


def objective(
    shape: TransformerConfig = SHAPE, rope_thetas: tuple[float | None, ...] = (None,), **config: object
) -> Pretraining:
    optimization = Optimization(AdamWConfig(), ConstantSchedulerConfig(), 0.01, 0.1, steps=100, batch_size_tokens=10)
    model = LanguageModel(shape, seed=1)
    return Pretraining(model, optimization, PretrainConfig(**config), rope_thetas=rope_thetas)  # type: ignore[arg-type]


def batch(sequences: int = 8, length: int = 20, phase: int = 0, seed: int = 0) -> TokenBatch:
    tokens = torch.randint(0, 50, (sequences, length + 1), generator=torch.Generator().manual_seed(seed))
    return TokenBatch(tokens, torch.zeros(sequences, dtype=torch.int64), phase=phase)


def validated(module: Pretraining, data: Any) -> torch.Tensor:
    """Cross-entropy of every token, as validation takes it."""
    module.on_validation_epoch_start()
    with torch.no_grad():
        return module.validation_step(data, 0)


def fit(
    module: Pretraining, batches: Sequence[Any], *, accumulate: int = 1, every: int = 1, held_out: Any = None
) -> list[dict[str, float]]:
    """Trains one epoch on the batches, and validates on `held_out` at its end; what loggers are told."""
    logger = ListLogger()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, max_steps=len(batches) // accumulate, accumulate_grad_batches=accumulate,
        log_every_n_steps=every, logger=[logger], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loaders = {"val_dataloaders": DataLoader(held_out, batch_size=None)} if held_out is not None else {}
    trainer.fit(module, DataLoader(batches, batch_size=None), **loaders)  # type: ignore[arg-type]
    return logger.rows


def gradients(module: Pretraining) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}


def test_the_loss_is_the_mean_cross_entropy() -> None:
    module, data = objective(), batch()
    logits = module.model(data.inputs)
    expected = F.cross_entropy(logits.flatten(0, 1), data.targets.flatten())
    loss, metrics = module.loss(data)
    torch.testing.assert_close(loss, expected)
    assert not metrics
    result = validated(module, data)
    assert result.shape == (8, 20)
    torch.testing.assert_close(result.mean(), expected.detach())


def test_z_loss_is_trained_for_and_not_validated_by() -> None:
    data = batch()
    logits = objective().model(data.inputs)
    module = objective(z_loss=0.1)
    extra = 0.1 * logits.logsumexp(-1).square().mean()
    torch.testing.assert_close(module.loss(data)[0], objective().loss(data)[0] + extra)
    torch.testing.assert_close(validated(module, data), validated(objective(), data))


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts: int) -> None:
    data = batch(8)
    whole, split = objective(), objective()
    whole.training_step(data, 0).backward()
    for tokens in data.tokens.chunk(parts):
        part = TokenBatch(tokens, data.domains[: len(tokens)])
        (split.training_step(part, 0) / parts).backward()
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(split)[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_the_loss_of_a_step_is_the_mean_of_its_micro_batches(parts: int) -> None:
    data = batch(8)
    micro = [TokenBatch(tokens, data.domains[: len(tokens)]) for tokens in data.tokens.chunk(parts)]
    (whole,), (split,) = fit(objective(), [data]), fit(objective(), micro, accumulate=parts)
    assert whole["train/loss"] == pytest.approx(split["train/loss"], abs=1e-6)


def test_a_window_is_logged_with_its_last_step() -> None:
    """Means over the steps since the last point; the last window is shorter."""
    batches = [batch(seed=number) for number in range(5)]
    every_step = [row["train/loss"] for row in fit(objective(), batches)]
    assert len(every_step) == 5
    rows = fit(objective(), batches, every=2)
    assert [(row["step"], row["tokens"]) for row in rows] == [(2, 20), (4, 40), (5, 50)]
    expected = [sum(every_step[:2]) / 2, sum(every_step[2:4]) / 2, every_step[4]]
    assert [row["train/loss"] for row in rows] == pytest.approx(expected)
    assert [row["train/learning_rate"] for row in rows] == [objective().learning_rate(step) for step in (1, 3, 4)]


def test_validation_is_told_by_domain_and_over_all() -> None:
    data = [HeldOutBatch(batch(2, seed=8), "code", 70), HeldOutBatch(batch(4, seed=9), "docs", 90)]
    module = objective()
    *_, row = fit(module, [batch()], held_out=data)
    assert (row["step"], row["tokens"]) == (1, 10)
    by_domain = {}
    for one in data:
        nats = validated(module, one)
        by_domain[one.domain] = nats.mean().item()
        assert row[f"validation/{one.domain}/loss"] == pytest.approx(nats.mean().item())
        bits = nats.sum().item() / math.log(2) / one.bytes
        assert row[f"validation/{one.domain}/bits_per_byte"] == pytest.approx(bits)
    assert row["validation/loss"] == pytest.approx(sum(by_domain.values()) / 2)  # without a mixture all weigh alike


@pytest.mark.parametrize("kind", ["tensor", "mapping", "tuple"])
def test_batches_of_anybodys_loader(kind: str) -> None:
    data = batch()
    given = {"tensor": data.tokens, "mapping": {"input_ids": data.tokens}, "tuple": (data.tokens,)}[kind]
    torch.testing.assert_close(objective().loss(given)[0], objective().loss(data)[0])
    torch.testing.assert_close(validated(objective(), given), validated(objective(), data))


@pytest.mark.parametrize(
    ("given", "described"),
    [(torch.zeros(3, 4), "torch.float32 tensor of shape"), (torch.zeros(3).long(), "shape"), ("text", "str")],
)
def test_what_are_no_token_ids_is_refused(given: Any, described: str) -> None:
    with pytest.raises(ConfigError, match=f"must be token ids(.|\n)*{described}"):
        objective().loss(given)


def test_chunked_and_whole_losses_agree() -> None:
    data = batch()
    plain, chunked = objective(), objective(logits_limit=100)
    for module in (plain, chunked):
        module.loss(data)[0].backward()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(chunked)[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_phase_sets_the_rotary_base() -> None:
    module = objective(rope_thetas=(None, 4.0))
    with torch.no_grad():  # attention at its start looks everywhere alike, whatever the positions
        for layer in module.model.core.layers:
            layer.attention.query.weight.mul_(100)
    losses = [module.loss(batch(phase=phase))[0].item() for phase in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]
    assert module.model.config.rope_theta == SHAPE.rope_theta  # type: ignore[union-attr]
    module.enter_phase(1)
    assert module.model.config.rope_theta == 4.0  # type: ignore[union-attr]


def test_a_rotary_base_without_rotary_positions_is_refused() -> None:
    alone = objective(rope_thetas=(4.0,))  # a long-context continuation: one phase, from the start
    alone.enter_phase(0)
    assert alone.model.config.rope_theta == 4.0  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="no rotary positions"):
        objective(dataclasses.replace(SHAPE, positions="learned"), rope_thetas=(None, 4.0))


def test_learning_rates_follow_the_schedule() -> None:
    optimization = Optimization(
        AdamWConfig(), LinearSchedulerConfig(), 0.5, 0.1, steps=10, batch_size_tokens=10, warmup=0.2
    )
    module = Pretraining(LanguageModel(SHAPE), optimization, PretrainConfig())
    configured = module.configure_optimizers()
    optimizer = configured["optimizer"]
    scheduler = configured["lr_scheduler"]["scheduler"]  # type: ignore[index,typeddict-item]
    for step in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(module.learning_rate(step))
        optimizer.step()
        scheduler.step()
    assert [module.learning_rate(step) for step in (0, 1, 2)] == pytest.approx([0.125, 0.375, 0.5 * (1 - 5 / 80)])


def test_it_learns_to_count() -> None:
    """Text in which each token follows from the one before it: from ln 50 nearly to 0."""
    module = objective()
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for step in range(60):
        starts = torch.randint(0, 50, (8, 1), generator=torch.Generator().manual_seed(step))
        tokens = (starts + torch.arange(21)) % 50
        loss = module.training_step(TokenBatch(tokens, torch.zeros(8, dtype=torch.int64)), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(50), abs=0.3)
    assert losses[-1] < 0.5
