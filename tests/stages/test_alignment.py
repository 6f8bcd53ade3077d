"""Studies of alignment: the shipped recipes are sound, and a tiny one runs from documents to its page."""

import json
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.manifest import read_manifest
from maquette.feedback.study.figures import gains
from maquette.feedback.study.recipe import read_steps
from maquette.feedback.study.report import course_of
from maquette.feedback.study.tables import study_tables
from maquette.stages import STAGES, alignment
from maquette.stages.composition import compose
from maquette.stages.config import AlignmentStage
from maquette.tracking import find_runs
from maquette.tracking.config import TrackingConfig
from maquette.training import read_history, read_record
from small_runs import write_documents

TINY = ["threads=1", "compile=off", "num_validations=2", "optimizer.lr=1e-3"]


def tiny_steps(source: Path) -> dict[str, Any]:
    """A model of bytes, and every kind of step after it, of a few steps each."""
    labels = "preferences.path='{labels}/preferences.jsonl'"
    ppo = ["objective=ppo", "objective.num_iterations=2", "objective.rollout_batch_size=8",
    "objective.max_completion_length=8",
           "objective.normalize_scores=8", "checkpoint='{sft}'", *TINY]  # fmt: skip
    return {
        "base": {"stage": "train", "policy": True, "settings": [
            "source=jsonl", f"source.path='{source}'", "corpus.near_duplicates=1.0", "corpus.test=0",
            "corpus.workers=1", "tokenizer=byte", "shards.held_out_window=0", "size=13k", "tokens=4k",
            "model.hidden_size=16", "model.num_hidden_layers=1", "model.num_attention_heads=2",
            "data.sequence_length=192", "data.batch_size_tokens=768",
            "data.validation_tokens=512", *TINY]},
        "sft": {"stage": "train", "policy": True, "settings": [
            "objective=sft", "instructions=task", "instructions.count=64", "instructions.held_out=16",
            "objective.batch_size=16", "objective.epochs=1", "objective.max_completion_length=8", "checkpoint='{base}'",
            *TINY]},
        "labels": {"stage": "annotate", "settings": [
            "count=40", "max_completion_length=8", "repeats=3", "feedback.noise=1", "checkpoint='{sft}'"]},
        "reward": {"stage": "train", "settings": [
            "objective=reward", "objective.epochs=1", "objective.batch_size=8", labels, "checkpoint='{sft}'", *TINY]},
        "dpo": {"stage": "train", "policy": True, "settings": [
            "objective=dpo", "objective.epochs=1", "objective.batch_size=8", "objective.sample_prompts=2",
            "objective.max_completion_length=8", labels, "checkpoint='{sft}'", *TINY]},
        "ppo": {"stage": "train", "policy": True, "settings": [*ppo, "reward.checkpoint='{reward}'"],
                "each": {"objective.kl_coefficient": [0.0]}},
        "group": {"stage": "train", "policy": True, "settings": [
            *ppo, "reward.kind=gold", "objective.advantage=group"]},
    }  # fmt: skip


@pytest.mark.slow
def test_from_documents_to_a_page(tmp_path: Path) -> None:
    source = tmp_path / "documents"
    source.mkdir()
    write_documents(source)
    config = AlignmentStage(
        outputs=str(tmp_path / "outputs"), steps=tiny_steps(source), rewards=["reward"], prompts=12,
        max_completion_length=8,
        best_of=4, figures=["gold", "frontier", "overoptimisation", "length"],
        courses=["ppo kl_coefficient=0.0"], tracking=TrackingConfig(),
    )  # fmt: skip
    with pytest.raises(StageError, match="no study called Alignment"):
        study_tables(config.outputs)
    folder = alignment.run(config)
    results = json.loads((folder / "results.json").read_text())
    names = ["base", "sft", "dpo", "ppo kl_coefficient=0.0", "group"]
    assert [one["name"] for one in results["policies"]] == names
    by_name = {one["name"]: one for one in results["policies"]}
    assert by_name["sft"]["kl"] == 0.0 and by_name["base"]["kl"] > 0.0
    assert by_name["sft"]["wins"]["gold"]["value"] == 0.5
    assert all(set(one["scores"]) == {"gold", "reward"} and one["flops"] > 0 for one in results["policies"])
    assert results["best_of_n"][0]["n"] == [1, 2, 4]
    assert results["best_of_n"][0]["scores"]["reward"] == sorted(results["best_of_n"][0]["scores"]["reward"])
    page = (folder / "index.html").read_text()
    assert "Side by side" in page and results["instructions"][0] in page
    for name in config.figures:
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
    labels = read_manifest(next((tmp_path / "outputs" / "artifacts" / "preferences").glob("simulated-*"))).facts
    assert labels["labels"] > 10 and labels["annotators"][0]["inter_annotator_agreement"] is not None
    # The policy with a value function: all completions of the other's groups have the same gold reward, so it stays.
    policy = next(
        record
        for path in (tmp_path / "outputs" / "runs").iterdir()
        if (record := read_record(path)) is not None
        and record.objective == "ppo"
        and record.spec.settings["objective"]["advantage"] == "value"
    )
    assert {"validation/gold", "validation/kl", "objective/kl", "val/ratio"} <= policy.metrics.keys()
    # The same prompts and random numbers before the first step: gains begin at exactly nothing.
    course = course_of(read_history(Path(policy.folder) / "metrics.jsonl"))
    assert len(course) == 3 and course[0][0] == 0.0 and course[-1][0] > 0.0
    assert [float(values[0]) for values in gains("group", course)] == [0.0, 0.0, 0.0]
    assert alignment.run(config) == folder  # all of it is done

    tables = study_tables(config.outputs)
    assert list(tables.policies.policy) == names and set(tables.policies.seed) == {0}
    assert tables.policies.gold[1] == by_name["sft"]["scores"]["gold"]["value"]
    assert list(tables.best_of_n.n) == [1, 2, 4]
    assert set(tables.course.policy) == {"ppo kl_coefficient=0.0", "group"} and (tables.course.kl >= 0).all()
    results["policies"][0].pop("greedy_wins")  # as an older version wrote it
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(StageError, match=r"results\.json can't be read.*greedy_wins"):
        study_tables(config.outputs)
    runs = find_runs(config.outputs)
    (labelled,) = runs[runs["tags.kind"] == "annotate"]["folder"]
    assert (Path(labelled) / "preferences.jsonl").exists()


@pytest.mark.parametrize(
    "choice", ["+experiment=alignment", "+experiment=alignment_demo", "+experiment=alignment_ceiling",
               "+experiment=alignment_harder", "+experiment=rounds", "+sweep=kl_frontier",
               "+sweep=overoptimisation", "+sweep=length_bias"],
)  # fmt: skip
def test_shipped_recipes_are_sound(choice: str) -> None:
    config = compose(STAGES["alignment"], [choice])
    assert isinstance(config, AlignmentStage)
    steps = alignment.plan(config)
    assert {"base", "sft", "reward"} <= {step.kind for step in steps}
    assert config.figures and all(step.settings for step in steps if step.stage != "demo")


def test_a_recipe_that_can_not_be_is_refused_before_it_begins() -> None:
    base = {"stage": "train", "settings": ["size=13k"]}
    for steps, message in [
        ({"sft": {"stage": "train", "settings": ["checkpoint='{base}'"]}, "base": base}, "no step before it makes"),
        ({"sft": {"stage": "trian", "settings": []}}, "no stage 'trian'"),
        ({"sft": {"stage": "train", "settings": ["siz=13k"]}}, "unknown key 'siz'"),
        ({"sft": {"stage": "train", "setings": []}}, "can't be read"),
        ({}, "there are no steps"),
        ({"base": base}, "there is no step 'sft'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            alignment.plan(AlignmentStage(steps=steps))
    with pytest.raises(ConfigError, match="no figure 'pie'"):
        alignment.plan(AlignmentStage(steps={"sft": base}, figures=["pie"]))


def test_a_gain_is_told_from_the_runs_own_start() -> None:
    distance, gold, learned = gains("ppo", [(0.0, 0.4, -1.0), (4.0, 0.9, 1.0), (9.0, 0.5, 3.0)])
    assert distance.tolist() == [0.0, 2.0, 3.0] and learned.tolist() == [0.0, 2.0, 4.0]
    assert gold.tolist() == pytest.approx([0.0, 0.5, 0.1])
    for course in ([], [(0.2, 0.4, 1.0)]):
        with pytest.raises(StageError, match="ppo was not measured before its first step"):
            gains("ppo", course)


def test_each_makes_a_step_of_every_combination() -> None:
    steps = read_steps({"a": {"stage": "train", "each": {"x.y": [1, 2], "z": ["u", "v"]}}, "b": None})
    assert [step.name for step in steps] == ["a y=1 z=u", "a y=1 z=v", "a y=2 z=u", "a y=2 z=v"]
    assert steps[2].settings == ("x.y=2", "z=u") and steps[2].kind == "a"


def test_rounds_go_on_from_the_policy_before() -> None:
    config = compose(STAGES["alignment"], ["+experiment=rounds"])
    assert isinstance(config, AlignmentStage)
    steps = {step.name: step for step in alignment.plan(config)}
    assert [name for name in steps if name.startswith("ppo")] == ["ppo", "ppo 2", "ppo 3", "ppo at once"]
    assert "checkpoint='{ppo 2}'" in steps["labels 3"].settings and "first=16000" in steps["labels 3"].settings
    assert "add=['{labels 2}/preferences.jsonl']" in steps["labels 3"].settings
    assert "reward.checkpoint='{reward 3}'" in steps["ppo 3"].settings
    assert "count=24000" in steps["labels at once"].settings
    with pytest.raises(ConfigError, match="no plain labels"):
        alignment.plan(AlignmentStage(steps={"sft": {"stage": "train", "settings": []}}, rounds=2))


def test_a_sweep_of_another_stage_is_not_offered() -> None:
    with pytest.raises(ConfigError, match=r"sweep=kl_frontier|unknown key"):
        compose(STAGES["train"], ["+sweep=kl_frontier"])


def test_another_seed_means_other_data() -> None:
    def seeds(stage: str, *words: str) -> list[int]:
        settings: Any = compose(STAGES[stage], words)
        if stage == "annotate":
            return [settings.seed, settings.prompts.seed, settings.feedback.seed]
        return [settings.seed, settings.prompts.seed, settings.instructions.seed]

    for choice in ("feedback=simulated", "feedback=alpacafarm", "feedback=length_biased"):
        assert seeds("annotate", choice) == [0, 0, 0]
        assert seeds("annotate", choice, "seed=3") == [3, 3, 3]
    assert seeds("annotate", "seed=3", "prompts.seed=1", "feedback.seed=2") == [3, 1, 2]
    chosen = ("objective=sft", "instructions=task", "checkpoint=x")
    assert seeds("train", *chosen) == [0, 0, 0]
    assert seeds("train", *chosen, "seed=3") == [3, 3, 3]
    assert seeds("train", *chosen, "seed=3", "instructions.seed=5") == [3, 3, 5]
