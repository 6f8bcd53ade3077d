"""Lightning saves the position in the data with its fit loop, and resumes from it exactly."""

from pathlib import Path

import pytest
import torch

from maquette.data import MixtureOrder, TokenBatch, TokenShards, TrainingBatches
from maquette.data.config import MixtureConfig


@pytest.mark.slow(reason="imports Lightning and trains twice")
def test_training_that_was_stopped_sees_the_rest_of_the_batches(shards: TokenShards, tmp_path: Path) -> None:
    import lightning

    class Recorder(lightning.LightningModule):
        """Remembers what it is trained on; stops with a checkpoint after `stop` micro-batches."""

        def __init__(self, stop: int | None = None) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen: list[int] = []
            self._stop_after = stop

        def training_step(self, batch: TokenBatch, _: int) -> torch.Tensor:
            self.seen.append(batch.first_sequence)
            return self.weight.sum() * batch.tokens.float().mean()

        def on_train_batch_end(self, *_: object) -> None:
            if len(self.seen) == self._stop_after:
                self.trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                self.trainer.should_stop = True

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    def train(module: Recorder, checkpoint: Path | None = None) -> list[int]:
        order = MixtureOrder(MixtureConfig(), shards.tokens(), context=16, token_budget=16 * 96, seed=0)
        batches = TrainingBatches(shards, order, batch_sequences=16, micro_batch_size=8, steps=6, workers=2)
        trainer = lightning.Trainer(
            accelerator="cpu", max_steps=6, accumulate_grad_batches=2, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, batches, ckpt_path=checkpoint)
        return module.seen

    whole = train(Recorder())
    assert whole == list(range(0, 96, 8))
    first = train(Recorder(stop=5))
    assert first[:5] == whole[:5]
    assert first[:5] + train(Recorder(), tmp_path / "stopped.ckpt") == whole
