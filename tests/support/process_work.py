"""What child processes do in tests of `launch`: in a file of its own, which is quickly imported."""

import os
import signal
import time
from typing import Any

from maquette.artifacts import StageError
from maquette.data.process_group import process_group


def what_a_process_does(kind: str) -> Any:
    """Runs in a child."""
    world = process_group()
    if kind == "error" and world.rank == 1:
        raise StageError("The second process has a complaint.", "Listen to it.")
    if kind == "death" and world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind in ("error", "death"):
        time.sleep(600)
    return world.rank, world.size, os.environ["MASTER_ADDR"]


def windows_after_a_checkpoint(_: str) -> Any:
    """The sums since the last log step of each of two processes, from a checkpoint as the first has written it; and
    how one process continues with it."""
    from types import SimpleNamespace

    import torch

    from maquette.data.process_group import join_group, of_all_processes
    from maquette.model import LanguageModel, TransformerConfig
    from maquette.objectives import Pretraining
    from maquette.objectives.base import Optimization
    from maquette.objectives.config import PretrainConfig
    from maquette.optimization.config import AdamWConfig, LinearSchedulerConfig

    world = process_group()
    join_group("gloo")
    shape = TransformerConfig(96, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    optimization = Optimization(
        AdamWConfig(), LinearSchedulerConfig(), learning_rate=1e-2, weight_decay=0.1, steps=4, batch_size_tokens=16,
        warmup=0.1,
    )  # fmt: skip
    module = Pretraining(LanguageModel(shape), optimization, PretrainConfig())
    module._trainer = SimpleNamespace(world_size=world.size, global_rank=world.rank)  # type: ignore[assignment]
    module._steps = [{"train/loss": torch.tensor(float(10**world.rank))}, {"train/loss": torch.tensor(1.0)}]
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    [written, _] = of_all_processes(checkpoint)
    module.on_load_checkpoint(written)
    windows = of_all_processes(module._window)
    module._trainer = SimpleNamespace(world_size=1, global_rank=0)  # type: ignore[assignment]
    module.on_load_checkpoint(written)
    return windows, module._window


EXPERTS = {"num_experts": 4, "n_shared_experts": 1, "intermediate_size": 24, "router_bias_update_rate": 0.01}

VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"optimizer": "muon"},
    "tied, grouped queries": {
        "model": {"tie_word_embeddings": True, "num_attention_heads": 4, "num_key_value_heads": 2},
    },
    "accumulation, z-loss": {"accumulate": 2, "z_loss": 1e-3},
    "experts": {"model": EXPERTS},
    "experts by muon": {"model": EXPERTS, "optimizer": "muon"},
    "checkpointing": {"checkpointing": "selective"},
}
"""What sharded training must do as one process does."""

STEPS, BATCH = 20, 8


def train_variants(folder: str) -> dict[str, list[tuple[float, float]]]:
    """Loss and gradient norm of every step of each variant; two processes shard the weights, one does not. `folder`
    gets a checkpoint of the tenth step."""
    return {name: train_variant(f"{folder}/{name.partition(',')[0]}", **variant) for name, variant in VARIANTS.items()}


def train_experts(folder: str) -> list[tuple[float, float]]:
    """As above, where every process has all weights (DDP)."""
    return train_variant(f"{folder}/experts", model=EXPERTS, sharded=False)


def go_on(folder: str) -> dict[str, list[tuple[float, float]]]:
    """The steps after the tenth, from other processes' checkpoints."""
    return {
        name: train_variant(f"{folder}/{name.partition(',')[0]}", **variant, resume=True)
        for name, variant in VARIANTS.items()
    }


def train_variant(
    checkpoint: str, *, optimizer: str = "adamw", model: dict[str, Any] | None = None, accumulate: int = 1,
    z_loss: float = 0.0, checkpointing: str = "none", resume: bool = False, sharded: bool = True, tensor: int = 1,
    experts: int = 1,
) -> list[tuple[float, float]]:  # fmt: skip
    import datetime
    import pathlib

    import torch
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

    from maquette.data import TokenBatch
    from maquette.data.process_group import join_group
    from maquette.model import LanguageModel, MixtureOfExpertsConfig, TransformerConfig
    from maquette.model.activation_checkpointing import checkpoint_blocks
    from maquette.objectives import Pretraining
    from maquette.objectives.base import Optimization
    from maquette.objectives.config import PretrainConfig
    from maquette.optimization.config import AdamWConfig, LinearSchedulerConfig, MuonConfig
    from maquette.training.checkpoint_io import AtomicCheckpointIO
    from maquette.training.sharded_strategy import ShardedStrategy

    torch.set_num_threads(1)
    world = process_group()
    shape = {
        "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "max_position_embeddings": 16, "token_shift": True, **(model or {}),
    }  # fmt: skip
    optimization = Optimization(
        MuonConfig() if optimizer == "muon" else AdamWConfig(), LinearSchedulerConfig(), learning_rate=1e-2,
        weight_decay=0.1, steps=STEPS, batch_size_tokens=BATCH * 16, warmup=0.1,
    )  # fmt: skip
    kind = MixtureOfExpertsConfig if "num_experts" in shape else TransformerConfig
    # The first process alone knows the weights.
    module = Pretraining(LanguageModel(kind(**shape), seed=3 + world.rank), optimization, PretrainConfig(z_loss=z_loss))
    checkpoint_blocks(module.model.core.layers, checkpointing)
    numbers = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 96, (BATCH, 17), generator=numbers) for _ in range(STEPS)]
    tensor, experts = min(tensor, world.size), min(experts, world.size)
    share = BATCH * tensor // world.size // accumulate
    first = world.rank // tensor * accumulate
    mine = [
        TokenBatch(part, torch.zeros(share, dtype=torch.long))
        for batch in (batches[10:] if resume else batches)
        for part in batch.split(share)[first : first + accumulate]
    ]
    seen: list[tuple[float, float]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
            if module._steps:
                last = module._steps.pop()
                loss = trainer.strategy.reduce(last["train/loss"].double(), reduce_op="mean")
                seen.append((float(loss), float(last["train/gradient_norm"])))
                if trainer.global_step == 10 and not resume:
                    trainer.save_checkpoint(checkpoint)

    many = world.size > 1
    if many:
        join_group("gloo")
    strategy = (
        DDPStrategy(process_group_backend="gloo")
        if many and not sharded
        else (
            ShardedStrategy(
                nodes=1,
                compute_dtype=torch.float32,
                timeout=datetime.timedelta(minutes=2),
                tensor_parallel_size=tensor,
                expert_parallel_size=experts,
            )
            if many
            else SingleDeviceStrategy(device=torch.device("cpu"))
        )
    )
    trainer = Trainer(
        accelerator="cpu", devices=world.size, strategy=strategy, gradient_clip_val=0.5,
        plugins=[AtomicCheckpointIO(), TorchElasticEnvironment() if many else LightningEnvironment()],
        max_steps=STEPS, max_epochs=1, accumulate_grad_batches=accumulate, callbacks=[Watch()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, log_every_n_steps=1000,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(mine, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    trainer.fit(module, loader, ckpt_path=checkpoint if resume else None, weights_only=True)
    if many:
        whole = trainer.strategy.lightning_module_state_dict()
        if world.is_first:
            assert all(torch.isfinite(value).all() for value in whole.values())
    assert many or pathlib.Path(checkpoint).exists()
    return seen
