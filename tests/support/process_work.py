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


def optimizer_of_a_sharded_model(decay: float) -> list[tuple[float, int]]:
    """(weight decay, parameters) of the groups of a small model's AdamW, before and after FSDP cuts the model up."""
    import torch
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    from maquette.data.process_group import join_group
    from maquette.model import LanguageModel, TransformerConfig
    from maquette.optimization import build_optimizer
    from maquette.optimization.config import AdamWConfig
    from maquette.optimization.groups import parameter_kinds

    join_group("gloo")
    model = LanguageModel(
        TransformerConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=8
        )
    )
    kinds = parameter_kinds(model)
    groups = []
    for sharded in (False, True):
        if sharded:
            blocks = {type(block) for block in model.core.layers}  # type: ignore[union-attr]
            FullyShardedDataParallel(
                model, auto_wrap_policy=ModuleWrapPolicy(blocks), use_orig_params=True, device_id=torch.device("cpu")
            )
        optimizer = build_optimizer(model, AdamWConfig(), learning_rate=1e-3, weight_decay=decay, kinds=kinds)
        groups += [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    torch.distributed.destroy_process_group()
    return groups
