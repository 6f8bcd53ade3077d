"""Cooldowns that branch off from one trunk: each is the run it would have been alone, bit for bit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maquette.artifacts import ConfigError
from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning import branching
from maquette.cli.planning.branching import Branching, plan_tree
from maquette.cli.sweeps.forecast import forecast
from maquette.cli.tokens import make_tokens
from maquette.optimization import build_schedule
from maquette.optimization.config import LinearSchedulerConfig, WSDSchedulerConfig
from maquette.tracking import find_runs
from maquette.training import read_history, read_record, train_job
from maquette.training.checkpoint_io import CheckpointFolder
from support.small_runs import settings, write_documents

pytestmark = pytest.mark.usefixtures("no_pictures")

Configure = Callable[..., TrainStage]


@pytest.fixture(scope="module")
def configure(tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """`configure(seed=1, ...)`: 20 steps of 256 tokens over one corpus, with branches after 10 and 15 steps."""
    root = tmp_path_factory.mktemp("branching")
    (root / "documents").mkdir()
    write_documents(root / "documents")

    def configure(**changes: Any) -> TrainStage:
        branches = WSDSchedulerConfig(branches=["2560", "3840"], warmup=0.2)
        return settings(root / "outputs", root / "documents", **{"scheduler": branches, **changes})

    return configure


@pytest.fixture(scope="module")
def tree(configure: Configure) -> Branching:
    """Trained, with a record in MLflow."""
    config = configure(mlflow=True)
    data = make_tokens(config)
    planned = plan_tree(config, data)
    assert not forecast(config, data).finished
    record = train.run(config, data)
    assert record.name == planned.branches[-1].spec.name
    assert forecast(config, data).finished
    return planned


def test_each_token_budget_is_a_run_of_its_own(tree: Branching) -> None:
    records = [read_record(branch.folder) for branch in tree.branches]
    assert [record and (record.status, record.step, record.spec.tokens) for record in records] == [
        ("finished", 10, 2560), ("finished", 15, 3840), ("finished", 20, 5120),
    ]  # fmt: skip
    assert len({record.spec.fingerprint for record in records if record}) == 3
    trunk = read_record(tree.trunk.folder)
    assert trunk is not None and trunk.status == "finished"
    # Half of the longest run and two fifths of the others are not trained twice.
    assert tree.tokens < 0.75 * (2560 + 3840 + 5120)
    assert tree.trunk.kept_steps <= set(CheckpointFolder(tree.trunk.folder / "checkpoints").steps())


def test_horizons_are_whole_steps_that_share_the_trunks_warmup(configure: Configure) -> None:
    config = configure(scheduler__branches=["2500", "3900"])
    tree = plan_tree(config, make_tokens(config))
    assert [branch.spec.tokens for branch in tree.branches] == [2560, 3840, 5120]
    jobs = [tree.trunk.job, *(branch.job for branch in tree.branches)]
    warmups = [build_schedule(job.scheduler, job.spec.tokens, job.spec.warmup).warmup for job in jobs]
    assert warmups == [pytest.approx(warmups[0], rel=1e-12)] * 4


def test_they_are_children_of_the_trunk(tree: Branching, configure: Configure) -> None:
    runs = find_runs(configure().outputs).set_index("name")
    trunk = runs.loc[tree.trunk.spec.name]
    assert trunk["tags.kind"] == "trunk"
    for branch in tree.branches:
        row = runs.loc[branch.spec.name]
        assert row["parent"] == trunk["run_id"]
        assert (row["D"], row["C"]) == (branch.spec.tokens, branch.spec.compute)
        assert row["validation/loss"] > 0


@pytest.mark.slow(reason="trains a tree of runs, then parts of it again")
def test_a_branch_is_what_it_would_have_been_alone(tree: Branching, tmp_path: Path) -> None:
    for branch in tree.branches[:2]:
        assert branch.branch_step > 0
        alone = train.run(dataclasses.replace(branch.config, outputs=str(tmp_path)))
        assert alone.name == branch.spec.name
        expected = load_file(Path(alone.folder) / "model" / "model.safetensors")
        for name, tensor in load_file(branch.folder / "model" / "model.safetensors").items():
            assert torch.equal(tensor, expected[name]), name
        losses = [
            [row.get("train/loss") for row in read_history(Path(folder) / "metrics.jsonl") if "train/loss" in row]
            for folder in (alone.folder, branch.folder)
        ]
        assert losses[0] == losses[1]


@pytest.mark.slow(reason="trains a tree of runs, then parts of it again")
def test_stopped_it_goes_on_where_it_was(
    configure: Configure, tree: Branching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, ran = train_job.fit, []

    def stopping(job: Any) -> Any:
        ran.append(job.name)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return fit(job)

    monkeypatch.setattr(train_job, "fit", stopping)
    config = dataclasses.replace(configure(), outputs=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        train.run(config)
    record = train.run(config)
    assert ran == [tree.trunk.spec.name, *[branch.spec.name for branch in (tree.branches[0], *tree.branches)]]
    whole = read_record(tree.branches[-1].folder)
    assert whole is not None and record.validation_loss == whole.validation_loss


def test_without_the_trunks_checkpoint_a_branch_trains_from_the_beginning(tree: Branching, tmp_path: Path) -> None:
    branch, gone = (
        dataclasses.replace(run, config=dataclasses.replace(run.config, outputs=str(tmp_path)))
        for run in (tree.branches[0], tree.trunk)
    )
    assert not branching.resume_from_trunk(dataclasses.replace(tree, trunk=gone), branch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": LinearSchedulerConfig(branches=["2560"])}, "only a stable rate has a trunk"),
        ({"scheduler__branches": ["9k"]}, "9,000 tokens, and the run itself only 5,120"),
        ({"scheduler__branches": ["512"], "scheduler__warmup": 0.9}, "cools down before it is warm|overlap"),
    ],
)
def test_mistakes(configure: Configure, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train.run(configure(**changes))
