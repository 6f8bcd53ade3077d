"""A run in several Lightning epochs (as PPO has): stopped anywhere, also between epochs, it goes on exactly."""

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.data import TrainingBatches
from maquette.data.pretraining_data import PretrainingData
from maquette.objectives import Pretraining
from maquette.training import pretraining, read_history
from maquette.training.job import Opened
from maquette.training.pretraining import PretrainingPlan

pytestmark = pytest.mark.usefixtures("no_pictures")

EPOCH = 5


class EpochOfBatches:
    """Five steps' batches of the whole order at a time; notes at which step each epoch began."""

    begun: ClassVar[list[int]] = []

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches, self._left = batches, 0

    def __len__(self) -> int:
        return EPOCH * self._batches.micro_batches_per_step

    def __iter__(self) -> Iterator[Any]:
        if not self._left:
            self.begun.append(self._batches.state_dict()["sequences"] // 8)
            self._left = len(self)
        for batch in self._batches:
            self._left -= 1
            yield batch
            if not self._left:
                return

    def state_dict(self) -> dict[str, Any]:
        return {"left": self._left, "batches": self._batches.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left = state["left"]
        self._batches.load_state_dict(state["batches"])


class DataInEpochs(PretrainingData):
    def train_dataloader(self) -> Any:
        return EpochOfBatches(super().train_dataloader())


@dataclasses.dataclass(frozen=True)
class InEpochs(PretrainingPlan):
    def open(self, *arguments: Any) -> Opened:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(pretraining, "PretrainingData", DataInEpochs)
            return dataclasses.replace(super().open(*arguments), steps_per_epoch=EPOCH)


@pytest.mark.slow(reason="trains three times")
@pytest.mark.parametrize("stop", [7, 10, 20])
def test_stopped_within_and_between_epochs(
    configure: Callable[..., TrainStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    changes: dict[str, Any] = {"seed": 40, "data__micro_batch_size": 4, "model__dropout": 0.1}
    whole = train.run(configure(**changes))
    monkeypatch.setattr(pretraining, "PretrainingPlan", InEpochs)
    (tmp_path / "artifacts").symlink_to(Path(configure().outputs).resolve() / "artifacts")
    parted = configure(**changes)
    parted.outputs = str(tmp_path)
    EpochOfBatches.begun.clear()
    loss, steps = Pretraining.loss, [0]

    def interrupted(self: Pretraining, batch: Any) -> Any:
        steps[0] += 1
        if steps[0] == 2 * stop:
            signal.raise_signal(signal.SIGINT)
        return loss(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "loss", interrupted)
        if stop < 20:
            with pytest.raises(KeyboardInterrupt):
                train.run(parted)
    resumed = train.run(parted)
    assert EpochOfBatches.begun == [0, 5, 10, 15]
    expected = load_file(Path(whole.folder) / "model" / "model.safetensors")
    for name, tensor in load_file(Path(resumed.folder) / "model" / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name
    curves = [read_history(Path(run.folder) / "metrics.jsonl") for run in (whole, resumed)]
    for one, other in zip(*curves, strict=True):
        assert (one["step"], one.get("train/loss")) == (other["step"], other.get("train/loss"))
