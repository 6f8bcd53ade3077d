"""When a run is validated: a number of times, evenly and at its last step, unless Lightning is told another way."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer

from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.objectives import Pretraining
from maquette.training.callbacks import RunContext, ValidationSchedule
from maquette.training.callbacks.validation import validation_steps
from maquette.training.processes import StopSignal

pytestmark = pytest.mark.usefixtures("no_pictures")


@given(steps=st.integers(1, 500), validations=st.integers(0, 600))
def test_evenly_and_at_the_last_step(steps: int, validations: int) -> None:
    result = sorted(validation_steps(steps, validations))
    assert len(result) == min(steps, validations)
    if result:
        assert result[-1] == steps and result[0] >= 1
        gaps = [after - before for before, after in zip([0, *result], result, strict=False)]
        assert max(gaps) - min(gaps) <= 1


class Watched(LightningModule):
    """Notes after which steps it is validated, and how often it is trained in between."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.steps: list[int] = []
        self.batches: list[int] = []
        self._batches = 0

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self._batches += 1
        return (self.weight * batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None: ...

    def on_validation_epoch_start(self) -> None:
        self.steps.append(self.trainer.global_step)
        self.batches.append(self._batches)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Unsized:
    """Batches without a length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter([torch.ones(1)] * self.count)


class Sized(Unsized):
    """Batches with a length."""

    def __len__(self) -> int:
        return self.count


def fit(
    steps: int, validations: int, *, accumulate: int = 1, epochs: int = 1, sized: bool = True, total: int | None = None
) -> tuple[Watched, Trainer]:
    """Trains for `steps` steps; the callback is told that the run has `told` of them."""
    schedule = ValidationSchedule()
    schedule.attach(
        RunContext(
            folder=Path("run"), steps=total or steps, batch_size_tokens=1, flops_per_token=1.0, peak_flops=1.0,
            validations=validations, stop_signal=StopSignal(), steps_per_epoch=steps // epochs,
        )
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=epochs, accumulate_grad_batches=accumulate, logger=False,
        callbacks=[schedule], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    module, count = Watched(), steps // epochs * accumulate
    trainer.fit(module, Sized(count) if sized else Unsized(count), Sized(1))
    return module, trainer


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    ("steps", "validations", "expected"),
    [(20, 4, [5, 10, 15, 20]), (7, 2, [4, 7]), (3, 10, [1, 2, 3]), (10, 1, [10]), (4, 0, [])],
)
def test_validates_so_often(steps: int, validations: int, expected: list[int], accumulate: int, sized: bool) -> None:
    module, _ = fit(steps, validations, accumulate=accumulate, sized=sized)
    assert module.steps == expected
    assert module.batches == [accumulate * step for step in expected]  # never between two micro-batches


@pytest.mark.parametrize("accumulate", [1, 3])
def test_epochs_are_no_reason_to_validate(accumulate: int) -> None:
    module, _ = fit(20, 3, accumulate=accumulate, epochs=4)
    assert module.steps == [7, 13, 20]


def test_the_trainers_own_settings_are_left_alone() -> None:
    _, plain = fit(6, 0)
    _, scheduled = fit(6, 2)
    assert scheduled.val_check_interval == plain.val_check_interval == 1.0


def test_the_last_step_is_that_of_the_trainer() -> None:
    """`trainer.max_steps` wins over the token budget."""
    module, _ = fit(12, 3, total=100)
    assert module.steps == [4, 8, 12]


# Whole runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The steps after which runs are validated."""
    steps: list[int] = []
    begin = Pretraining.on_validation_epoch_start

    def watched(self: Pretraining) -> None:
        steps.append(self.trainer.global_step)
        begin(self)

    monkeypatch.setattr(Pretraining, "on_validation_epoch_start", watched)
    return steps


@pytest.mark.parametrize("micro_batch_size", [8, 2])
def test_a_run_validates_num_validations_times(
    configure: Callable[..., TrainStage], validated: list[int], micro_batch_size: int
) -> None:
    train.run(configure(seed=50, num_validations=4, data__micro_batch_size=micro_batch_size, force=True))
    assert validated == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("settings", "micro_batch_size", "expected"),
    [
        ({"trainer__val_check_interval": 6}, 8, [6, 12, 18]),
        ({"trainer__val_check_interval": 12}, 4, [6, 12, 18]),  # batches, as in Lightning
        ({"trainer__check_val_every_n_epoch": 1}, 8, [20]),
        ({"trainer__check_val_every_n_epoch": 1, "trainer__val_check_interval": 0.25}, 8, [5, 10, 15, 20]),
    ],
)
def test_an_interval_of_lightnings_takes_its_place(
    configure: Callable[..., TrainStage],
    validated: list[int],
    settings: dict[str, Any],
    micro_batch_size: int,
    expected: list[int],
) -> None:
    train.run(configure(seed=51, num_validations=4, data__micro_batch_size=micro_batch_size, force=True, **settings))
    assert validated == expected


def test_validations_before_the_last_read_less(
    configure: Callable[..., TrainStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last one together cost at most a few percent of the run."""
    read: list[tuple[int, int]] = []
    step = Pretraining.validation_step

    def counted(self: Pretraining, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        if batch.marks is None:
            read.append((self.trainer.global_step, batch.tokens.targets.numel()))
        return step(self, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(Pretraining, "validation_step", counted)
    record = train.run(configure(seed=77, num_validations=3, data__validation_tokens=4096))
    tokens = {at: sum(count for when, count in read if when == at) for at in dict(read)}
    *earlier, last = (tokens[at] for at in sorted(tokens))
    assert len(earlier) == 2 and max(earlier) < last / 2
    assert sum(earlier) <= 0.1 * record.spec.tokens  # a third of a training step's work for each
