"""A callback: how far the weights have moved from where they began."""

import torch
from lightning.pytorch import Callback


class DistanceFromStart(Callback):
    """Logs `distance` every `every` steps, to every logger."""

    changes_training = False  # it only looks: a run with it is the same run

    def __init__(self, every: int = 10) -> None:
        self.every = every

    def on_train_start(self, trainer, pl_module):
        self.start = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step % self.every == 0:
            moved = [
                (now - start).square().sum() for now, start in zip(pl_module.parameters(), self.start, strict=True)
            ]
            pl_module.log("distance", torch.stack(moved).sum().sqrt())
