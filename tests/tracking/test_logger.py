"""The MLflow logger as Lightning's Trainer uses it, and the files of the group `logger`."""

import argparse
import inspect
import pickle
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf

from maquette.artifacts import ConfigError, StageError
from maquette.cli.command_line.composition import register_schema
from maquette.tracking import MLflowLogger, find_runs, start_parent_run
from maquette.tracking.config import TrackingConfig

CONF = Path(__file__).parents[2] / "conf"


def stored(outputs: Path, run_id: str | None) -> Run:
    return MlflowClient(tracking_uri=f"sqlite:///{outputs / 'mlflow.db'}").get_run(run_id)


class Model(BoringModel):
    def __init__(self, width: int = 32, error: type[BaseException] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters("width")
        self.error = error

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.error is not None and batch_idx == 2:
            raise self.error
        loss = self.step(batch)
        self.log_dict({"train/loss": loss, "recall@5": 0.25})
        return loss


def fit(logger: Any, outputs: Path, model: Model | None = None, **changes: Any) -> lightning.Trainer:
    settings = {"max_steps": 6, "limit_val_batches": 0, "log_every_n_steps": 2, "callbacks": [LearningRateMonitor()]}
    trainer = lightning.Trainer(
        logger=logger, default_root_dir=outputs, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **(settings | changes),
    )  # fmt: skip
    trainer.fit(model or Model())
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_leaves_metrics_hyperparameters_and_status(outputs: Path) -> None:
    logger = MLflowLogger(save_dir=str(outputs), run_name="mine", tags={"note": "first"})
    csv = CSVLogger(outputs / "logs")
    trainer = fit([logger, csv], outputs)
    run = stored(outputs, logger.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
    assert run.data.params == {"width": "32"}
    assert {"train/loss", "recall_5", "lr-SGD", "epoch"} <= set(run.data.metrics)
    assert run.data.tags["note"] == "first"
    assert run.data.tags["version.torch"]
    history = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}").get_metric_history(logger.run_id, "train/loss")
    assert [metric.step for metric in history] == [1, 3, 5]
    assert trainer.log_dir == logger.save_dir == str(outputs)
    assert (logger.name, logger.version) == ("maquette", logger.run_id)
    assert logger.experiment.get_run(logger.run_id).info.run_id == logger.run_id


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_that_fails_leaves_a_failed_run(outputs: Path) -> None:
    logger = MLflowLogger(save_dir=str(outputs))
    with pytest.raises(ZeroDivisionError):
        fit(logger, outputs, Model(error=ZeroDivisionError))
    assert stored(outputs, logger.run_id).info.status == "FAILED"
    assert stored(outputs, logger.run_id).data.metrics["recall_5"] == 0.25
    logger.finalize("interrupted")
    assert stored(outputs, logger.run_id).info.status == "KILLED"


def test_what_comes_after_the_end_is_written_too(outputs: Path, tmp_path: Path) -> None:
    logger = MLflowLogger(save_dir=str(outputs))
    logger.log_metrics({"loss": torch.tensor(2.0)})  # type: ignore[dict-item]
    logger.finalize("success")
    (tmp_path / "card.md").write_text("good")
    logger.log_artifact(tmp_path / "card.md", "pages")
    logger.set_tags({"kind": "late"})
    assert logger.flush()
    assert stored(outputs, logger.run_id).data.tags["kind"] == "late"
    assert stored(outputs, logger.run_id).data.metrics == {"loss": 2.0}
    assert (outputs / "mlartifacts" / str(logger.run_id) / "artifacts" / "pages" / "card.md").exists()


def test_a_resumed_run_goes_on_and_names_what_differs(outputs: Path) -> None:
    first = MLflowLogger(save_dir=str(outputs))
    first.log_hyperparams({"threads": 1, "optimizer": {"lr": 0.1}})
    first.log_metrics({"loss": 3.0}, 0)
    first.finalize("failed")
    second = MLflowLogger(save_dir=str(outputs), run_id=first.run_id)
    second.log_hyperparams(argparse.Namespace(threads=2, optimizer=OmegaConf.create({"lr": 0.1})))
    second.log_metrics({"loss": 2.0}, 1)
    assert second.flush()
    run = stored(outputs, first.run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"threads": "1", "optimizer.lr": "0.1"}
    assert run.data.tags["resumed.threads"] == "2"
    assert "resumed.optimizer.lr" not in run.data.tags
    second.finalize("success")
    assert list(find_runs(outputs)["run_id"]) == [first.run_id]


def test_a_run_belongs_to_its_parent(outputs: Path) -> None:
    with start_parent_run(TrackingConfig(), outputs=outputs, name="sweep", folder=outputs) as parent:
        logger = MLflowLogger(save_dir=str(outputs), parent_run_id=parent.run_id, folder=str(outputs / "runs" / "a"))
        logger.finalize(str(logger.experiment) and "success")
    (row,) = find_runs(outputs, filter=f"tags.`mlflow.parentRunId` = '{parent.run_id}'").to_dict("records")
    assert (row["run_id"], row["folder"]) == (logger.run_id, str(outputs / "runs" / "a"))


def test_nothing_is_opened_before_it_is_used_and_a_used_one_resumes_elsewhere(tmp_path: Path) -> None:
    logger = pickle.loads(pickle.dumps(MLflowLogger(save_dir=str(tmp_path), prefix="big")))
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []
    logger.log_metrics({"loss": 1.0}, 0)
    other = pickle.loads(pickle.dumps(logger))
    other.log_metrics({"loss": 0.5}, 1)
    other.finalize("success")
    assert other.run_id == logger.run_id
    assert stored(tmp_path, logger.run_id).data.metrics == {"big-loss": 0.5}


def test_other_ranks_than_zero_touch_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = MLflowLogger(save_dir=str(tmp_path), run_id="abc")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.log_hyperparams({"a": 1})
    logger.log_artifact(tmp_path)
    logger.experiment.log_text("abc", "text", "file")
    assert logger.flush()
    logger.finalize("success")
    assert logger.version == "abc"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_can_not_be_used_is_told_at_the_first_use(tmp_path: Path, outputs: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError):
        _ = MLflowLogger(save_dir=str(tmp_path / "file")).experiment
    with pytest.raises(ConfigError, match="mlflow server"):
        _ = MLflowLogger(save_dir=str(outputs), num_nodes=2).experiment


def composed(*overrides: str) -> Any:
    register_schema("train")
    with initialize_config_dir(version_base=None, config_dir=str(CONF)):
        return compose(overrides=list(overrides)).get("logger")


@pytest.mark.parametrize("name", ["mlflow", "csv", "tensorboard", "wandb"])
def test_each_file_names_arguments_that_its_class_has(name: str) -> None:
    (node,) = composed(f"+logger={name}").values()
    arguments = set(node) - {"_target_"}
    assert arguments <= set(inspect.signature(get_class(node._target_)).parameters)


def test_ours_shows_its_arguments_with_their_defaults() -> None:
    config = composed("+logger=mlflow", "+outputs=outputs", "+trainer.num_nodes=1").mlflow
    parameters = inspect.signature(MLflowLogger).parameters
    shown = {key: value or None for key, value in config.items() if key != "_target_"}
    assert shown == {key: parameters[key].default or None for key in shown}
    assert set(parameters) - set(shown) == {"folder"}  # only the run knows it


def test_several_loggers_at_once_and_none(outputs: Path) -> None:
    config = composed("+logger=[csv,mlflow]", f"+outputs={outputs}", "+trainer.num_nodes=1")
    csv, mlflow = (instantiate(node) for node in config.values())
    assert isinstance(csv, CSVLogger)
    assert isinstance(mlflow, MLflowLogger)
    mlflow.log_metrics({"loss": 1.0}, 0)
    mlflow.finalize("success")
    assert stored(outputs, mlflow.run_id).data.metrics == {"loss": 1.0}
    assert [node for node in composed("+logger=none").values() if node is not None] == []
