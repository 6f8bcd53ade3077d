"""A policy's training in the training package: what a run leaves, and that a killed one ends with the same bits."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maquette.artifacts import ConfigError, StageError
from maquette.model import hf
from maquette.model.loading import load_checkpoint, load_reward_model
from maquette.objectives.config import PolicyConfig
from maquette.objectives.rollouts import RolloutLoader, Rollouts, RolloutSchedule
from maquette.text import Tokenizer
from maquette.training import Job, fit, read_history, read_record
from maquette.training.checkpoint_io import CheckpointFolder
from maquette.training.devices import Hardware
from maquette.training.policy import PolicyPlan
from maquette.training.processes import launch
from support.one_policy import REWARD, LetterFeedback, make_job
from support.warm_processes import start_program

PROGRAM = Path(__file__).parents[1] / "support" / "one_policy.py"


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("speed/")}


RUN = "runs/policy"
"""Where `make_job` trains, in its folder."""


def same_run(one: Path, other: Path) -> None:
    """Equal weights, optimiser, value function, and curves."""
    weights, others = (load_file(folder / RUN / "model" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    states = []
    for folder in (one, other):
        newest = CheckpointFolder(folder / RUN / "checkpoints").newest(print)
        assert newest is not None
        states.append(torch.load(newest[1], weights_only=True))
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    assert any(name.startswith("value.") for name in states[0]["state_dict"]) == ("stopped" in states[0]["policy"])
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    moments = [state["optimizer_states"][0]["state"] for state in states]
    for number, moment in moments[0].items():
        assert torch.equal(moment["exp_avg"], moments[1][number]["exp_avg"])
    assert states[0]["policy"] == states[1]["policy"]
    curves = [read_history(folder / RUN / "metrics.jsonl") for folder in (one, other)]
    assert [without_times(row) for row in curves[0]] == [without_times(row) for row in curves[1]]


def test_what_a_run_leaves(tmp_path: Path) -> None:
    record = fit(make_job(tmp_path, {}))
    history = read_history(tmp_path / RUN / "metrics.jsonl")
    assert record.status == "finished" and record.step == 24 == history[-1]["step"]
    for name in (
        "objective/kl", "objective/scores", "objective/entropy", "objective/rlhf_reward", "policy/clipfrac_avg",
        "policy/approxkl_avg", "val/clipfrac_avg", "val/explained_variance", "val/ratio", "loss/policy_avg",
        "loss/value_avg", "completions/mean_length", "completions/eos_rate", "episode",
    ):  # fmt: skip
        assert name in history[1], name
    before, _ = load_checkpoint(tmp_path / "start")
    start, history = history[0], history[1:]
    assert start["step"] == 0 and start["validation/norm"] == float(before.head_weight.norm())
    assert [row["episode"] for row in history] == [8 * (step // 4 + 1) for step in range(24)]
    firsts = [row["val/ratio"] for row in history[::4]]
    assert firsts == [1.0] * 6  # every iteration begins where it has sampled
    assert "validation/norm" in record.metrics and len(record.samples) == 2
    assert (tmp_path / RUN / "figures" / "policy.png").exists()
    model, _ = load_checkpoint(tmp_path / RUN)
    assert not torch.equal(model.head_weight, before.head_weight)


@pytest.mark.parametrize("changes", [{}, {"objective": "online_dpo"}], ids=["ppo", "online_dpo"])
@pytest.mark.slow(reason="processes that train, and are killed")
def test_killed_in_the_middle_of_rollouts_and_anywhere_else(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    fit(make_job(whole, changes))
    # Calls of the reward: one to standardise scores, then one an iteration. Saved are steps 3, 6, 9 ...: iteration 3
    # begins at step 8, so the first kill falls into rollouts after a checkpoint in mid-iteration.
    for call in (4, 2):
        for trace in killed.glob("scored-*"):
            trace.unlink()
        process = start_program(PROGRAM, str(killed), json.dumps(changes))
        while not (killed / f"scored-{call}").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)  # the reward still takes its time
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = read_record(killed / RUN)
    assert before is not None and before.status == "running"
    fit(make_job(killed, changes))
    same_run(whole, killed)


LORA = {"_target_": "peft.LoraConfig", "r": 4, "lora_alpha": 8}


def test_an_adapter_alone_is_trained(tmp_path: Path) -> None:
    """Policy and value function have one each; the reference is the policy's own weights without it."""
    job = make_job(tmp_path, {}, adapter=LORA)
    opened = job.plan.open(job, Tokenizer.load(tmp_path / "start"))
    record = fit(job)
    assert record.metrics["objective/kl"] > 0
    checkpoint = CheckpointFolder(tmp_path / RUN / "checkpoints").newest(print)
    assert checkpoint is not None
    saved = torch.load(checkpoint[1], weights_only=True)["state_dict"]
    assert saved and all(".lora_" in name or name.startswith("value.score.") for name in saved)
    module = type(opened.module).load_from_checkpoint(checkpoint[1], weights_only=True)
    state = module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved.items())
    owned = {id(parameter) for parameter in module.model.parameters()}
    assert all(id(parameter) in owned for parameter in module.reference.parameters())
    before = load_checkpoint(tmp_path / "start")[0].state_dict()
    for name, value in before.items():
        for part in ("model", "value"):
            there = name if f"{part}.{name}" in state else name.replace(".weight", ".base_layer.weight")
            if part == "model" or not name.startswith("head"):
                assert torch.equal(state[f"{part}.{there}"], value), there
    assert any(name.startswith("value.core") and "lora_B" in name and value.any() for name, value in state.items())
    after = load_checkpoint(tmp_path / RUN)[0].state_dict()
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    model, tokenizer = load_checkpoint(tmp_path / "start")
    torch.nn.init.zeros_(model.head_weight)
    hf.save(model, tokenizer, tmp_path / "start")
    with pytest.raises(StageError, match="start holds other weights"):
        type(opened.module).load_from_checkpoint(checkpoint[1], weights_only=True)
    old = torch.load(checkpoint[1], weights_only=True) | {"state_dict": state}  # of a version that kept them all
    del old["base"], old["value_base"]
    torch.save(old, tmp_path / "old.ckpt")
    again = type(opened.module).load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    assert changed == {"query", "key", "value", "output", "gate", "up", "down"}


def test_an_adapted_value_function_of_a_reward_model_leaves_its_weights_where_they_are(tmp_path: Path) -> None:
    job = make_job(tmp_path, {"value_init": "reward", "num_iterations": 2}, adapter=LORA)
    kind = type(job.plan.open(job, Tokenizer.load(tmp_path / "start")).module)
    fit(job)
    checkpoint = CheckpointFolder(tmp_path / RUN / "checkpoints").newest(print)
    assert checkpoint is not None
    saved = torch.load(checkpoint[1], weights_only=True)["state_dict"]
    assert all(".lora_" in name or name.startswith("value.score.") for name in saved)
    state = kind.load_from_checkpoint(checkpoint[1], weights_only=True).state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved.items())
    reward, tokenizer = load_reward_model(tmp_path / REWARD)
    for name, value in reward.core.state_dict().items():
        there = f"value.core.{name}"
        assert torch.equal(state[there if there in state else there.replace(".weight", ".base_layer.weight")], value)
    torch.nn.init.ones_(next(reward.core.parameters()))
    hf.save(reward, tokenizer, tmp_path / REWARD)
    with pytest.raises(StageError, match="reward holds other weights"):
        kind.load_from_checkpoint(checkpoint[1], weights_only=True)


def make_saved_job(folder: Path, changes: dict[str, Any], **more: Any) -> Job:
    """Every step of which is saved."""
    job = make_job(folder, changes, **more)
    job.callbacks["checkpoint"] |= {"every_n_train_steps": 1, "save_last_k": 100}
    return job


def back_to(step: int, whole: Path, part: Path) -> None:
    """A copy of a run as it was after a step."""
    shutil.copytree(whole, part)
    for path in (part / RUN / "checkpoints").iterdir():
        if int(path.stem.partition("-")[2]) > step:
            path.unlink()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any], dict[str, Any] | None], Path]:
    """The folder of a whole run with these changes and this adapter, trained when it is first asked for."""
    folders: dict[str, Path] = {}

    def folder_of(changes: dict[str, Any], adapter: dict[str, Any] | None) -> Path:
        key = json.dumps([changes, adapter])
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("whole")
            fit(make_saved_job(folders[key], changes, adapter=adapter))
        return folders[key]

    return folder_of


@pytest.mark.parametrize(
    ("step", "adapter", "changes"),
    [
        *((step, adapter, {"target_kl": 1e-3}) for step in (3, 8) for adapter in (None, LORA)),
        (3, LORA, {"value_init": "reward"}),
        (3, None, {"objective": "online_dpo"}),
    ],
    ids=["3-whole", "3-lora", "8-whole", "8-lora", "3-lora-reward", "3-online_dpo"],
)
def test_going_on_from_a_checkpoint_is_exact(
    tmp_path: Path, trained: Callable[..., Path], step: int, adapter: dict[str, Any] | None, changes: dict[str, Any]
) -> None:
    """From the middle of an iteration, and from between two, also with a stopped iteration behind it."""
    whole, part = trained(changes, adapter), tmp_path / "part"
    back_to(step, whole, part)
    fit(make_saved_job(part, changes, adapter=adapter))
    same_run(whole, part)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two more processes, twice")
def test_two_processes_stop_early_together_and_go_on_within_an_iteration(tmp_path: Path) -> None:
    """Each has answers of its own, and after a restart has them again."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()

    def train(folder: Path) -> None:
        job = make_saved_job(folder, {"target_kl": 1e-3})
        launch(fit, dataclasses.replace(job, hardware=Hardware("cpu", 2, 1, "ddp", 1, "fp32")), 2)

    train(whole)
    history = read_history(whole / RUN / "metrics.jsonl")
    shown = [row["policy/approxkl_avg"] for row in history if "policy/approxkl_avg" in row]
    assert max(shown) > 1e-3 and any(one == other for one, other in itertools.pairwise(shown))  # stopped steps
    back_to(3, whole, part)
    train(part)
    same_run(whole, part)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two more processes, twice")
def test_sharded_weights_learn_as_copies_do(tmp_path: Path) -> None:
    """Both processes sample with all weights: neither waits for longer answers of the other. They stop together."""
    curves = []
    for strategy in ("ddp", "fsdp"):
        (tmp_path / strategy).mkdir()
        job = make_job(tmp_path / strategy, {"target_kl": 1e-3})
        launch(fit, dataclasses.replace(job, hardware=Hardware("cpu", 2, 1, strategy, 1, "fp32")), 2)
        curves.append(read_history(tmp_path / strategy / RUN / "metrics.jsonl"))
        assert (tmp_path / strategy / RUN / "model" / "model.safetensors").exists()
    assert len({row["completions/mean_length"] for row in curves[0] if "completions/mean_length" in row}) > 1
    assert max(row.get("policy/approxkl_avg", 0.0) for row in curves[0]) > 1e-3  # stopped steps
    for one, other in zip(*curves, strict=True):
        names = [name for name in one if "/" in name and not name.startswith(("speed/", "samples"))]
        assert [other[name] for name in names] == pytest.approx([one[name] for name in names], abs=2e-5)


def test_answers_that_can_not_be_shared_out_are_refused() -> None:
    def plan(**settings: Any) -> PolicyPlan:
        return PolicyPlan(PolicyConfig(**settings), LetterFeedback(Path(), 0.0))

    with pytest.raises(ConfigError, match=r"rollout_batch_size=130 can't be shared by 4 processes"):
        plan(rollout_batch_size=130).schedule(4)
    with pytest.raises(ConfigError, match=r"rollout_batch_size=12 can't be shared by 2 processes in groups of 4"):
        plan(rollout_batch_size=12, advantage="group", group_size=4, num_minibatches=2).schedule(2)
    assert (
        plan(rollout_batch_size=16, advantage="group", group_size=4, num_minibatches=2).schedule(2).rollout_batch_size
        == 8
    )
    with pytest.raises(ConfigError, match=r"kl_target=0"):
        PolicyConfig(kl_target=0.0).validate()


def test_micro_batches_and_processes_share_an_iteration() -> None:
    plan = PolicyPlan(
        PolicyConfig(rollout_batch_size=64, ppo_epochs=2, num_minibatches=4),
        LetterFeedback(Path(), 0.0),
        accumulate=2,
    )
    iterations = plan.schedule(2)
    assert (iterations.rollout_batch_size, iterations.steps, iterations.batches) == (32, 8, 16)
    assert [part.stop - part.start for part in iterations.groups()] == [4] * 8


def test_an_iteration_is_read_in_as_many_passes_as_there_is_memory_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same curves but for rounding."""
    whole, split = tmp_path / "whole", tmp_path / "split"
    for folder in (whole, split):
        folder.mkdir()
        job = make_job(folder, {"num_iterations": 2, "advantage": "group", "group_size": 2, "num_minibatches": 1})
        fit(job)
        assert job.plan.schedule(1, 8).micro_batches == 1
        monkeypatch.setattr("maquette.training.micro_batch._CPU_BYTES", 2**15)
        passes = job.plan.schedule(1, job.plan._rows_that_fit(job)).micro_batches
        assert 1 < passes <= 8
    curves = [
        [without_times({key: value for key, value in row.items() if key != "samples"}) for row in rows]
        for rows in (read_history(folder / RUN / "metrics.jsonl") for folder in (whole, split))
    ]
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_an_iteration_goes_on_in_another_number_of_passes() -> None:
    """Where a checkpoint lies between two steps, as a run's do."""
    one, four = (
        RolloutLoader(lambda iteration: (Rollouts.of([]), {}), RolloutSchedule(8, 2, 1, passes)) for passes in (1, 4)
    )
    one.place = 1
    four.load_state_dict({key: value for key, value in one.state_dict().items() if key != "held"})
    assert (four.place, len(four)) == (4, 8)
    four.place = 5
    with pytest.raises(StageError, match=r"within a step of 4 micro-batches; there are 1(.|\n)*=4"):
        one.load_state_dict(four.state_dict())


def test_rows_of_uneven_minibatches() -> None:
    """No minibatch gets more passes than it has rows, and no pass more rows than fit where there are enough passes."""
    plan = PolicyPlan(PolicyConfig(rollout_batch_size=7, num_minibatches=3), LetterFeedback(Path(), 0.0))
    assert [part.stop - part.start for part in plan.schedule(1, 1).groups()] == [1, 1, 1, 1, 1, 2]
    assert plan.schedule(1, 3).micro_batches == 1
