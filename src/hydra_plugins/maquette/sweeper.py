"""`hydra/sweeper=maquette`, the default sweeper of the stages: a line becomes a list of jobs, finished ones are
left out, and any launcher runs the rest.

The work is done in `maquette.cli.sweeps`, which is imported when a sweep begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class MaquetteSweeperConf:
    _target_: str = "hydra_plugins.maquette.sweeper.MaquetteSweeper"
    params: dict[str, str] | None = field(default_factory=dict)
    max_batch_size: int | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="maquette", node=MaquetteSweeperConf, provider="maquette")


class MaquetteSweeper(Sweeper):
    """`params`: values to sweep over, as in Hydra's basic sweeper; `max_batch_size`: jobs that the launcher is given at
    once."""

    def __init__(self, params: dict[str, str] | None = None, max_batch_size: int | None = None) -> None:
        self.params, self.max_batch_size = dict(params or {}), max_batch_size
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: Sequence[str]) -> Any:
        from maquette.cli.sweeps.running import run_sweep

        return run_sweep(self, list(arguments))
