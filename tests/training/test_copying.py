"""The copying score: 1 of a model that looks everything up, 0 of one that looks nothing up; recorded by every run."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.cli.tokens import make_tokens
from maquette.data import TokenShards
from maquette.data.copying import RUN_LENGTH, TOKEN_KINDS, CopyingProbe, copying_probes
from maquette.data.pretraining_data import affordable_windows
from maquette.data.token_artifacts import TokensResult
from maquette.objectives.held_out import copying_metrics, folder_copying, sums_of
from maquette.training import read_history, read_record

UNIFORM = math.log(50)


def looks_up(probe: CopyingProbe, known: int) -> torch.Tensor:
    """Cross-entropies (B, T) of one that copies what followed the last `known` tokens before, and else is uniform."""
    losses = torch.full(probe.marks.shape, UNIFORM)
    for row, tokens in zip(losses, probe.batch.tokens.tolist(), strict=True):
        followed: dict[tuple[int, ...], set[int]] = {}
        for target in range(known, len(tokens)):
            before = tuple(tokens[target - known : target])
            if tokens[target] in followed.get(before, ()):
                row[target - 1] = 0.0
            followed.setdefault(before, set()).add(tokens[target])
    return losses


def probes() -> list[CopyingProbe]:
    return copying_probes(np.random.default_rng(1).integers(1, 50, (8, 65)), 0, batch=4)


def metrics(losses: Callable[[CopyingProbe], torch.Tensor]) -> dict[str, float]:
    return copying_metrics(torch.stack([sums_of(probe.kind, probe.marks, losses(probe)) for probe in probes()]).sum(0))


def test_one_that_copies_and_one_that_does_not() -> None:
    copier = metrics(lambda probe: looks_up(probe, RUN_LENGTH - 1))
    assert copier["copying/score"] == copier["copying/random_score"] == 1
    assert copier["copying/first_loss"] == pytest.approx(UNIFORM)
    assert copier["copying/second_loss"] == 0
    never = metrics(lambda probe: torch.full(probe.marks.shape, UNIFORM))
    assert never["copying/score"] == never["copying/random_score"] == pytest.approx(0)


def test_what_is_not_there_has_no_score() -> None:
    sums = torch.zeros(3, 2, 2)
    sums[1] = torch.tensor([[10.0, 5.0], [4.0, 4.0]])
    assert copying_metrics(sums) == {"copying/random_score": 0.5}


def test_windows_cost_a_hundredth_at_most() -> None:
    assert affordable_windows(10**9, 128) == 64
    assert affordable_windows(100, 128) == 1
    assert affordable_windows(10**6, 128) * 5 * 128 / 3 <= 0.01 * 10**6


def test_a_run_records_it_and_its_folder_gives_it_again(
    configure: Callable[..., TrainStage],
) -> None:
    config = configure(seed=31, tokens=str(200 * 8 * 32))
    data: TokensResult = make_tokens(config)
    record = train.run(config, data)
    assert record.copying["second_loss"] == pytest.approx(record.copying["first_loss"] * (1 - record.copying["score"]))
    rows = [row for row in read_history(Path(record.folder) / "metrics.jsonl") if "copying/score" in row]
    assert [row["step"] for row in rows] == [record.spec.steps]
    assert read_record(record.folder) == record
    windows = affordable_windows(record.spec.tokens, 32)
    again = folder_copying(Path(record.folder), TokenShards(data.folder), context=32, windows=windows)
    assert again == pytest.approx({f"copying/{name}": value for name, value in record.copying.items()}, abs=1e-5)
    for kind in TOKEN_KINDS:
        assert rows[0][f"token_kinds/{kind}_loss"] == record.metrics[f"token_kinds/{kind}_loss"]
    total = sum(
        record.metrics[f"token_kinds/{one}_share"] * record.metrics[f"token_kinds/{one}_loss"] for one in TOKEN_KINDS
    )
    assert total == pytest.approx(record.validation_loss)
