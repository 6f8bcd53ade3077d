"""The two ways: which runs they train, that their compute is equal, and how the big run is chosen."""

import json
from html import unescape
from pathlib import Path

import numpy as np
import pipelines
import pytest
from pipelines import (
    SMALL_SHARE,
    Trained,
    Trial,
    final_run,
    pipeline_facts,
    pipeline_figure,
    small_trials,
    thumb_size,
    tuning_trials,
)

from maquette.model.config import ModelConfig
from maquette.reports import render
from maquette.scaling.laws.runs import LawError
from maquette.scaling.laws.surface import LossSurface
from maquette.training import pretraining
from support.small_runs import settings, write_documents

pytestmark = pytest.mark.usefixtures("no_pictures")

# twenty tokens a parameter
TRUTH = LossSurface(E=1.0, A=100, B=331, alpha=0.4, beta=0.4)


def trained(trial: Trial) -> Trained:
    """On the surface; a wrong learning rate costs, the best is half the recipe's."""
    tokens = trial.compute / 6 / trial.size
    loss = TRUTH.loss(trial.size, tokens) * (1 + 0.02 * np.log(trial.rate_factor / 0.5) ** 2)
    return Trained(trial, "run", trial.size, tokens, trial.compute, float(loss))


def test_guesses_share_the_compute_and_are_the_same_every_time() -> None:
    result = tuning_trials(1e13, 8, 0, lambda size: size > thumb_size(1e13 / 8))
    assert sum(trial.compute for trial in result) == pytest.approx(1e13)
    assert all(1 < trial.size / thumb_size(1e13 / 8) <= 4 and 0.25 <= trial.rate_factor <= 4 for trial in result)
    assert result == tuning_trials(1e13, 8, 0, lambda size: size > thumb_size(1e13 / 8))
    with pytest.raises(LawError, match="too few"):
        tuning_trials(1e13, 2, 0, lambda size: False)


def test_small_models_cost_a_tenth() -> None:
    result = small_trials(1e13, lambda size: True)
    assert sum(trial.compute for trial in result) == pytest.approx(SMALL_SHARE * 1e13)
    assert len({trial.compute for trial in result}) == 2 and {trial.rate_factor for trial in result} == {0.5, 1, 2}
    with pytest.raises(LawError, match="too few"):
        small_trials(1e13, lambda size: False)


def test_the_big_run_follows_the_line_and_the_best_rate() -> None:
    small = [trained(trial) for trial in small_trials(1e13, lambda size: True)]
    big = final_run(small, 9e12)
    assert big.trial.size == pytest.approx(TRUTH.optimal(9e12).params, rel=0.25)
    assert big.trial.rate_factor == 0.5 and "C^0.5" in big.words


def test_without_minima_the_best_small_runs_proportions_count() -> None:
    small = [
        trained(trial) for trial in small_trials(1e13, lambda size: True) if trial.size < 2 * thumb_size(trial.compute)
    ]
    big = final_run(small, 9e12)
    assert "no minimum" in big.words and big.trial.size > max(run.params for run in small)


def test_the_verdict_compares_what_was_spent() -> None:
    old = [trained(trial) for trial in tuning_trials(1e13, 6, 1, lambda size: True)]
    small = [trained(trial) for trial in small_trials(1e13, lambda size: True)]
    big = final_run(small, 1e13 - sum(run.compute for run in small))
    untuned = trained(Trial(thumb_size(big.trial.compute), big.trial.compute))
    facts = pipeline_facts(old, small, trained(big.trial), untuned, big.words)
    assert facts["of_size"] + facts["of_tuning"] == pytest.approx(facts["ahead_nats"])
    assert facts["of_size"] == pytest.approx(facts["best_old"]["loss"] - untuned.loss)
    assert facts["compute_old"] == pytest.approx(facts["compute_new"]) == pytest.approx(1e13)
    assert facts["winner"] == "new" and facts["ahead_nats"] > 0
    assert facts["best_old"]["loss"] == min(run.loss for run in old)
    figures = {"pipelines": pipeline_figure(old, small, trained(big.trial))}
    page = unescape(render("pipelines.html.j2", {**facts, "figures": figures}))
    assert facts["verdict"] in page and f"{facts['of_size']:+.4f}" in page


@pytest.mark.slow(reason="trains the models of both ways", minutes=1)
def test_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pretraining, "draw_loss", lambda *_, **__: tmp_path / "loss.png")
    (tmp_path / "documents").mkdir()
    write_documents(tmp_path / "documents")
    config = settings(
        tmp_path / "outputs",
        tmp_path / "documents",
        num_validations=1,
        tokens=None,
        compute="3e10",
        model=ModelConfig(),
    )
    folder = pipelines.run(config, trials=2)
    facts = json.loads((folder / "verdict.json").read_text())
    assert facts["compute_new"] == pytest.approx(facts["compute_old"], rel=0.02)
    assert facts["untuned"]["compute"] == pytest.approx(facts["big"]["compute"], rel=0.05)
    assert len(facts["old"]) == 2 and facts["big"]["compute"] > 0.8 * facts["compute_old"]
    assert facts["verdict"][:40] in " ".join(capsys.readouterr().out.split())
    assert pipelines.run(config, trials=2) == folder
    assert "up to date" in capsys.readouterr().err
