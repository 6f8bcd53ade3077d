"""`maquette train`: what makes two runs the same, what a run leaves, and what it says about itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from maquette.artifacts import ConfigError
from maquette.cli import train
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning import pretraining as planning
from maquette.cli.tokens import make_tokens
from maquette.model import count_parameters, hf, training_flops
from maquette.model.loading import load_checkpoint
from maquette.optimization.config import WSDSchedulerConfig, short_name
from maquette.recipe.run_spec import label_of
from maquette.tracking import find_runs
from maquette.training import Job, RunRecord
from support.small_runs import settings, write_documents

Configure = Callable[..., TrainStage]


@pytest.fixture(scope="module")
def configure(tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """`configure(data__sequence_length=64, ...)`: settings of a tiny run over one corpus."""
    root = tmp_path_factory.mktemp("train")
    (root / "documents").mkdir()
    write_documents(root / "documents")
    return lambda **changes: settings(root / "outputs", root / "documents", **changes)


@pytest.fixture(scope="module")
def record(configure: Configure) -> RunRecord:
    """A finished run, recorded in MLflow."""
    return train.run(configure(mlflow=True))


def job_of(config: TrainStage) -> Job:
    """The job that `run` would do."""
    data = make_tokens(config)
    return planning.plan_pretraining(config, data).job


def test_what_a_run_leaves(record: RunRecord) -> None:
    folder = Path(record.folder)
    assert {path.name for path in folder.iterdir()} == {
        "checkpoints", "config.yaml", "figures", "metrics.jsonl", "model", "run.json",
    }  # fmt: skip
    assert {path.name for path in (folder / "figures").iterdir()} == {"loss.png", "loss.svg"}
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    model, tokenizer = load_checkpoint(folder)
    assert hf.load(folder / "model").config == model.config
    assert tokenizer.vocab_size == model.config.vocab_size


def test_the_record_tells_everything(record: RunRecord) -> None:
    model, tokenizer = load_checkpoint(record.folder)
    counts = count_parameters(model.config)
    assert record.spec.parameters == counts
    assert record.spec.size == counts.core + counts.head
    assert record.spec.tokens == record.spec.steps * record.spec.batch_size_tokens == 20 * 256
    assert record.spec.compute == training_flops(model.config, record.spec.tokens, 32).total
    assert record.spec.kaplan_compute == 6 * counts.core * record.spec.tokens
    assert set(record.domains) == {"animals", "things"}
    assert all(values.keys() == {"loss", "perplexity", "bits_per_byte", "epochs"} for values in record.domains.values())
    assert record.spec.digests["tokenizer"] == tokenizer.digest
    assert record.spec.digests.keys() == {"tokens", "tokenizer", "corpus"}
    assert record.versions.keys() >= {"torch", "lightning", "python", "maquette-lm"}
    for value in (record.tokens_per_second, record.mfu, record.peak_memory, record.seconds, record.validation_loss):
        assert value is not None and value > 0
    assert record.samples[0]["text"]


def test_the_tracker_knows_it_too(record: RunRecord, configure: Configure) -> None:
    runs = find_runs(configure().outputs)
    assert list(runs["run_id"]) == [record.tracking_run]
    row = runs.iloc[0]
    assert (row["status"], row["name"]) == ("FINISHED", record.name)
    assert (row["N"], row["D"], row["C"]) == (record.spec.size, record.spec.tokens, record.spec.compute)
    assert row["C_kaplan"] == record.spec.kaplan_compute and row["V"] == record.spec.architecture.vocab_size
    assert row["model.hidden_size"] == 16
    assert row["validation/loss"] == record.validation_loss
    assert row["validation/animals/bits_per_byte"] == record.domains["animals"]["bits_per_byte"]
    assert row["tags.digest.tokens"] == record.spec.digests["tokens"]
    assert row["tags.checkpoint.path"].endswith("step-00000020.ckpt")
    assert (row["tags.compiled"], row["tags.linear_backend"]) == ("false", record.linear_backend)
    assert row["folder"] == record.folder


def test_the_card(record: RunRecord) -> None:
    card = (Path(record.folder) / "model" / "README.md").read_text(encoding="utf-8")
    assert f"{record.spec.size:,}" in card
    assert f"{record.validation_loss:.4f}" in card
    assert record.spec.digests["corpus"] in card
    assert "| animals | 46" in card or "| animals | 4" in card


def test_config_yaml_is_the_same_run_again(record: RunRecord, configure: Configure) -> None:
    written = yaml.safe_load((Path(record.folder) / "config.yaml").read_text(encoding="utf-8"))
    assert written["optimizer"]["lr"] == record.spec.learning_rate
    assert written["data"]["batch_size_tokens"] == 256
    again = configure(
        size="1b",  # has no say beside width and depth
        tokens=written["tokens"],
        optimizer__lr=written["optimizer"]["lr"],
        optimizer__weight_decay=written["optimizer"]["weight_decay"],
        scheduler__warmup=written["scheduler"]["warmup"],
    )
    assert job_of(again).name == record.name


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 2}, {"trainer__log_every_n_steps": 1}, {"data__workers": 3}, {"data__micro_batch_size": 2},
        {"force": True}, {"mlflow": True}, {"callbacks__samples__prompts": []},
        {"callbacks__checkpoint__every_n_train_steps": 1},
    ],
    ids=str,
)  # fmt: skip
def test_how_it_is_run_makes_no_other_run(configure: Configure, changes: dict[str, Any]) -> None:
    assert job_of(configure(**changes)).name == job_of(configure()).name


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1}, {"tokens": "10240"}, {"model__hidden_size": 24}, {"model__qk_norm": True},
        {"data__sequence_length": 64}, {"optimizer": {"_target_": "torch.optim.RMSprop"}},
        {"optimizer__lr": 0.1}, {"optimizer__betas": [0.9, 0.95]}, {"scheduler": WSDSchedulerConfig()},
        {"precision__kind": "bf16-mixed"}, {"mixture__weights": {"animals": 1.0}}, {"objective__z_loss": 0.1},
        {"compile": "auto"}, {"shards__held_out_window": 12}, {"data__document_masking": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_run_does(configure: Configure, changes: dict[str, Any]) -> None:
    assert job_of(configure(**changes)).name != job_of(configure()).name


@pytest.mark.parametrize(
    ("count", "label"),
    [(994, "994"), (1_000, "1k"), (1_234, "1.2k"), (299_300, "300k"), (999_000, "1m"), (5_980_000, "6m"), (2e12, "2t")],
)
def test_labels(count: float, label: str) -> None:
    assert label_of(round(count)) == label


def test_folders_are_called_by_size_and_tokens(configure: Configure) -> None:
    free = {
        "model__hidden_size": None,
        "model__num_hidden_layers": None,
        "model__intermediate_size": None,
        "model__num_attention_heads": None,
    }
    assert job_of(configure(size="300K", tokens="6m", **free)).name.startswith("300k-6m-")
    assert job_of(configure(size="300k", tokens="6m")).name.startswith("9.6k-6m-")


def test_contradictions(configure: Configure) -> None:
    with pytest.raises(ConfigError, match="tokens and compute"):
        train.run(configure(compute="1e12"))
    with pytest.raises(ConfigError, match=r"checkpoint=nothing"):
        train.run(configure(checkpoint="nothing"))


def test_the_command_line_composes_it() -> None:
    from maquette.cli.command_line.registry import STAGES

    config = compose(STAGES["train"], ["size=1m", "scheduler=wsd", "precision=bf16-mixed", "trainer=ddp"])
    assert isinstance(config, TrainStage)
    assert (short_name(config.scheduler), config.precision.kind, config.trainer.devices) == ("wsd", "bf16-mixed", 2)


def test_tried_out_and_then_trained(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    train.run(configure(seed=6))
    trying = configure(seed=5, trainer__fast_dev_run=True)
    assert train.run(trying).status == "fast_dev_run"
    record = train.run(configure(seed=5))
    assert (record.status, record.step) == ("finished", record.spec.steps)
    assert "seed (5, was " in capsys.readouterr().err  # what tells it from the run that is like it
    train.run(trying)
    assert train.run(configure(seed=5)) == record
