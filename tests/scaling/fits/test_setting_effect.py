"""What a setting does at equal compute, on tables with a known effect."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.files import read_json
from maquette.cli.command_line.law_config import FitStage
from maquette.cli.fit import run
from maquette.scaling.fits.setting_effect import (
    BITS,
    SettingEffect,
    effect_figure,
    effect_table,
    names_of,
    setting_effect,
)
from maquette.scaling.fits.table import RunTable, read_table
from maquette.scaling.laws.runs import LawError
from maquette.tracking.config import TrackingConfig

GAIN = {272: 0.0, 512: -0.2, 1024: -0.3, 2048: 0.1}


def rows(seeds: int = 3) -> pd.DataFrame:
    """Bits per byte by vocabulary at two sizes, of which the second is worse by one; each seed shifts all alike."""
    return pd.DataFrame(
        [
            {"N": size, "D": 1e10 / size, "C": 6e10, "loss": 3.0, "seed": seed, "V": vocabulary,
             BITS: 2 + gain + (size > 1e4) + 0.05 * seed + 0.001 * (seed == 1) * (vocabulary == 512),
             "tasks/sums/accuracy": 0.25 - gain / 10}
            for vocabulary, gain in GAIN.items() for size in (1e4, 2e4) for seed in range(seeds)
        ]
    )  # fmt: skip


def table(frame: pd.DataFrame, folder: Path) -> RunTable:
    frame.to_csv(folder / "runs.csv", index=False)
    return read_table(folder / "runs.csv")


def test_the_best_size_of_each_value_counts_and_differences_are_paired(tmp_path: Path) -> None:
    effect = setting_effect(table(rows(), tmp_path), "V")
    assert list(effect.points) == [BITS, "tasks/sums/accuracy"]
    points = effect.points[BITS]
    assert [point.value for point in points] == list(GAIN) and {point.seeds for point in points} == {3}
    assert [point.mean for point in points] == pytest.approx([2.05 + gain for gain in GAIN.values()], abs=1e-3)
    assert points[0].difference is None
    assert points[2].difference == pytest.approx(-0.3) and points[2].difference_interval is not None
    assert points[2].difference_interval.width == pytest.approx(0, abs=1e-9)  # of the seeds nothing is left
    assert points[1].difference_interval is not None and points[1].interval is not None
    assert points[1].difference_interval.width < points[1].interval.width / 10
    assert f"{BITS} is best at V=1024" in effect.words and "-0.3000" in effect.words
    # the smaller of two sizes is the best of each: said
    assert len(effect.warnings) == 1 and "272, 512, 1024, 2048" in effect.warnings[0]


def test_names_take_their_places_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    frame = rows(seeds=1).assign(mixture=[f"m{value}" for value in rows(seeds=1).V]).drop(columns="V")
    effect = setting_effect(table(frame, tmp_path), "mixture", ["tasks/sums/accuracy"])
    assert [point.value for point in effect.points["tasks/sums/accuracy"]] == ["m1024", "m2048", "m272", "m512"]
    assert "best at mixture=m1024" in effect.words  # of an accuracy more is better
    assert any("1 seed a value" in warning for warning in effect.warnings)
    axes = effect_figure(effect).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["m1024", "m2048", "m272", "m512"]
    phases = setting_effect(
        table(frame.assign(mixture=frame.mixture + " from 0.8 of the tokens on"), tmp_path), "mixture"
    )
    assert [label.get_text() for label in effect_figure(phases).axes[0].get_xticklabels()] == list("ABCD")
    assert effect_table(phases, BITS)[1][2][0] == "C: m272 from 0.8 of the tokens on"
    assert "is best at mixture=A:" in phases.finding and "B is m2048 from 0.8 of the tokens on" not in phases.finding
    assert "B is m2048 from 0.8 of the tokens on;" in phases.words


def test_lists_are_called_as_they_are_typed() -> None:
    given = ['[]', '[{"start": 0.8, "weights": {"docs": 1.0}, "rope_theta": null}]', '[not json']  # fmt: skip
    effect = SettingEffect("mixture.phases", names_of(given), {}, 0.9, ())
    assert [effect.full_name(value) for value in given] == [
        "A: []", "B: [{start: 0.8, weights: {docs: 1}}]", "C: [not json"
    ]  # fmt: skip


def test_budgets_stay_apart_and_unequal_compute_is_said(tmp_path: Path) -> None:
    larger = rows().assign(
        C=lambda one: 6e11 * np.where(one.V == 512, 1.15, 1) * np.linspace(1, 1.02, len(one)),
        **{BITS: lambda one: one[BITS] - 1},
    )
    effect = setting_effect(table(pd.concat([rows(), larger]), tmp_path), "V")
    assert len({point.budget for point in effect.points[BITS]}) == 2 and effect.words.count("is best at") == 2
    assert any("compute differs by a factor of 1.1" in warning for warning in effect.warnings)


def test_mistakes_are_named(tmp_path: Path) -> None:
    runs = table(rows().assign(never=None), tmp_path)
    with pytest.raises(ConfigError, match=r"effect=vocab: .* has no such column"):
        setting_effect(runs, "vocab")
    with pytest.raises(ConfigError, match=r"effect=C: all runs of .* have 6"):
        setting_effect(runs, "C")
    with pytest.raises(LawError, match="measures=never"):
        setting_effect(runs, "V", ["never"])


def test_the_stage_writes_a_page_and_both_questions_at_once_are_refused(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "runs.csv", index=False)
    settings = {"outputs": str(tmp_path), "runs": str(tmp_path / "runs.csv"), "effect": "V"}
    folder = run(FitStage(**settings, tracking=TrackingConfig(enabled=False)))
    law = read_json(folder / "law.json")
    assert law["measures"][BITS][2]["difference"] == pytest.approx(-0.3) and (folder / "figures" / "law.svg").exists()
    assert "from the first" in (folder / "index.html").read_text()
    with pytest.raises(ConfigError, match="effect"):
        FitStage(**settings, compare="V").validate()
