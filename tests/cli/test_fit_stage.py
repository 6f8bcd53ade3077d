"""`maquette fit` of anybody's table, and what rests on the stored fit: suggestions, predictions, plans."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.manifest import read_manifest
from maquette.cli import fit, plan, predict, verify
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.law_config import FitStage, PlanStage, PredictStage, VerifyStage
from maquette.cli.command_line.registry import STAGES
from maquette.scaling.fits.stored_fit import find_fit, load_fit
from maquette.scaling.predictions.prediction import find_prediction
from maquette.tracking.config import TrackingConfig
from support.sweeps import TRUTHS, half_decades, isoflop_sweep

pytestmark = pytest.mark.slow(reason="fits with a bootstrap")

OFF = TrackingConfig(enabled=False)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> FitStage:
    """Settings of a fit that has been made once: five budgets of Kaplan's form, as a CSV file."""
    root = tmp_path_factory.mktemp("fit")
    sweep = isoflop_sweep(TRUTHS["kaplan"], half_decades(1e17, 5), noise=0.002, sizes=5)
    rows = "".join(f"{n},{d},{loss},{c}\n" for n, d, loss, c in zip(*sweep, strict=True))
    (root / "my.csv").write_text("N,D,loss,C\n" + rows)
    config = FitStage(outputs=str(root / "outputs"), runs=str(root / "my.csv"), bootstrap=100, tracking=OFF)
    fit.run(config)
    return config


def test_a_fit_leaves_runs_values_figures_and_a_page(fitted: FitStage, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fit.run(fitted)
    captured = capsys.readouterr()
    printed = " ".join(captured.out.split())
    assert "up to date" in captured.err and "25 runs" in printed and "ten times the largest" in printed
    assert folder == find_fit(None, fitted.outputs) == find_fit("my", fitted.outputs) == find_fit(str(folder), "x")
    facts = json.loads((folder / "fit.json").read_text())
    assert facts["form"] == facts["predictor"]["form"] == "plateau" and facts["versions"]["numpy"]
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {
        f"{n}.{e}" for n in ("isoflop", "best", "loss", "envelope", "surface", "residuals") for e in ("png", "svg")
    }
    page = (folder / "index.html").read_text()
    for override in ("Which optimiser?", "Confounders", "Card", "Kaplan", "Minima by akima"):
        assert override in page, override


def test_a_stored_fit_is_the_same_law_again(fitted: FitStage) -> None:
    folder = find_fit(None, fitted.outputs)
    again, manifest = load_fit(folder)
    facts = json.loads((folder / "fit.json").read_text())
    assert again.surface.surface.alpha == facts["surfaces"][again.surface.form]["alpha"]
    assert manifest.kind == "fits" and again.form == facts["form"]
    with pytest.raises(ConfigError, match="no such fit"):
        find_fit("mi", fitted.outputs)
    with pytest.raises(StageError, match="no fit"):
        find_fit(None, "nowhere")


def test_a_known_fit_is_of_the_same_runs_and_settings(fitted: FitStage, tmp_path: Path) -> None:
    fit.run(fitted)
    folder = fit.question(fitted).known()
    assert folder is not None and folder == find_fit(None, fitted.outputs)
    for change in ({"bootstrap": 101}, {"without": ["run 1"]}, {"outputs": str(tmp_path)}):
        assert fit.question(dataclasses.replace(fitted, **change)).known() is None, change
    table = Path(str(fitted.runs))
    before = table.read_text()
    table.write_text(before + before.splitlines()[-1] + "\n")
    assert fit.question(fitted).known() is None
    table.write_text(before)
    assert fit.question(fitted).known() == folder
    picture = folder / "figures" / "loss.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-1] + b"?")
    with pytest.raises(StageError, match=r"loss\.png"):
        fit.run(fitted)
    picture.write_bytes(whole)


def test_the_next_runs_are_a_line_to_type(fitted: FitStage, capsys: pytest.CaptureFixture[str]) -> None:
    fit.run(FitStage(**{**fitted.__dict__, "suggest": 3, "affordable": "1e18"}))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("maquette train -m size=")]
    assert lines and all("compute=" in line and "outputs=" in line for line in lines)
    assert sum(line.split("size=")[1].split()[0].count(",") + 1 for line in lines) == 3
    budgets = [float(line.split("compute=")[1].split()[0]) for line in lines]
    assert max(budgets) <= 1.01e18


def test_a_prediction_of_somebody_elses_run(fitted: FitStage, capsys: pytest.CaptureFixture[str]) -> None:
    truth = TRUTHS["kaplan"]
    best = truth.optimal(1e20)
    asked = PredictStage(outputs=fitted.outputs, size=f"{best.params:.0f}", tokens=f"{best.tokens:.0f}", tracking=OFF)
    written = predict.run(asked)
    assert written.interval90[0] < truth.loss(*best) < written.interval90[1] and written.reach == pytest.approx(
        10, rel=1e-3
    )
    assert find_prediction(None, fitted.outputs) == written and len(written.runs) == 25
    with pytest.raises(ConfigError, match="runs of another program"):
        compose(STAGES["train"], [f"prediction={written.id}", f"outputs={fitted.outputs}"])
    by_compute = predict.run(PredictStage(outputs=fitted.outputs, compute="1e20", tracking=OFF))
    assert by_compute.params == pytest.approx(best.params, rel=0.2) and by_compute.before == written.digest
    with pytest.raises(StageError, match="no verdict"):
        verify.run(VerifyStage(outputs=fitted.outputs, prediction=written.id, tracking=OFF))
    assert verify.run(VerifyStage(outputs=fitted.outputs, tracking=OFF)) == []
    assert f"train prediction={written.id}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="What is to be predicted"):
        predict.run(PredictStage(outputs=fitted.outputs, size="3m", tracking=OFF))


def test_a_plan_on_ones_own_surface(fitted: FitStage, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(PlanStage(outputs=fitted.outputs, surface="my", gpus=1000))
    assert "times beyond its largest budget" in " ".join(capsys.readouterr().out.split())
    result = plan.run(PlanStage(outputs=fitted.outputs, surface="latest", json=True))
    values = json.loads(capsys.readouterr().out)
    surface, _ = load_fit(find_fit(None, fitted.outputs))[0].predictor.planning_surface()
    assert isinstance(result, plan.ComputePlan) and result.surface == surface
    low, high = values["intervals"]["params"]
    assert low < values["params"] < high
    with pytest.raises(ConfigError, match="neither published nor a fit"):
        plan.run(PlanStage(outputs=fitted.outputs, surface="besiroglu"))


def test_a_changed_run_is_refused(fitted: FitStage, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(find_fit(None, fitted.outputs), folder)
    text = (folder / "runs.csv").read_text()
    (folder / "runs.csv").write_text(text.replace("run 3", "run x"))
    with pytest.raises(StageError, match=r"runs\.csv"):
        load_fit(folder)


def test_a_learning_rate_law_leaves_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    width, shift = (a.ravel() for a in np.meshgrid([16, 32, 64], [-1.4, -0.7, 0.0, 0.7, 1.4]))
    rows = "".join(
        f"{100 * w * w},{2000 * w * w},{4 * w**-0.1 * np.exp(0.02 * s**2)},{0.3 / w * np.exp(s)},{w}\n"
        for w, s in zip(width, shift, strict=True)
    )
    (tmp_path / "rates.csv").write_text("N,D,loss,learning_rate,width\n" + rows)
    config = FitStage(
        outputs=str(tmp_path), runs=str(tmp_path / "rates.csv"), laws="learning_rate", name="mine", tracking=OFF
    )
    folder = fit.run(config)
    assert json.loads((folder / "law.json").read_text())["recipe"]["learning_rate"] == pytest.approx(0.3, rel=1e-3)
    assert "recipe=mine" in capsys.readouterr().err
    composed = compose(STAGES["train"], ["recipe=mine", f"outputs={tmp_path}"])
    assert composed.recipe.learning_rate == pytest.approx(0.3, rel=1e-3)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_pictures_here")
def test_a_form_of_ones_own_is_fitted_stored_and_predicts(
    fitted: FitStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_forms_of_law.py").write_text(
        "class Floor:\n"
        "    parameters = {'E': (0, 5), 'A': (1e-2, 1e9), 'alpha': (0.01, 3), 'B': (1e-2, 1e9), 'beta': (0.01, 3)}\n"
        "    def loss(self, N, D, *, E, A, alpha, B, beta):\n        return E + A / N**alpha + B / D**beta\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = [f"runs={fitted.runs}", "outputs=out", "bootstrap=100", "tracking=none"]
    with pytest.raises(ConfigError, match="Did you mean Floor"):
        fit.run(compose(STAGES["fit"], [*settings, "form=my_forms_of_law:Flor"]))
    assert not Path("out").exists()
    folder = fit.run(compose(STAGES["fit"], [*settings, "form=my_forms_of_law:Floor"]))
    printed = " ".join(capsys.readouterr().out.split())
    assert "By the Floor form, which was forced" in printed and "maquette plan" in printed
    again, _ = load_fit(folder)
    assert again.form == "Floor" and set(again.comparison.fits) > {"Floor", "additive"}
    page = (folder / "index.html").read_text()
    assert "my_forms_of_law:Floor" in page
    prediction = predict.run(compose(STAGES["predict"], ["size=3m", "compute=1e20", "outputs=out", "tracking=none"]))
    assert prediction.form == "Floor" and prediction.interval90[0] < prediction.loss < prediction.interval90[1]
    # Beside ours, without being forced; and an edit of its module would make another fit.
    beside = fit.run(compose(STAGES["fit"], [*settings, "forms=[my_forms_of_law:Floor]"]))
    facts = json.loads((beside / "fit.json").read_text())
    assert not facts["forced"] and "Floor" in facts["overall"]
    assert read_manifest(beside).config["code"] == code_digest("my_forms_of_law:Floor")
