"""Alignment over sizes: where policies cross the demonstrators' level, how gaps grow, and what is written."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.reading import load_sealed, write_sealed
from maquette.cli import alignment
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.sizes import run_sizes
from maquette.feedback.study.measurement import BestOfN, Measurement, PolicyResult
from maquette.feedback.study.report import StudyReport, read_study, write_study
from maquette.feedback.study.sizes import BEST, crossing, demonstrators_level, summary, trend
from maquette.feedback.study.tables import CURVES
from maquette.model.config import ModelConfig
from maquette.recipe.shape import choose_shape, parameters_of
from maquette.statistics import IntervalEstimate

SIZES = [10_000, 100_000, 1_000_000]


def test_where_a_line_is_crossed() -> None:
    assert crossing(SIZES, [0.1, 0.3, 0.5], 0.4) == pytest.approx(10**5.5)
    assert crossing(SIZES, [0.1, 0.3, 0.5], 0.1) == 10_000
    assert crossing(SIZES, [0.1, 0.3, 0.5], 0.6) is None
    assert crossing(SIZES, [0.5, 0.3, 0.5], 0.5) == 10_000


def test_how_a_gap_grows() -> None:
    slope, interval = trend(SIZES, [0.1, 0.2, 0.3])
    assert slope == pytest.approx(0.1) and interval.low == pytest.approx(0.1) == interval.high
    slope, interval = trend(SIZES, [0.1, 0.3, 0.2])
    assert interval.contains(slope) and interval.contains(0.0)
    assert not pd.notna(trend(SIZES[:2], [0.1, 0.2])[1].low) or trend(SIZES[:2], [0.1, 0.2])[1].low < -1e9


def test_demonstrators_are_worth_what_their_shares_say() -> None:
    perfect = demonstrators_level(["pick"], "perfect", prompts=50, seed=1)
    easy = demonstrators_level(["pick"], "easy", prompts=400, seed=1)
    harder = demonstrators_level(["pick"], "harder", prompts=400, seed=1)
    assert perfect.value == 1.0 > max(easy.high, harder.high) and min(easy.low, harder.low) > 0.6
    assert easy == demonstrators_level(["pick"], "easy", prompts=400, seed=1)


def measured(gold: dict[str, float], best: float) -> Measurement:
    def policy(name: str, value: float) -> PolicyResult:
        point = {"gold": IntervalEstimate(value, value - 0.02, value + 0.02)}
        return PolicyResult(name, name, {}, 1.0, 1.0, 0.3, 3.0, 1.0, point, point, point, point, ["a"])

    curve = BestOfN("reward", [1, 2], [0.0, 0.2], {"gold": [0.2, best], "reward": [0.0, 1.0]}, [3.0, 3.0])
    return Measurement("sft", [policy(name, value) for name, value in gold.items()], [curve], ["pick"], 20)


def test_what_a_study_leads_with() -> None:
    gained = StudyReport(measured({"base": 0.0, "sft": 0.2, "ppo": 0.4}, 0.5), {}, {})
    assert gained.lead.startswith("From gold reward 0.200 (sft) to 0.400 (ppo)")
    nothing = StudyReport(measured({"base": 0.0, "sft": 0.2, "ppo": 0.2}, 0.0), {}, {})
    assert nothing.lead == "No policy has more gold reward than sft, 0.200 a completion."
    assert nothing.table[1][-1][1] == (0.2, "0.200")


def test_studies_of_all_sizes_come_to_one_page(tmp_path: Path) -> None:
    """The studies themselves are another test's; here each is written as one that was measured."""
    given: list[AlignmentStage] = []

    def study(config: AlignmentStage) -> Path:
        given.append(config)
        place = tmp_path / config.base["size"]
        place.mkdir(exist_ok=True)
        step = 0.1 * len(place.name)
        measured({"base": 0.0, "sft": step, "ppo": 2 * step}, 1.5 * step).save(place / "results.json")
        return place

    config = AlignmentStage(
        outputs=str(tmp_path), title="Sizes", sizes=["9k", "90k", "900k"], base={"tokens": "4k"}, prompts=40,
        sft={"instructions": {"demonstrators": "harder"}},
    )  # fmt: skip
    folder = run_sizes(config, study)
    assert [(one.base["size"], one.title, one.sizes) for one in given] == [
        (size, f"Sizes, {size}", []) for size in config.sizes
    ]
    table = pd.read_csv(folder / "sizes.csv")
    assert list(table.policy[:4]) == ["base", "sft", "ppo", BEST] and list(table["size"].unique()) == [9e3, 9e4, 9e5]
    assert table.human.iloc[0] == pytest.approx(demonstrators_level(["pick"], "harder", prompts=40, seed=1).value, 1e-4)
    rows = {row["policy"]: row for row in summary(table, 0.5, "sft")}
    assert rows["ppo"]["growth"] == pytest.approx(0.1) and rows["sft"]["growth"] is None
    assert rows["base"]["crosses"] is None and 9e3 < rows["ppo"]["crosses"] < 9e4
    page = (folder / "index.html").read_text()
    assert "Gold reward over sizes" in page and "none of these sizes" in page
    assert (folder / "figures" / "sizes.png").exists()
    assert run_sizes(config, study) == folder


def test_the_shipped_sweep() -> None:
    config: Any = compose(STAGES["alignment"], ["+sweep=alignment_sizes"])
    sizes = [float(size.rstrip("k")) for size in config.sizes]
    assert len(sizes) >= 4 and max(sizes) / min(sizes) >= 10**1.4
    for size in sizes:
        tokens = config.base["tokenizer"]["vocab_size"]
        shape = choose_shape(ModelConfig(), int(1000 * size), vocab_size=tokens, context=128)
        assert parameters_of(shape) == pytest.approx(1000 * size, rel=0.1)
    with pytest.raises(ConfigError, match="sizes has no effect"):
        alignment.run(AlignmentStage(sizes=["9k"], sft={"seed": 1}))


def test_fits_and_validations_of_a_study_are_two_files(tmp_path: Path) -> None:
    """The fits of curves once took the place of the validations."""
    validations = [
        {"step": step, "kl": float(step), "gold": 0.2 + step / 10 - step**2 / 50, "reward": float(step), "words": 3.0}
        for step in range(6)
    ]
    write_sealed(tmp_path / CURVES, {"ppo": validations})
    write_study(
        tmp_path, measured({"sft": 0.2, "ppo": 0.3}, 0.3), ["overoptimisation"], title="Two files",
        validations={"ppo": validations}, commands={}, evaluations={},
    )  # fmt: skip
    assert load_sealed(tmp_path / CURVES) == {"ppo": validations}
    assert list(read_study(tmp_path).curves) == ["ppo, rl"]
