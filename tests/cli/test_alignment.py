"""Studies of alignment: the shipped recipes are sound, and a tiny one runs from documents to its page."""

import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.reading import CHECKSUM, write_sealed
from maquette.cli import alignment
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning import study
from maquette.cli.planning.study import Study, align
from maquette.cli.sweeps.work import Files
from maquette.feedback.early_warning import watched_runs
from maquette.feedback.study.figures import gains
from maquette.feedback.study.report import read_study, validation_curve, validations_of
from maquette.feedback.study.tables import study_tables
from maquette.model.loading import weights_digest
from maquette.tracking import find_runs
from maquette.training import read_history, read_record
from support.small_runs import write_documents

TINY = ["threads=1", "compile=off", "num_validations=2", "optimizer.lr=1e-3"]


def tiny(source: Path) -> dict[str, Any]:
    """A model of bytes, and every kind of run after it, of a few steps each."""
    step = {"threads": 1, "compile": "off", "num_validations": 2, "optimizer": {"lr": 1e-3}}
    return {
        "base": {
            "source": "jsonl", "source.path": str(source), "corpus": {"near_duplicates": 1.0, "test": 0, "workers": 1},
            "tokenizer": "byte", "shards": {"held_out_window": 0}, "size": "13k", "tokens": "4k",
            "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            "data": {"sequence_length": 192, "batch_size_tokens": 768, "validation_tokens": 512}, **step},
        "sft": {
            "instructions": {"count": 64, "held_out": 16},
            "objective": {"batch_size": 16, "epochs": 1, "max_completion_length": 8}, **step},
        "labels": {"count": 40, "max_completion_length": 8, "repeats": 3, "feedback": {"noise": 1}},
        "reward": {"objective": {"epochs": 1, "batch_size": 8}, **step},
        "dpo": {"objective": {"epochs": 1, "batch_size": 8, "sample_prompts": 2, "max_completion_length": 8}, **step},
        "ppo": {
            "objective": {
                "num_iterations": 2, "rollout_batch_size": 8, "max_completion_length": 8, "normalize_scores": 8},
            **step},
        "betas": [0.1], "kl_coefficients": [0.0], "group": True,
    }  # fmt: skip


@pytest.mark.slow(reason="a whole study: base, SFT, labels, reward model, DPO, PPO and its figures", minutes=1)
def test_from_documents_to_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies: list[Study] = []

    def remembered(*arguments: Any) -> Study:
        studies.append(Study(*arguments))
        return studies[-1]

    monkeypatch.setattr(alignment, "Study", remembered)
    monkeypatch.setattr(study, "usable_cores", lambda: 2)
    source = tmp_path / "documents"
    source.mkdir()
    write_documents(source)
    settings = {
        "outputs": str(tmp_path / "outputs"), "prompts": 12, "max_completion_length": 8, "best_of": 4,
        "figures": ["gold", "frontier", "overoptimisation", "signals", "length"], "ensemble": 2, **tiny(source),
    }  # fmt: skip
    config = AlignmentStage(**settings)
    with pytest.raises(StageError, match="no study called Alignment"):
        study_tables(config.outputs)
    folder = alignment.run(config)
    (made,) = studies
    beside = {number for number, one in Files(made.folder).outcomes().items() if "skipped" not in one}
    assert beside == set(range(3, 8))  # reward models, DPO, PPO and PPO in groups, in processes of their own
    policy_settings: Any = made._with_folders(made.settings["dpo"])
    digest = weights_digest(made.made["dpo"])
    alone = STAGES["train"].run(dataclasses.replace(policy_settings, force=True))
    assert alone.folder == made.made["dpo"] and weights_digest(alone.folder) == digest  # bit for bit
    results = json.loads((folder / "results.json").read_text())
    names = ["base", "sft", "dpo", "ppo", "group"]
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
    policy = next(
        record
        for path in (tmp_path / "outputs" / "runs").iterdir()
        if (record := read_record(path)) is not None
        and record.spec.objective == "ppo"
        and record.spec.settings["objective"]["advantage"] == "value"
    )
    assert {"validation/gold", "validation/kl", "objective/kl", "val/ratio"} <= policy.metrics.keys()
    assert policy.metrics["validation/disagreement"] > 0.0
    assert all(0 < one["diversity"]["distinct"] <= 1 and one["diversity"]["entropy"] > 0 for one in by_name.values())
    # The same prompts and random numbers before the first step: gains begin at exactly nothing.
    curve = validation_curve(validations_of(read_history(Path(policy.folder) / "metrics.jsonl")))
    assert len(curve) == 3 and curve[0][0] == 0.0 and curve[-1][0] > 0.0
    assert [float(values[0]) for values in gains("group", curve)] == [0.0, 0.0, 0.0]

    # All of it is done: typed again, nothing heavy is imported to see that.
    heavy = ("torch", "lightning", "mlflow", "matplotlib", "scipy", "pandas", "joblib")
    program = f"""
import sys
from maquette.cli import alignment
from maquette.cli.command_line.model_config import AlignmentStage
folder = alignment.run(AlignmentStage(**{settings!r}))
print(folder, [name for name in {heavy} if name in sys.modules])
"""
    again = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert again.stdout.split(maxsplit=1) == [str(folder), "[]\n"], again.stderr

    tables = study_tables(config.outputs)
    assert list(tables.policies.policy) == names and set(tables.policies.seed) == {0}
    assert tables.policies.gold[1] == by_name["sft"]["scores"]["gold"]["value"]
    assert list(tables.best_of_n.n) == [1, 2, 4]
    assert set(tables.curve.policy) == {"ppo", "group"} and (tables.curve.kl >= 0).all()
    assert tables.policies.entropy[1] == by_name["sft"]["diversity"]["entropy"]
    watched = watched_runs(tables.curve.to_dict("records"))
    assert [one.policy for one in watched] == ["ppo", "group"]
    assert "disagreement" in watched[0].signals and "value error" not in watched[1].signals  # it has no value function
    assert read_study(folder).curves == {}  # too few points for a fit; the validations are not taken for fits
    older = {key: value for key, value in results.items() if key != CHECKSUM}
    older["policies"] = [{**one, "diversity": None} for one in older["policies"]]
    write_sealed(folder / "results.json", older)  # of before diversity was measured
    assert "entropy" not in study_tables(config.outputs).policies
    results["policies"][0].pop("greedy_wins")  # as an older version wrote it
    write_sealed(folder / "results.json", {key: value for key, value in results.items() if key != CHECKSUM})
    with pytest.raises(StageError, match=r"results\.json is damaged.*greedy_wins"):
        study_tables(config.outputs)
    runs = find_runs(config.outputs)
    (labelled,) = runs[runs["tags.kind"] == "annotate"]["folder"]
    assert (Path(labelled) / "preferences.jsonl").exists()


START = ["base", "sft", "labels", "reward"]


@pytest.mark.slow(reason="composes every run of a study")
@pytest.mark.parametrize(("choice", "names"), [
    ("+experiment=alignment", [*START, "dpo", "ppo", "group"]),
    ("+experiment=alignment_demo", [*START, "dpo", "ppo", "ppo free"]),
    ("+experiment=alignment_ceiling", [*START, "dpo", "ppo", "group", "gold"]),
    ("+experiment=alignment_harder", [*START, "dpo", "ppo"]),
    ("+sweep=kl_frontier", [*START, *(f"dpo beta={beta}" for beta in (0.1, 0.3, 1.0, 3.0)),
                            *(f"ppo kl_coefficient={value}" for value in (0.03, 0.1, 0.3, 1.0))]),
    ("+sweep=overoptimisation", [*START[:3], "reward few", "reward some", "reward many",
                                 "ppo few", "ppo some", "ppo many"]),
    ("+sweep=length_bias", [*START, "dpo", "ppo"]),
])  # fmt: skip
def test_what_the_shipped_studies_run(choice: str, names: list[str]) -> None:
    config = compose(STAGES["alignment"], [choice])
    assert isinstance(config, AlignmentStage)
    study = Study(config, align)
    assert list(study.settings) == names
    kinds = ("sft", "dpo", "ppo", "reward")
    assert all(study.settings[name].objective.kind == kind for name in names for kind in kinds if name.startswith(kind))
    assert all(run.checkpoint == "<sft>" for name, run in study.settings.items() if name not in ("base", "sft"))
    assert study.settings["sft"].checkpoint == "<base>"
    assert all(study.settings[name].reward.checkpoint == name.split(" ")[0].replace("ppo", "<reward") + f"{suffix}>"
               for name in names if name.startswith("ppo")
               for suffix in [f" {name[4:]}" if name[4:] in config.reward_limits else ""])  # fmt: skip


def test_a_study_that_can_not_be_is_refused_before_it_begins(tmp_path: Path) -> None:
    for settings, message in [
        ({"base": {"siz": "13k"}, "sft": {"seed": 1}}, "unknown key 'siz'"),
        ({"sft": {"objective": {"betta": 1}}}, "betta"),
        ({"sft": {"seed": 1}, "betas": [-1.0]}, "beta"),
        ({}, "there is nothing to run"),
        ({"sft": {"seed": 1}, "figures": ["pie"]}, "no figure 'pie'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            alignment.run(AlignmentStage(outputs=str(tmp_path), **settings))
    assert not list(tmp_path.iterdir())


def test_numbers_of_a_study_are_overridden_like_any_setting() -> None:
    overrides = ["+experiment=alignment", "sft.instructions.count=64", "dpo.objective.loss_type=ipo", "betas=[0.2,0.4]",
                 "seed=3"]  # fmt: skip
    config = compose(STAGES["alignment"], overrides)
    assert isinstance(config, AlignmentStage)
    runs = Study(config, align).settings
    assert {runs[name].seed for name in runs} == {3}
    assert runs["sft"].instructions.count == 64 and runs["dpo beta=0.4"].objective.loss_type == "ipo"


@pytest.mark.slow(reason="composes every run of a study")
def test_an_ensemble_of_reward_models_watches_the_policy() -> None:
    config = compose(STAGES["alignment"], ["+experiment=alignment", "ensemble=3", "reward_limits={few: 8}", "seed=2"])
    assert isinstance(config, AlignmentStage)
    study = Study(config, align)
    names = ["reward few", "reward few 2", "reward few 3"]
    assert [name for name in study.settings if name.startswith("reward")] == names and study.rewards == names[:1]
    assert [study.settings[name].seed for name in names] == [2, 1002, 2002]
    assert all(study.settings[name].preferences.limit == 8 for name in names)
    policy = study.settings["ppo few"].reward
    assert policy.checkpoint == "<reward few>" and policy.watched_by == ["<reward few 2>", "<reward few 3>"]


def test_a_gain_is_told_from_the_runs_own_start() -> None:
    distance, gold, learned = gains("ppo", [(0.0, 0.4, -1.0), (4.0, 0.9, 1.0), (9.0, 0.5, 3.0)])
    assert distance.tolist() == [0.0, 2.0, 3.0] and learned.tolist() == [0.0, 2.0, 4.0]
    assert gold.tolist() == pytest.approx([0.0, 0.5, 0.1])
    for curve in ([], [(0.2, 0.4, 1.0)]):
        with pytest.raises(StageError, match="ppo was not measured before its first step"):
            gains("ppo", curve)


@pytest.mark.slow(reason="composes every run of several rounds")
def test_rounds_go_on_from_the_policy_before() -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "rounds.py"))
    config = compose(STAGES["alignment"], script["SETTINGS"])
    assert isinstance(config, AlignmentStage)
    runs = Study(config, script["rounds"]).settings
    assert [name for name in runs if name.startswith("ppo")] == ["ppo", "ppo 2", "ppo 3", "ppo at once"]
    assert runs["labels 3"].checkpoint == "<ppo 2>" and runs["labels 3"].first == 16000
    assert runs["labels 3"].add == ["<labels 2>/preferences.jsonl"]
    assert runs["ppo 3"].reward.checkpoint == "<reward 3>" and runs["ppo 3"].checkpoint == "<ppo 2>"
    assert runs["labels at once"].count == 24000 and runs["ppo at once"].checkpoint == "<sft>"


def test_a_sweep_of_another_stage_is_not_offered() -> None:
    with pytest.raises(ConfigError, match=r"sweep=kl_frontier|unknown key"):
        compose(STAGES["train"], ["+sweep=kl_frontier"])


def test_another_seed_means_other_data() -> None:
    def seeds(stage: str, *overrides: str) -> list[int]:
        settings: Any = compose(STAGES[stage], overrides)
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
