"""The whole pipeline with tiny models: a family, its fit, a prediction, exactly that run, and the verdict."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli import evaluate, fit, predict, train, verify
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.law_config import FitStage, PredictStage, VerifyStage
from maquette.cli.command_line.model_config import EvaluateStage
from maquette.cli.command_line.registry import STAGES
from maquette.evaluation.config import ProtocolConfig, SuiteConfig
from maquette.model.config import ModelConfig
from maquette.recipe.run_spec import RunSpec
from maquette.scaling.predictions.prediction import WrittenPrediction
from maquette.tracking import find_runs, start_run
from maquette.training import RunRecord, pretraining
from support.small_runs import settings, write_documents

pytestmark = pytest.mark.slow(reason="trains a family, fits it, predicts and trains a larger model")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, no_pictures: None) -> Iterator[Path]:
    """Outputs with three sizes at two budgets, one of them with two seeds, and a fit of all of them."""
    root = tmp_path_factory.mktemp("pipeline")
    (root / "documents").mkdir()
    write_documents(root / "documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "draw_loss", lambda *_, **__: root / "loss.png")
        for size, tokens, seed in [
            ("5k", 5120, 0), ("9k", 5120, 0), ("16k", 5120, 0), ("5k", 15360, 0), ("9k", 15360, 0), ("16k", 15360, 0),
            ("9k", 15360, 1),
        ]:  # fmt: skip
            train.run(
                settings(
                    root / "outputs",
                    root / "documents",
                    size=size,
                    tokens=str(tokens),
                    seed=seed,
                    model=ModelConfig(),
                    mlflow=True,
                    num_validations=1,
                )
            )
        evaluate.run(asked(root / "outputs", runs="metrics.`validation/loss` > 0"))
        fit.run(FitStage(outputs=str(root / "outputs"), bootstrap=100))
        yield root / "outputs"


def asked(outputs: Path, **changes: str) -> EvaluateStage:
    """Two tasks, of the questions of which most are left to chance at this size."""
    suite = SuiteConfig(embedded=["arithmetic", "agreement"], items=30, likelihood=False)
    protocol = ProtocolConfig(protocols=["per_byte"], resamples=50)
    return EvaluateStage(outputs=str(outputs), suite=suite, protocol=protocol, **changes)


@pytest.fixture(scope="module")
def prediction(family: Path) -> WrittenPrediction:
    question = FitStage(outputs=str(family), bootstrap=100)
    known = fit.question(question).known()
    assert known is not None
    with start_run(question.tracking, outputs=family, name="another", folder=family, params={}, tags={}):
        pass
    assert fit.question(question).known() is None  # something was recorded: the runs are read again, and are the same
    assert fit.run(question) == known == fit.question(question).known()
    return predict.run(PredictStage(outputs=str(family), size="16k", tokens="30720"))


def test_the_prediction_is_of_a_member_of_the_family(family: Path, prediction: WrittenPrediction) -> None:
    assert prediction.tokens == 30720 and prediction.reach == pytest.approx(2, rel=0.2)
    assert prediction.spec is not None
    spec = RunSpec.from_json(prediction.spec)
    assert spec.settings["data"]["sequence_length"] == 32 and spec.settings["size"] == "16k" and spec.seed == 0
    assert spec.batch_size_tokens == 256  # all runs had it, and the recipe says another
    assert set(prediction.data) == {"tokens", "tokenizer", "corpus"} and len(prediction.runs) == 7
    runs = find_runs(family)
    row = runs[runs["name"] == f"prediction-{prediction.id}"].iloc[0]
    assert row["tags.prediction.digest"] == prediction.digest and row["prediction/loss"] == prediction.loss


def test_it_says_what_the_run_scores_and_loses_by_kind_of_token(family: Path, prediction: WrittenPrediction) -> None:
    assert set(prediction.kinds) == {"new", "hit", "miss"} and set(prediction.tasks) == {"arithmetic", "agreement"}
    kinds = prediction.kinds.values()
    assert min(row["loss"] for row in kinds) < prediction.loss < max(row["loss"] for row in kinds)
    for row in prediction.tasks.values():
        # the context is too short for most questions
        assert 1 < row["questions"] <= 30 and len(row["digest"]) == 64 and row["noise"]["accuracy"]
        low, high = row["bits_per_byte"]["interval90"]
        assert low < row["bits_per_byte"]["value"] < high
    (table,) = (path for path in (family / "fits").glob("*/runs.csv") if "tasks/agreement/accuracy" in path.read_text())
    page = (table.parent / "index.html").read_text()
    assert "Kinds of token" in page and "Least seen" in page and (table.parent / "figures/token_kinds.png").exists()


def test_a_line_that_contradicts_it_is_refused(family: Path, prediction: WrittenPrediction) -> None:
    line = [f"prediction={prediction.id}", f"outputs={family}"]
    for override, message in [
        ("size=300k", "size=300k contradicts"),
        ("seed=3", "seed=3 contradicts"),
        ("model=lstm", r"model\.kind=lstm contradicts"),
        ("precision=bf16-mixed", r"precision\.kind"),
    ]:
        with pytest.raises(ConfigError, match=message):
            compose(STAGES["train"], [*line, override])
    config = compose(STAGES["train"], [*line, "size=16k", "logger=none", "threads=1"])
    assert isinstance(config, TrainStage) and config.tokens == "30720" and not config.tracking.enabled
    config.tokens = "5120"
    with pytest.raises(ConfigError, match="not the run that"):
        train.run(config)


def test_trained_and_judged(family: Path, prediction: WrittenPrediction, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(STAGES["train"], [f"prediction={prediction.id}", f"outputs={family}", "threads=1"])
    assert isinstance(config, TrainStage)
    record: RunRecord = train.run(config)
    assert record.spec.prediction == prediction.digest and record.spec.size == prediction.params
    (verdict,) = verify.run(VerifyStage(outputs=str(family)))
    assert verdict.run == record.name and verdict.loss == record.validation_loss
    assert verdict.words in " ".join(capsys.readouterr().out.split())
    assert prediction.id in (family / "verdicts" / "index.html").read_text()
    assert (family / "verdicts" / "calibration.png").exists()
    kinds = {part.name: part.observed for part in verdict.parts}
    assert kinds == {f"{kind} tokens": record.metrics[f"token_kinds/{kind}_loss"] for kind in ("new", "hit", "miss")}
    assert set(verdict.not_evaluated) == {"arithmetic", "agreement"}
    runs = find_runs(family)
    row = runs[runs["name"] == f"prediction-{prediction.id}"].iloc[0]
    assert row["verdict/error_nats"] == pytest.approx(verdict.error)
    assert runs[runs["name"] == record.name].iloc[0]["tags.prediction"] == prediction.id
    score = evaluate.run(asked(family, checkpoint=record.name))
    (judged,) = verify.run(VerifyStage(outputs=str(family)))
    parts = {part.name: part for part in judged.parts}
    assert not judged.not_evaluated and len(parts) == 7
    assert parts["agreement, accuracy"].observed == score["headline"]["agreement"]["accuracy"]
    assert parts["agreement, accuracy"].noise and "said to be noise" in parts["agreement, accuracy"].words
    assert "agreement, bits per byte" in (family / "verdicts" / "index.html").read_text()
    with pytest.raises(StageError, match="too late to predict"):
        predict.run(PredictStage(outputs=str(family), size="16k", tokens="30720"))
    # Where the run's folder is on another machine, the store knows enough to judge by.
    (Path(record.folder) / "run.json").rename(family / "run.json")
    (again,) = verify.run(VerifyStage(outputs=str(family), prediction=prediction.id))
    assert again.loss == pytest.approx(verdict.loss) and again.run == verdict.run
    # Taking the prediction away does not make it forgotten.
    capsys.readouterr()
    (family / "predictions" / f"{prediction.id}.json").rename(family / "taken away")
    assert verify.run(VerifyStage(outputs=str(family))) == []
    assert f"prediction {prediction.id}, which MLflow knows, is missing" in " ".join(capsys.readouterr().out.split())
