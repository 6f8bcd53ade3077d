"""The package of a user's in examples/stranger: each part does something, and nothing of ours was edited for it."""

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import import_target
from maquette.cli import export, train
from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.model_config import ExportStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning import post_training
from maquette.cli.sweeps.jobs import plan
from maquette.feedback.building import build_annotator, build_reward
from maquette.feedback.comparison import Comparison
from maquette.feedback.config import FeedbackConfig, RewardConfig
from maquette.model import hf
from maquette.objectives.completions import Completion
from maquette.scaling import compare_forms
from maquette.tracking import find_runs
from maquette.training import RunRecord, read_history, read_record
from support.small_runs import write_documents
from support.sweeps import TRUTHS, half_decades, isoflop_sweep
from support.warm_processes import start_maquette

pytestmark = pytest.mark.usefixtures("no_pictures")

PACKAGE = Path(__file__).parents[2] / "examples" / "stranger"
TEXT = (
    "source=jsonl", "corpus.near_duplicates=1.0", "corpus.validation=0.1", "corpus.test=0", "corpus.workers=1",
    "source.path=documents", "shards.workers=1", "tokenizer=byte", "shards.held_out_window=0",
    "data.sequence_length=32", "data.batch_size_tokens=256", "data.validation_tokens=512",
)  # fmt: skip
SMALL = ("size=10k", "tokens=5k", "threads=1", "compile=off", "num_validations=2", "trainer.log_every_n_steps=5")
QUIET = ("logger=none", "callbacks.samples.prompts=[]")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, in which the user stands."""
    shutil.copytree(PACKAGE, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    (tmp_path / "mine" / "documents").mkdir()
    write_documents(tmp_path / "mine" / "documents")
    monkeypatch.chdir(tmp_path / "mine")
    yield tmp_path / "mine"
    for name in [name for name in sys.modules if name.partition(".")[0] == "stranger"]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path / "mine")]


def composed(*words: str) -> TrainStage:
    config = compose(STAGES["train"], words, Path("conf"))
    assert isinstance(config, TrainStage)
    return config


def trained(*words: str) -> RunRecord:
    return train.run(composed(*SMALL, *QUIET, *words))


def weights(record: RunRecord) -> dict[str, torch.Tensor]:
    return load_file(Path(record.folder) / "model" / "model.safetensors")


def curve(record: RunRecord, name: str) -> list[float]:
    return [row[name] for row in read_history(Path(record.folder) / "metrics.jsonl") if name in row]


def test_every_file_is_short() -> None:
    files = [path for path in (PACKAGE / "stranger").glob("*.py")]
    assert {path.stem for path in files} >= {"callback", "data", "law", "model", "objective", "reward"}
    assert all(len(path.read_text().splitlines()) < 40 for path in files)


def test_callbacks_of_theirs_and_of_lightnings_see_the_run() -> None:
    record = trained(*TEXT, "callbacks=theirs")
    assert len(curve(record, "distance")) >= 3 and curve(record, "distance")[-1] > curve(record, "distance")[0] > 0
    assert Path("outputs/best", record.name, "best.ckpt").exists()
    assert any(name.startswith("lr-") for row in read_history(Path(record.folder) / "metrics.jsonl") for name in row)


@pytest.mark.slow(reason="trains two models")
def test_stock_early_stopping_stops(capsys: pytest.CaptureFixture[str]) -> None:
    whole = trained(*TEXT, "num_validations=10")
    stopped = trained(
        *TEXT, "num_validations=10", "seed=1",
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping", "+callbacks.stop.monitor=validation/loss",
        "+callbacks.stop.patience=1", "+callbacks.stop.min_delta=10.0",
    )  # fmt: skip
    assert stopped.step < whole.step
    assert f"ended early, after step {stopped.step} of {whole.step}" in capsys.readouterr().err


@pytest.mark.slow(reason="imports TensorBoard and wandb, and trains")
def test_several_loggers_see_the_run() -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    record = train.run(composed(*SMALL, *TEXT, "callbacks.samples.prompts=[]", "logger=theirs"))
    rows = Path("outputs/logs/csv/version_0/metrics.csv").read_text()
    assert "train/loss" in rows and "validation/loss" in rows
    assert list(Path("outputs/logs/tensorboard").rglob("events.out.tfevents*"))
    assert list(Path("outputs/logs/wandb").glob("offline-run-*"))
    assert list(find_runs("outputs")["name"]) == [record.name]
    # Who watches does not change what a run is.
    assert train.run(composed(*SMALL, *TEXT, *QUIET)) == record


def test_an_optimizer_and_a_schedule_by_a_file_of_theirs() -> None:
    record = trained(*TEXT, "optimizer=theirs", "scheduler=theirs", "callbacks.checkpoint.every_n_train_steps=10")
    state = torch.load(next(Path(record.folder).rglob("*.ckpt")), weights_only=True)
    group = state["optimizer_states"][0]["param_groups"][0]
    assert group["alpha"] == 0.99 and "betas" not in group
    assert state["lr_schedulers"][0]["T_max"] == 100
    assert record.training_loss is not None and record.training_loss < 5.5


def test_data_of_theirs_train_without_a_corpus() -> None:
    record = trained("data=theirs", "tokens=40k")
    assert not Path("outputs/artifacts/corpus").exists() and record.spec.digests.keys() == {"tokens", "tokenizer"}
    losses = curve(record, "train/loss")
    assert losses[-1] < losses[0] - 0.2 and record.validation_loss is not None
    assert hf.load(Path(record.folder) / "model").config.vocab_size == 17


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two more processes that train")
def test_two_processes_share_data_of_theirs_as_one_has_them() -> None:
    words = ("data=theirs", "tokens=20k", "optimizer.lr=3e-3", "callbacks.checkpoint.every_n_train_steps=10")
    one = trained(*words, "data.batch_size=16", "outputs=one")
    two = trained(*words, "data.batch_size=8", "trainer=ddp", "trainer.devices=2", "outputs=two")
    numbers = [(run.spec.steps, run.spec.tokens, run.spec.learning_rate) for run in (one, two)]
    assert numbers[0] == numbers[1]
    expected, result = weights(one), weights(two)
    assert all(torch.allclose(expected[name], result[name], atol=1e-5) for name in expected)
    assert two.validation_loss == pytest.approx(one.validation_loss, abs=1e-5)


@pytest.mark.slow(reason="trains a base model and a policy")
def test_a_policy_is_optimised_for_a_reward_of_theirs() -> None:
    start = trained(*TEXT, "data.sequence_length=256", "data.batch_size_tokens=1024")
    words = (
        "objective=ppo", f"checkpoint={start.folder}", "reward.callable=stranger.reward:short",
        "objective.num_iterations=2", "objective.rollout_batch_size=8", "objective.num_minibatches=2",
        "objective.max_completion_length=6", "callbacks.checkpoint.every_n_train_steps=2",
    )  # fmt: skip
    record = trained(*words)
    scores = curve(record, "objective/scores")
    assert scores and all(-6.0 <= score <= 0.0 for score in scores)
    before, after = weights(start), weights(record)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert trained(*words) == record
    path = Path("stranger/reward.py")
    path.write_text(path.read_text() + "\n# edited\n")
    assert post_training.plan_policy(composed(*SMALL, *QUIET, *words)).spec.name != record.name


@pytest.mark.slow(reason="finds sizes for two architectures, and trains")
def test_a_model_of_theirs_takes_part_in_a_sweep() -> None:
    words = [
        *TEXT, *QUIET, "threads=1", "compile=off", "num_validations=1",
        "+sweep=isoflop", "sweep.budgets=[3e9]", "sweep.sizes_per_budget=3", "model=theirs,transformer",
    ]  # fmt: skip
    sweep = plan(STAGES["train"], words, Path("conf"))
    kinds = [job.forecast.kind for job in sweep.jobs if job.forecast]
    assert sorted(kinds) == ["stranger.model.build"] * 3 + ["transformer, swiglu"] * 3
    for job in sweep.jobs:
        assert job.forecast is not None and job.forecast.compute == pytest.approx(3e9, rel=0.1)
    record = trained(*TEXT, "model=theirs")
    assert record.spec.architecture_kind == "stranger.model.build"
    assert record.spec.size == sum(value.numel() for name, value in weights(record).items() if "embedding" not in name)


def test_an_activation_of_theirs() -> None:
    record = trained(*TEXT, "model=snake")
    learned = [value for name, value in weights(record).items() if name.endswith(".a")]
    assert learned and all(value.item() != 1.0 for value in learned)


@pytest.mark.slow(reason="trains four models")
def test_an_objective_of_theirs_has_its_own_loss_is_tracked_and_exported(capsys: pytest.CaptureFixture[str]) -> None:
    plain, same = trained(*TEXT), trained(*TEXT, "objective=theirs", "objective.gamma=0")
    assert curve(same, "train/loss") == pytest.approx(curve(plain, "train/loss"), rel=1e-5)
    config = composed(*SMALL, *TEXT, "callbacks.samples.prompts=[]", "objective=theirs", "objective.gamma=2")
    focal = train.run(config)
    assert focal.name not in (plain.name, same.name) and focal.spec.objective == "stranger.objective.FocalLoss"
    assert curve(focal, "train/loss")[-1] < curve(focal, "train/cross_entropy")[-1]
    assert focal.validation_loss is not None and focal.validation_loss < 5.5
    runs = find_runs("outputs")
    assert list(runs["name"]) == [focal.name]
    objective = import_target("stranger.objective.FocalLoss")
    again = objective.load_from_checkpoint(next(Path(focal.folder).rglob("*.ckpt")), weights_only=True)
    assert again.config.gamma == 2 and again.model is not None
    folder = export.run(ExportStage(checkpoint=focal.folder))
    assert hf.load(folder).config.vocab_size == 272
    # One line of it edited: another run. The same line typed again: the same.
    assert (
        train.run(composed(*SMALL, *TEXT, "callbacks.samples.prompts=[]", "objective=theirs", "objective.gamma=2"))
        == focal
    )
    path = Path("stranger/objective.py")
    path.write_text(path.read_text() + "\n# edited\n")
    again = train.run(config)
    assert again.spec.fingerprint != focal.spec.fingerprint and again.spec.settings == focal.spec.settings
    assert f"stranger.objective has changed since {focal.name}" in " ".join(capsys.readouterr().err.split())
    assert find_runs("outputs")["name"].tolist().count(again.name) == 1
    # A logger and a callback that only watches added: nothing is trained.
    added = ("+logger.csv._target_=lightning.pytorch.loggers.CSVLogger", "+logger.csv.save_dir=csv",
             "+callbacks.rate._target_=lightning.pytorch.callbacks.LearningRateMonitor")  # fmt: skip
    words = (*SMALL, *TEXT, "callbacks.samples.prompts=[]", "objective=theirs", "objective.gamma=2")
    assert train.run(composed(*words, *added)) == again and not Path("csv").exists()


@pytest.mark.slow(reason="trains six models")
def test_an_objective_of_theirs_sweeps() -> None:
    words = ["train", "-m", "--config-dir", "conf", "+sweep=theirs", *TEXT, *SMALL[1:], *QUIET, "num_validations=1"]
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert not caught.value.code
    records = [read_record(path) for path in Path("outputs/runs").iterdir() if (path / "run.json").is_file()]
    gammas = [record.spec.settings["objective"]["settings"]["gamma"] for record in records if record]
    assert sorted(gammas) == [0, 0, 1, 1, 2, 2]


KILLER = """
import os, signal
from lightning.pytorch import Callback

class Killer(Callback):
    changes_training = False

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 11:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow(reason="kills a process that trains, and trains twice beside it")
@pytest.mark.parametrize("given", [(*TEXT, "objective=theirs"), ("data=theirs", "objective=theirs", "model=theirs")])
def test_killed_and_resumed_it_ends_with_the_same_bits(given: tuple[str, ...]) -> None:
    words = [*SMALL, *QUIET, *given, "callbacks.checkpoint.every_n_train_steps=7"]
    whole = train.run(composed(*words, "outputs=whole"))
    Path("stranger/kill.py").write_text(KILLER)
    line = ["train", "--config-dir", "conf", *words, "outputs=killed"]
    process = start_maquette(*line, "+callbacks.kill._target_=stranger.kill.Killer")
    assert process.wait() == -signal.SIGKILL and list(Path("killed").rglob("checkpoints/*.json"))
    resumed = train.run(composed(*words, "outputs=killed"))
    one, other = weights(whole), weights(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert curve(whole, "train/loss") == curve(resumed, "train/loss")


def test_a_reward_and_an_annotator_are_functions() -> None:
    reward = build_reward(RewardConfig(callable="stranger.reward:short"), "outputs")
    assert reward([Completion((), "one two", (), (), True), Completion((), "", (), (), True)]) == [-2.0, 0.0]
    judge = build_annotator(FeedbackConfig(kind="callable", callable="stranger.reward.prefer_short"), "outputs", [])
    judged = judge.judge([Comparison((), "a", "bb"), Comparison((), "aa", "b"), Comparison((), "a", "a")])
    assert [one.preference for one in judged] == [1.0, 0.0, 0.5]


def test_a_law_of_theirs_is_compared_with_ours() -> None:
    sweep = isoflop_sweep(TRUTHS["kaplan"], half_decades(1e17, 5), noise=0.002, sizes=5)
    result = compare_forms(*sweep, forms=["stranger.law:Coupled"], bootstrap=40)
    assert "Coupled" in result.overall and np.isfinite(result.predict(1e8, 1e10, form="Coupled").loss)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["objective=theirs", "+objective.gama=1"], "gamma"),
        (["model=theirs", "+model.layer=3"], "layers"),
        (["data=theirs", "+data.digit=3"], "digits"),
        (["objective._target_=stranger.objective.FocalLos"], "FocalLoss"),
        (["optimizer=theirs", "+optimizer.alfa=1"], "alpha"),
    ],
)
def test_a_misspelt_key_of_theirs_gets_the_nearest_before_any_data_is_read(words: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        composed(*words)
