"""`${recipe:NAME}`: null for a run, the recipe's number where a config is shown."""

import pytest
from omegaconf import OmegaConf

from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.composition import compose, compose_raw
from maquette.cli.command_line.registry import STAGES

OPEN = "optimizer.lr='${recipe:learning_rate}'"


def test_it_is_open_for_a_run_and_shown_as_the_recipe_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    settings = compose(STAGES["train"], [OPEN, "size=20k"])
    assert settings.optimizer.lr is None  # type: ignore[attr-defined]
    shown = []
    for size in ("20k", "2m"):
        with pytest.raises(SystemExit):
            cli.main(["train", "--cfg", "job", "--resolve", OPEN, f"size={size}"])
        shown.append(OmegaConf.create(capsys.readouterr().out).optimizer.lr)
    assert shown[0] > shown[1] > 0
    given = compose_raw(STAGES["train"], [OPEN, "size=20k", "recipe.learning_rate=0.76"])
    assert given.optimizer.lr == pytest.approx(2 * shown[0], rel=1e-4)


def test_an_unknown_number_is_answered_with_the_nearest() -> None:
    composed = compose_raw(STAGES["train"], ["optimizer.lr='${recipe:learning_rat}'"])
    with pytest.raises(Exception, match="learning_rate"):
        OmegaConf.to_container(composed, resolve=True)
