"""The study on a real model: on a tiny one, killed half-way and typed again; on the real one, a step of each stage."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.manifest import read_manifest
from maquette.cli import alignment
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.study import Study, align
from maquette.feedback.tasks import Exercises
from maquette.feedback.tasks.records import record_reward, verify
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.objectives.completions import Completion
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.training import read_record
from support.small_runs import write_documents
from support.warm_processes import start_program

pytestmark = pytest.mark.usefixtures("no_pictures")

SHORT = {"threads": 1, "compile": "off"}
FEW = {
    "prompts": 6, "max_completion_length": 6,
    "sft": {**SHORT, "instructions": {"count": 16, "held_out": 4}, "objective": {"max_completion_length": 6}},
    "labels": {"count": 12, "max_completion_length": 6, "repeats": 1},
    "dpo": {**SHORT, "objective": {"epochs": 1, "sample_prompts": 2, "max_completion_length": 6}},
    "ppo": {
        **SHORT,
        "objective": {
            "num_iterations": 3, "rollout_batch_size": 8, "max_completion_length": 6, "sample_prompts": 2},
        "data": {"micro_batch_size": 4}},
    "evaluate": {"suite": {"items": 8, "documents": 2}},
}  # fmt: skip
"""The same study of a few steps."""


def overrides(outputs: Path, *more: str, **settings: Any) -> list[str]:
    """Of the shipped experiment, nested settings as they are typed."""

    def typed(prefix: str, value: Any) -> list[str]:
        if isinstance(value, dict):
            return [line for key, one in value.items() for line in typed(f"{prefix}.{key}" if prefix else key, one)]
        return [f"++{prefix}={value}"]

    return ["+experiment=real_model", f"outputs='{outputs}'", "tracking=none", *typed("", settings), *more]


def study(lines: list[str]) -> AlignmentStage:
    config = compose(STAGES["alignment"], lines)
    assert isinstance(config, AlignmentStage)
    return config


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """An untrained model of bytes as `smollm2`; it gets nothing right, so people who guess give the labels."""
    shape = TransformerConfig(
        272, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=512
    )
    outputs = tmp_path / "outputs"
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    hf.save(LanguageModel(shape), tokenizer, outputs / "artifacts" / "models" / "smollm2")
    (documents := tmp_path / "documents").mkdir()
    write_documents(documents)
    source = f"++corpus.source={{kind: jsonl, path: '{documents}', limit: null}}"
    return overrides(
        outputs, "labels.feedback=simulated", source, "++corpus.corpus={near_duplicates: 1.0, workers: 1}",
        "++evaluate.suite.embedded=[agreement,arithmetic]", **FEW,
    )  # fmt: skip


KILLED = """import os, signal, sys
from maquette.cli import alignment
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.feedback.tasks import records
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core: one stage after the other, in this process
verify, calls = records.verify, []
def slain(completions):
    calls.append(len(completions))
    if len(calls) > 3:  # before the first step, the first iteration, the second
        os.kill(os.getpid(), signal.SIGKILL)
    return verify(completions)
records.verify = slain
alignment.run(compose(STAGES["alignment"], sys.argv[1:]))
"""


@pytest.mark.slow(reason="a whole study of a base, SFT, DPO and PPO, killed and gone on with", minutes=1)
def test_killed_half_way_it_resumes_and_then_is_done(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maquette.cli.planning.study.usable_cores", lambda: 1)  # others test stages side by side
    (tmp_path / "killed.py").write_text(KILLED)
    assert start_program(tmp_path / "killed.py", *tiny).wait() == -signal.SIGKILL
    runs = tmp_path / "outputs" / "runs"
    before = {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/run.json")}
    status = {name.split("-")[0]: read_record(runs / name).status for name in before}  # type: ignore[union-attr]
    assert status == {"sft": "finished", "dpo": "finished", "ppo": "running"}

    folder = alignment.run(study(tiny))
    assert {name for name in before if (runs / name / "run.json").stat().st_mtime_ns != before[name]} == {
        name for name in before if name.startswith("ppo")
    }
    results = json.loads((folder / "results.json").read_text())
    assert [one["name"] for one in results["policies"]] == ["base", "sft", "dpo", "ppo"]
    assert results["policies"][0]["flops"] == 0 and all(one["flops"] > 0 for one in results["policies"][1:])
    assert all(set(one["scores"]) == {"gold"} for one in results["policies"])
    elsewhere = json.loads((folder / "elsewhere.json").read_text())
    for name in ("base", "sft", "dpo", "ppo"):
        assert {"agreement", "arithmetic", "bits per byte"} <= elsewhere[name].keys()
    assert elsewhere["base"]["bits per byte"] != elsewhere["sft"]["bits per byte"]
    for page in ("report.md", "index.html"):
        assert "What is left of the rest" in (folder / page).read_text()
    assert len(list(runs.glob("*/adapter/adapter_model.safetensors"))) == 3

    def written() -> dict[Path, int]:
        root = tmp_path / "outputs"
        return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and "lock" not in path.name}

    done = written()
    assert alignment.run(study(tiny)) == folder
    assert written() == done


def test_labels_and_policies_come_from_the_fine_tuned_model_and_the_verifier(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "models" / "smollm2").mkdir(parents=True)
    made = Study(study(overrides(tmp_path)), align)
    assert list(made.stages) == ["sft", "labels", "dpo", "ppo", "corpus", *(
        f"{name} elsewhere" for name in ("base", "sft", "dpo", "ppo"))]  # fmt: skip
    assert made.settings["sft"].checkpoint == "<base>" and made.settings["labels"].feedback.kind == "gold"
    assert all(made.settings[name].checkpoint == "<sft>" for name in ("labels", "dpo", "ppo"))
    assert made.settings["ppo"].reward.callable == "maquette.feedback.tasks.records:verify"
    policy = made.settings["ppo"].objective
    # The bounds of the issue: 16 in a batch, at most 12 iterations of 32 completions of at most 24 tokens.
    assert policy.num_iterations <= 12 and policy.rollout_batch_size <= 32 and policy.max_completion_length <= 24
    assert made.settings["ppo"].data.micro_batch_size == 16


def test_what_can_not_be_is_refused_before_it_begins(tmp_path: Path) -> None:
    for more, message in [
        (["++base.size=13k"], "checkpoint=smollm2 stands beside a base model"),
        (["++ppo.reward=null"], "PPO has no reward"),
        ([], "checkpoint=smollm2: there is no such folder or run"),
    ]:
        with pytest.raises(ConfigError, match=message):
            alignment.run(study(overrides(tmp_path, *more)))
    assert not list(tmp_path.iterdir())


def test_a_record_is_worth_its_fields_in_its_form() -> None:
    right = "Ben|51|Lima"
    assert record_reward(right, right) == record_reward(f" {right}\n", right) == 1.0
    assert record_reward("Ben|51|Oslo", right) == pytest.approx(2 / 3)
    assert record_reward("Ann|34|Oslo", right) == 0.0
    for answer in ("", "Ben", "Ben|51", "Ben|51|Lima|", f"{right}\n{right}", f"Record: {right}", "Ben, 51, Lima"):
        assert record_reward(answer, right) < 1.0
    exercise = Exercises(["record"], split="held_out")[0]
    completions = [
        Completion(tuple(exercise.messages), answer, (0,), (0,), True, exercise.facts())
        for answer in (exercise.right, "x|y|z")
    ]
    assert verify(completions) == [1.0, 0.0] == [exercise.gold(one.answer) for one in completions]


@pytest.mark.slow(reason="trains a model of 135M parameters for a few steps, three times", minutes=2)
def test_the_real_model(real_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of each stage; the untouched model does not know the form."""
    monkeypatch.setattr("maquette.cli.planning.study.usable_cores", lambda: 1)  # others test stages side by side
    monkeypatch.setattr("maquette.feedback.study.diversity.SAMPLES", 2)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "models").symlink_to(real_model / "artifacts" / "models")
    (documents := tmp_path / "documents").mkdir()
    write_documents(documents, sentences=8)  # read by four policies: half of the time goes by their length
    few = {
        "prompts": 2,
        "sft": {"instructions": {"count": 4, "held_out": 2}, "trainer": {"max_steps": 1},
                "objective": {"batch_size": 2, "sample_prompts": 1}},
        "labels": {"count": 6, "repeats": 1},
        "dpo": {"trainer": {"max_steps": 1}, "objective": {"batch_size": 1, "sample_prompts": 1}},
        "ppo": {"objective": {"num_iterations": 1, "rollout_batch_size": 4, "num_minibatches": 1, "sample_prompts": 1},
                "data": {"micro_batch_size": 4}},
    }  # fmt: skip
    lines = overrides(
        tmp_path, "labels.feedback=simulated", "++evaluate.suite={embedded: [agreement], items: 8, documents: 2}",
        f"++corpus.source={{kind: jsonl, path: '{documents}', limit: null}}",
        "++corpus.corpus={near_duplicates: 1.0, workers: 1}", "max_completion_length=8", **few,
    )  # fmt: skip
    folder = alignment.run(study(lines))
    facts = read_manifest(folder).facts
    assert facts["gold"]["base"] == 0.0 and set(facts["gold"]) == {"base", "sft", "dpo", "ppo"}
