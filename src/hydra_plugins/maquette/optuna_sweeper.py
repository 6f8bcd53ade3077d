"""`hydra/sweeper=optuna` (pip install 'maquette-lm[optuna]'): a search for the settings with the best validation loss.

    maquette train -m hydra/sweeper=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-1))' optimizer=adamw,muon

What else an objective's runs are ranked by is in recipe/objectives.py: PPO's by the reward on held-out prompts, which
`hydra.sweeper.direction=maximize` looks for.

The study is in memory and seeded: the same command asks for the same trials again, which find their runs finished, so
it goes on where it was stopped. (hydra-optuna-sweeper, whose settings these are, is pinned to Optuna 2.)
"""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class OptunaSweeperConf:
    _target_: str = "hydra_plugins.maquette.optuna_sweeper.OptunaSweeper"
    direction: str = "minimize"
    n_trials: int = 20
    n_jobs: int = 1
    seed: int = 0
    params: dict[str, str] | None = field(default_factory=dict)


if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="maquette")


class OptunaSweeper(Sweeper):
    """`params`: what is searched, beside the overrides of the command line; `n_jobs`: trials that the launcher is given
    at once."""

    def __init__(
        self, direction: str, n_trials: int, n_jobs: int, seed: int, params: dict[str, str] | None = None
    ) -> None:
        self.direction, self.n_trials, self.n_jobs, self.seed = direction, n_trials, n_jobs, seed
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config, self.folder = hydra_context, config, Path(config.hydra.sweep.dir)
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: Sequence[str]) -> float | None:
        from maquette.artifacts.errors import ConfigError
        from maquette.artifacts.progress import say

        try:
            import optuna
        except ImportError:
            raise ConfigError("hydra/sweeper=optuna is not installed.", "pip install 'maquette-lm[optuna]'.") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [text.partition("=")[0] for text in arguments]
        searched = [f"{key}={value}" for key, value in self.params.items() if key not in given]
        overrides = parser.parse_overrides([*searched, *arguments])
        fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        space = {one.get_key_element(): distribution(one) for one in overrides if one.is_sweep_override()}
        if not space:
            raise ConfigError("There is nothing to search.", "Give keys a range: optimizer.lr=interval(1e-3,1e-1).")
        direction: Any = self.direction
        study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=self.seed))
        while len(study.trials) < self.n_trials:
            count = min(self.n_jobs, self.n_trials - len(study.trials))
            trials = [study.ask(space) for _ in range(count)]
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
            for trial, result in zip(trials, self.launcher.launch(jobs, initial_job_idx=trials[0].number), strict=True):
                value = _value(result)
                chosen = " ".join(f"{key}={value}" for key, value in trial.params.items())
                if value is None:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    say(f"[{trial.number + 1}/{self.n_trials}] {chosen}: failed, or was not validated")
                else:
                    study.tell(trial, value)
                    say(f"[{trial.number + 1}/{self.n_trials}] {chosen}: {value:.4f}")
        return self._conclude(study, say)

    def _conclude(self, study: Any, say: Any) -> float | None:
        if not any(trial.value is not None for trial in study.trials):
            say("no trial came through")
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        best = {"name": "optuna", "best_params": study.best_params, "best_value": study.best_value}
        OmegaConf.save(OmegaConf.create(best), self.folder / "optimization_results.yaml")
        overrides = " ".join(f"{key}={value}" for key, value in study.best_params.items())
        say(f"best of {len(study.trials)} trials: {overrides} ({study.best_value:.4f}); {self.folder}")
        return float(study.best_value)


def distribution(override: Override) -> Any:
    """What a sweep override means to Optuna: values to choose among, or a range, `tag(log, ...)` in logarithms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(sweep, RangeSweep):
        start, step = sweep.start or 0, sweep.step
        stop = sweep.stop if isinstance(sweep.stop, float) else (sweep.stop or 0) - 1
        kind: Any = IntDistribution if isinstance(start, int) and isinstance(step, int) else FloatDistribution
        return kind(start, stop, step=step)
    assert isinstance(sweep, IntervalSweep)
    low: Any = sweep.start
    high: Any = sweep.end
    log = "log" in sweep.tags
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _value(result: Any) -> float | None:
    """What a job returned; None for one that failed, which does not end the search."""
    try:
        value = result.return_value
    except Exception:
        return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
