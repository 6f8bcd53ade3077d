"""`hydra/sweeper=optuna`: a seeded search that replays itself, on a stage whose loss is known."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.registry import STAGES

pytest.importorskip("optuna")


@dataclasses.dataclass
class Result:
    metric: float


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The loss is best at a learning rate of 0.01, and better with the larger batch."""
    seen: list[Any] = []

    def run(self: Any, settings: Any) -> Result:
        rate = settings.optimizer.lr
        if settings.seed == 1 and len(seen) == 3:
            seen.append((rate, None))
            raise RuntimeError("this one breaks")
        seen.append((rate, settings.data.batch_size_tokens))
        return Result(math.log10(rate / 0.01) ** 2 + 100 / settings.data.batch_size_tokens)

    monkeypatch.setattr(type(STAGES["train"]), "run", run)
    monkeypatch.chdir(tmp_path)
    return seen


def search(*overrides: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["train", "-m", "hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(1e-4,1.0))",
             "data.batch_size_tokens=256,1024", "hydra.sweep.dir=search", *overrides]
        )  # fmt: skip
    return int(ended.value.code or 0)


@pytest.mark.slow(reason="trains a search of several runs, twice")
def test_it_finds_the_best_and_asks_the_same_again(asked: list[Any], tmp_path: Path) -> None:
    assert search("hydra.sweeper.n_trials=24") == 0
    first = list(asked)
    results: Any = OmegaConf.load(tmp_path / "search" / "optimization_results.yaml")
    assert 0.002 < results.best_params["optimizer.lr"] < 0.05 and results.best_value < 0.7
    assert len(first) == 24 and {batch for _, batch in first} == {256, 1024}
    asked.clear()
    assert search("hydra.sweeper.n_trials=26") == 0
    assert asked[:24] == first and len(asked) == 26


def test_a_trial_that_fails_does_not_end_it(asked: list[Any], tmp_path: Path) -> None:
    assert search("hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=2", "seed=1") == 0
    assert len(asked) == 6
    assert (tmp_path / "search" / "optimization_results.yaml").exists()


def test_nothing_to_search_is_told(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "-m", "hydra/sweeper=optuna", "size=10k"])
    assert ended.value.code == 2 and "interval" in capsys.readouterr().err
