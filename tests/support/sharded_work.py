"""What child processes do in tests of sharded weights: in a file of its own, which is quickly imported."""

from pathlib import Path
from typing import Any

from maquette.data.process_group import process_group

LARGE = {
    "kind": "transformer", "vocab_size": 4096, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
    "max_position_embeddings": 16,
}  # fmt: skip
"""30 million parameters."""


def initial_weights(checkpoint: str) -> list[dict[str, Any]]:
    """How much memory two processes take for their parts of a model, drawn and out of a folder; and whether they are
    the weights that one process has."""
    _initial_weights(None, LARGE | {"hidden_size": 48})  # imports what it needs
    return [_initial_weights(None, LARGE), _initial_weights(checkpoint, LARGE)]


def _initial_weights(checkpoint: str | None, shape: dict[str, Any]) -> dict[str, Any]:
    import torch
    from lightning.pytorch import Callback

    from maquette.model import hf
    from maquette.model.loading import build_model, model_folder
    from maquette.model.sharding import own_part, whole_tensor

    facts: dict[str, Any] = {}

    class Watch(Callback):
        def setup(self, trainer: Any, module: Any, stage: str) -> None:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
            facts["before"] = _status("VmRSS")

        def on_fit_start(self, trainer: Any, module: Any) -> None:
            facts["peak"] = _status("VmHWM") - facts.pop("before")
            parameters = dict(module.model.named_parameters())
            facts["part"] = sum(own_part(one).nbytes for one in parameters.values())
            facts["largest"] = max(one.numel() * 4 for one in parameters.values())
            whole = {name: whole_tensor(one.detach()) for name, one in parameters.items()}
            alone = build_model(description) if checkpoint is None else hf.load(model_folder(checkpoint))
            facts["equal"] = all(torch.equal(whole[name], one) for name, one in alone.named_parameters())

    description = {"architecture": shape, "seed": 5, "checkpoint": checkpoint}
    fit(description, [torch.zeros(4, 17, dtype=torch.long)], callbacks=[Watch()])
    return facts


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def fit(
    model: Any, batches: list[Any], *, callbacks: list[Any], steps: int | None = None, resume: str | None = None,
    mesh: dict[str, int] | None = None, precision: str = "32-true", **settings: Any,
) -> Any:  # fmt: skip
    """Pretraining on the batches, of which each process takes its share; sharded where there are several."""
    import datetime

    import torch
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import SingleDeviceStrategy

    from maquette.data import TokenBatch
    from maquette.data.process_group import join_group
    from maquette.objectives import Pretraining
    from maquette.objectives.base import Optimization
    from maquette.optimization.config import AdamWConfig, LinearSchedulerConfig
    from maquette.training.checkpoint_io import AtomicCheckpointIO
    from maquette.training.sharded_strategy import ShardedStrategy

    torch.set_num_threads(1)
    world = process_group()
    many = world.size > 1
    strategy: Any = SingleDeviceStrategy(device=torch.device("cpu"))
    if many:
        join_group("gloo")
        sizes = {"nodes": 1, **(mesh or {})}
        compute = torch.float32 if precision == "32-true" else torch.bfloat16
        strategy = ShardedStrategy(compute_dtype=compute, timeout=datetime.timedelta(minutes=2), **sizes)
    group = (mesh or {}).get("tensor_parallel_size", 1)
    rank, shares = world.rank // group, world.size // group
    optimization = Optimization(
        AdamWConfig(), LinearSchedulerConfig(), learning_rate=1e-2, weight_decay=0.1, steps=steps or len(batches),
        batch_size_tokens=128,
    )  # fmt: skip
    mine = [TokenBatch(part, torch.zeros(len(part), dtype=torch.long)) for part in
            (batch.chunk(shares)[rank] for batch in batches)]  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=world.size, strategy=strategy, gradient_clip_val=0.5,
        plugins=[AtomicCheckpointIO(), TorchElasticEnvironment() if many else LightningEnvironment()],
        max_steps=steps or len(batches), max_epochs=1, callbacks=callbacks, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=1000,
        precision="32-true" if precision == "bf16-mixed" and many else precision, **settings,
    )  # fmt: skip
    module = Pretraining(model, optimization)
    loader = torch.utils.data.DataLoader(mine, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return trainer


# Checkpoints ----------------------------------------------------------------------------------------------------------

SMALL = {
    "kind": "transformer", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 16, "token_shift": True,
}  # fmt: skip
STEPS = 12


def train(folder: str, *, until: int = STEPS, kill: bool = False) -> list[tuple[float, float]]:
    """Losses and gradient norms of the steps after the newest checkpoint in `folder`, saved after the fourth step and
    the sixth; `kill`: this process dies when it has written half of its part of the second."""
    import os
    import signal
    import threading

    import torch
    from lightning.pytorch import Callback

    from maquette.data.process_group import join_group
    from maquette.training import sharded_checkpoint
    from maquette.training.checkpoint_io import CheckpointFolder

    world = process_group()
    if world.size > 1:
        join_group("gloo")
    checkpoints = CheckpointFolder(folder)
    first, newest = checkpoints.newest(print, world) or (0, None)
    numbers = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 96, (8, 17), generator=numbers) for _ in range(STEPS)][first:]
    seen: list[tuple[float, float]] = []
    write = sharded_checkpoint.write_tensors

    def write_half(path: Path, *arguments: Any) -> str:
        write(path, *arguments)
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
            loss = trainer.strategy.reduce(module._seen[-1][0].double(), reduce_op="mean")
            seen.append((float(loss), float(module.gradient_norm)))
            if trainer.global_step in (4, 6):
                if kill and trainer.global_step == 6:
                    sharded_checkpoint.write_tensors = write_half
                trainer.save_checkpoint(checkpoints.path(trainer.global_step))
                if kill and trainer.global_step == 6:
                    threading.Event().wait(60)  # or the next step fails first, for want of the other process
            trainer.should_stop = trainer.global_step == until

    fit(
        {"architecture": SMALL, "seed": 3 + first}, batches, callbacks=[Watch()], steps=STEPS,
        resume=None if newest is None else str(newest),
    )  # fmt: skip
    return seen


def train_and_die(folder: str) -> None:
    train(folder, kill=True)


def train_a_little(folder: str) -> list[tuple[float, float]]:
    return train(folder, until=5)


# Meshes ---------------------------------------------------------------------------------------------------------------

MESHES: dict[str, dict[str, Any]] = {
    "two nodes": {"mesh": {"nodes": 2}},
    "two nodes, bf16-mixed": {"mesh": {"nodes": 2}, "precision": "bf16-mixed"},
    "bf16-true": {"precision": "bf16-true"},
}


def train_on_meshes(only: str | None) -> dict[str, dict[str, Any]]:
    """Losses, placements and what gradients were averaged in; one process has no mesh, and trains in float32."""
    alone = process_group().size == 1
    return {name: _train_on(**({} if alone else settings)) for name, settings in MESHES.items() if only in (None, name)}


def _train_on(**settings: Any) -> dict[str, Any]:
    import torch
    from lightning.pytorch import Callback

    from maquette.model.sharding import own_part

    facts: dict[str, Any] = {"losses": []}

    class Watch(Callback):
        def on_after_backward(self, trainer: Any, module: Any) -> None:
            gradients = [own_part(one.grad).float() for one in module.parameters()]
            facts["finer than bf16"] = any(not torch.equal(one, one.bfloat16().float()) for one in gradients)

        def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
            loss = trainer.strategy.reduce(module._seen[-1][0].double(), reduce_op="mean")
            facts["losses"].append(float(loss))
            parameter = next(module.parameters())
            facts["dtype"], facts["placements"] = str(parameter.dtype), str(getattr(parameter, "placements", None))

    numbers = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 96, (8, 17), generator=numbers) for _ in range(4)]
    fit({"architecture": SMALL, "seed": 3}, batches, callbacks=[Watch()], **settings)
    return facts
