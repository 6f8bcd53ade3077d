"""LIMA at equal steps and at equal epochs: what is compared with what."""

import lima
import pytest

from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.study import Study


@pytest.mark.slow(reason="composes every run of a study of sixteen models")
def test_equal_steps_are_equal_and_equal_epochs_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lima, "EXAMPLES", (200, 32000))
    config = compose(STAGES["alignment"], [*lima.SETTINGS, "seed=1"])
    assert isinstance(config, AlignmentStage)
    study = Study(config, lima.lima)
    tuned = {name: one for name, one in study.settings.items() if name in study.policies and "base" not in name}
    assert list(tuned) == ["text 200 epochs", "text 200 steps", "text 32000 epochs",
                           "taught 200 epochs", "taught 200 steps", "sft"]  # fmt: skip
    seen = {name: one.instructions.count * one.objective.epochs for name, one in tuned.items()}
    assert (
        seen["text 200 epochs"] == 200 and seen["text 200 steps"] == seen["sft"] == seen["text 32000 epochs"] == 32000
    )
    assert len({one.objective.batch_size for one in tuned.values()}) == 1
    assert {one.instructions.demonstrators for one in tuned.values()} == {"harder"}
    assert study.settings["base taught"].instructions.demonstrators == "perfect"
    assert tuned["taught 200 steps"].checkpoint == "<base taught>" and tuned["text 200 steps"].checkpoint == "<base>"
    assert [study.settings[name].seed for name in ("base", "base taught", "sft")] == [0, 0, 1]
    assert {f"{name} elsewhere" for name in study.policies} <= study.settings.keys()
