"""Studies over seeds: differences with seeds as units, and what the recipes hold equal."""

from pathlib import Path

import binary_reward
import numpy as np
import pandas as pd
import pytest
import seeds
import tastes
import unlabelled_prompts

from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.study import Study
from maquette.statistics import mean_over_seeds


def test_a_mean_over_seeds_says_what_would_have_been_seen() -> None:
    mean = mean_over_seeds([0.1, 0.2, 0.3])
    error = 0.1 / 3**0.5
    assert mean.value == pytest.approx(0.2) and mean.high - mean.value == pytest.approx(4.3027 * error, rel=1e-4)
    assert mean.detectable == pytest.approx((4.3027 + 1.0607) * error, rel=1e-4)
    one = mean_over_seeds([0.5])
    assert (one.value, one.low, one.high, one.detectable) == (0.5, -np.inf, np.inf, np.inf)
    generator = np.random.default_rng(0)  # many seeds: the textbook's 2.8 standard errors
    assert mean_over_seeds(generator.normal(size=2000)).detectable == pytest.approx(2.80 / 2000**0.5, rel=0.05)


def test_differences_are_paired_by_seed() -> None:
    rows = [{"seed": seed, "policy": policy, "gold": seed + gain, "kl": kl}
            for seed in range(3) for policy, gain, kl in (("sft", 0, 0.0), ("dpo", 0.5, 1.5))]  # fmt: skip
    (row,) = seeds.differences(pd.DataFrame([*rows, {"seed": 3, "policy": "sft", "gold": 9.0, "kl": 0.0}]))
    assert row["policy"] == "dpo" and row["seeds"] == 3 and row["kl"] == 1.5
    assert row["value"] == row["low"] == row["high"] == pytest.approx(0.5)


def test_a_study_writes_its_table_and_compares_with_each_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"seed": seed, "policy": policy, "gold": gold + 0.1 * seed, "kl": 1.0}
            for seed in range(2) for policy, gold in (("sft", 0.0), ("dpo", 0.5), ("ppo", 0.75))]  # fmt: skip
    arguments: list[object] = []

    def run_seeds(*given: object) -> seeds.Studies:
        arguments.extend(given)
        return {0: (AlignmentStage(outputs=str(tmp_path)), None)}  # type: ignore[dict-item]

    monkeypatch.setattr(seeds, "run_seeds", run_seeds)
    monkeypatch.setattr(seeds, "policies", lambda outputs, title: pd.DataFrame(rows))
    monkeypatch.setattr("sys.argv", ["script.py", "seed=1"])
    table = seeds.study(
        binary_reward.binary, ["betas=[]"], "Title", "name", ("sft", "dpo"), lambda _, table: table.assign(more=1)
    )
    assert arguments == [binary_reward.binary, ["betas=[]"], ["seed=1"]]
    written = pd.read_csv(tmp_path / "name.csv")
    assert table.more.tolist() == written.more.tolist() == [1] * 6 and written.gold[1] == 0.5 and "commit" in written
    printed = capsys.readouterr().out
    assert "less sft's" in printed and "+0.750" in printed and "less dpo's" in printed and "+0.250" in printed


def made(script: object, recipe: str) -> Study:
    config = compose(STAGES["alignment"], [*script.SETTINGS, "seed=2"])  # type: ignore[attr-defined]
    assert isinstance(config, AlignmentStage)
    study = Study(config, getattr(script, recipe))
    assert [study.settings[name].seed for name in ("base", "sft")] == [0, 0]  # shared by all seeds
    return study


@pytest.mark.slow(reason="composes every run of three studies")
def test_what_the_studies_hold_equal() -> None:
    runs = made(binary_reward, "binary").settings
    one, other = runs["continuous"], runs["binary"]
    assert other.reward.baseline == "<sft>" and one.reward.baseline is None
    assert one.reward.checkpoint == other.reward.checkpoint and one.objective == other.objective
    assert one.objective.value_init == "policy" and one.seed == other.seed == 2

    runs = made(unlabelled_prompts, "unlabelled").settings
    assert len({run.trainer.max_steps for name, run in runs.items() if name.endswith("prompts")}) == 1
    assert runs["labels alone"].trainer.max_steps == unlabelled_prompts.STEPS
    assert runs["500 labelled"].first == runs["labels"].count == 1000  # no prompt twice
    assert all(runs[f"{count} labelled"].feedback.checkpoint == "<reward>" for count in unlabelled_prompts.PROMPTS)

    runs = made(tastes, "tastes").settings
    assert runs["labels wordy"].given == "<labels terse>/preferences.jsonl" and runs["labels terse"].given is None
    assert {name: list(runs[f"labels {name}"].feedback.groups) for name in ("terse", "wordy", "both")} == {
        "terse": ["terse"], "wordy": ["wordy"], "both": ["terse", "wordy"],
    }  # fmt: skip
    assert tastes.JUDGES_SEED not in {runs[f"labels {name}"].feedback.seed for name in ("terse", "wordy", "both")}
