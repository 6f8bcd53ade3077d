"""Lightning's logger for MLflow, with a buffer between it and the store.

Why not `lightning.pytorch.loggers.MLFlowLogger`, or a subclass of it, which logs in the training step? Measured with
Lightning 2.6, MLflow 3.17 and a SQLite store, twelve values every ten steps of a 300k model (32 ms a step, one thread;
`python benchmarks/tracking_overhead.py`), time in the step and processor time of other threads together:

    MLFlowLogger                       5.2% of the run     19% at 30k parameters
    MLFlowLogger(synchronous=False)    2.2%                 6.4%
    this one                           0.4%                 0.8%

Moreover a store that is locked or away raises in the training step there, or loses the values (`synchronous=False`);
and its constructor opens the store, in every process: 1.5 s for a new one, and of two at once one may fail. A subclass
would have to replace all but `after_save_checkpoint`, so this is a `Logger` of its own. Lightning's works too, as any
logger does: `logger.mlflow._target_=lightning.pytorch.loggers.MLFlowLogger`.
"""

import contextlib
import posixpath
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from maquette.tracking.config import TrackingConfig
from maquette.tracking.run_log import NOT_IN_NAMES, RunLog, open_run, start_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

_STATUSES = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLflowLogger(Logger):
    """Metrics, settings, tags and artifacts of a run in MLflow. The run begins at the first use, on rank zero; until
    then the logger can be pickled."""

    def __init__(
        self,
        experiment_name: str = TrackingConfig.experiment,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, Any] | None = None,
        save_dir: str = "outputs",
        prefix: str = "",
        run_id: str | None = None,
        parent_run_id: str | None = None,
        folder: str | None = None,
        num_nodes: int = 1,
    ) -> None:
        """`tracking_uri`: an MLflow server, or sqlite:///<file>; None: the server that MLFLOW_TRACKING_URI names, else
        `<save_dir>/mlflow.db`. `run_id` resumes a run: its curves continue. `parent_run_id`: the run that this one is
        shown under. `prefix` stands before each metric's name, with a `-`. `folder`: the run's own (by default
        `save_dir`), for points that the store never took. `num_nodes`: with more than one, a SQLite file is refused.
        """
        super().__init__()
        self._config = TrackingConfig(
            uri=tracking_uri, experiment=experiment_name, run_name=run_name, parent=parent_run_id
        )
        self._tags = dict(tags or {})
        self._save_dir, self._folder = str(save_dir), str(folder or save_dir)
        self._prefix, self._run_id, self._num_nodes = prefix, run_id, num_nodes
        self._names: dict[str, str] = {}
        self._log: RunLog | None = None
        self._ends_with_trainer = True

    @property
    @rank_zero_experiment
    def experiment(self) -> "MlflowClient":
        """MLflow's own client, for what this class has no method for: `logger.experiment.log_text(logger.run_id, ...)`.

        Raises `StageError` where the store can't be written or reached.
        """
        client = self._opened().client
        assert client is not None  # it records
        return client

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id; on other ranks than zero only a resumed one is known."""
        return self._opened().run_id if getattr(rank_zero_only, "rank", 0) == 0 else self._run_id

    @property
    def name(self) -> str:
        return self._config.experiment

    @property
    def version(self) -> str | None:
        return self.run_id

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Takes the values and returns at once. Characters that MLflow takes in no name become `_`."""
        self._opened().log_metrics({self._name_of(key): value for key, value in metrics.items()}, step or 0)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Nested settings as dotted names; one that differs in a resumed run becomes the tag `resumed.<name>`."""
        self._opened().log_params(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._opened().set_tags(tags)

    @rank_zero_only
    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Copies a file or folder into the run's artifacts, under `folder`."""
        self._opened().log_artifact(path, folder)

    @contextlib.contextmanager
    def recording(
        self, *, name: str, folder: Path, params: Mapping[str, Any], tags: Mapping[str, Any], run_id: str | None = None
    ) -> Iterator[RunLog]:
        """Records the block as a run, as `start_run` does, and yields what it is written to. What the settings of the
        logger leave open is `name`, `folder` and `run_id`'s; and how the block ends says how the run does, not the
        Trainer, after whom a run has still its model to export."""
        with start_run(
            self._config, outputs=self._save_dir, name=name, folder=folder, params=params, tags={**tags, **self._tags},
            run_id=self._run_id or run_id, num_nodes=self._num_nodes,
        ) as log:  # fmt: skip
            self._log, self._run_id, self._ends_with_trainer = log, log.run_id, False
            yield log

    def flush(self) -> bool:
        """Waits until everything so far is in the store; False where the store fails."""
        return self._log is None or self._log.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left and ends the run: `success`, `failed`, `interrupted`, or a status of MLflow's. What is
        logged afterwards is written too."""
        if self._log is not None and self._ends_with_trainer:
            self._log.finish(_STATUSES.get(status, status.upper()))

    def _opened(self) -> RunLog:
        if self._log is None:
            self._log = open_run(
                self._config, outputs=self._save_dir, name=None, folder=self._folder, tags=self._tags,
                run_id=self._run_id, num_nodes=self._num_nodes,
            )  # fmt: skip
            self._run_id = self._log.run_id
        return self._log

    def _name_of(self, key: str) -> str:
        if key not in self._names:
            name = posixpath.normpath(NOT_IN_NAMES.sub("_", f"{self._prefix}-{key}" if self._prefix else key))
            self._names[key] = name = name.lstrip("/.") or "_"
            if not name.endswith(key):
                rank_zero_warn(f"MLflow does not take '{key}' as the name of a metric: it is logged as '{name}'.")
        return self._names[key]

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which resumes the run where it had begun."""
        self.flush()
        return {**self.__dict__, "_log": None}
