"""`maquette evaluate` and `leaderboard`: from a checkpoint to pages, resumed after a kill, compared in pairs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.reading import load_sealed
from maquette.artifacts.settings import check
from maquette.cli import corpus, evaluate, leaderboard, train
from maquette.cli.command_line.config import CorpusStage
from maquette.cli.command_line.model_config import EvaluateStage, LeaderboardStage
from maquette.corpus.config import CorpusConfig, SourceConfig
from maquette.evaluation import suite
from maquette.evaluation.config import ProtocolConfig, SuiteConfig, no_suite
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.tracking.config import TrackingConfig
from maquette.training import RunRecord
from support.small_runs import settings as small_run
from support.small_runs import write_documents
from support.small_specs import make_spec


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate")
    (root / "source").mkdir()
    write_documents(root / "source")
    source = SourceConfig(kind="jsonl", path=str(root / "source"))
    settings = CorpusConfig(near_duplicates=1.0, validation=0.1, test=0.1, workers=1)
    corpus.run(CorpusStage(outputs=str(root / "outputs"), source=source, corpus=settings))
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    for seed in (0, 1):
        shape = TransformerConfig(
            tokenizer.vocab_size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=160,
        )
        hf.save(LanguageModel(shape, seed=seed), tokenizer, root / f"model{seed}")
    return root / "outputs"


def settings(outputs: Path, model: int = 0, **changes: Any) -> EvaluateStage:
    suite = SuiteConfig(embedded=["arithmetic", "agreement"], items=40, documents=3)
    protocol = ProtocolConfig(orders=2, resamples=100)
    return EvaluateStage(
        outputs=str(outputs), checkpoint=str(outputs.parent / f"model{model}"), suite=suite, protocol=protocol,
        tracking=TrackingConfig(enabled=False), **changes,
    )  # fmt: skip


def test_evaluates_once_and_writes_everything(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate.run(settings(outputs))
    (folder,) = (outputs / "evaluations").glob("model0-embedded-*")
    assert json.loads((folder / "evaluation.json").read_text())["scores"] == result["scores"]
    page = (folder / "index.html").read_text()
    assert "arithmetic" in page and "less unconditional" in page and "&#39;{context}&#39;" in page
    assert (folder / "figures" / "protocols.svg").is_file()
    rows = {(row["task"], row["protocol"]): row for row in result["scores"]}
    assert len(rows) == 12
    assert all(row["low"] <= row["accuracy"] <= row["high"] and row["questions"] == 40 for row in rows.values())
    assert result["mean_accuracy"] == pytest.approx(
        sum(rows[task, "per_byte"]["accuracy"] for task in ("arithmetic", "agreement")) / 2
    )
    assert 5 < result["likelihood"]["all"]["bits_per_byte"]["value"] < 12
    capsys.readouterr()
    assert evaluate.run(settings(outputs)) == load_sealed(folder / "evaluation.json")
    assert "up to date" in capsys.readouterr().err


@pytest.mark.slow(reason="evaluates several times")
def test_killed_evaluation_goes_on(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after some batches, the rest is asked, nothing twice, and the result is that of one go."""
    asked: list[str] = []
    real: Callable[..., Any] = suite.ask

    def counted(model: Any, tokenizer: Any, questions: Any, *rest: Any, **options: Any) -> Any:
        if limit and len(asked) >= limit:
            raise KeyboardInterrupt
        asked.extend(question.id for question in questions)
        return real(model, tokenizer, questions, *rest, **options)

    monkeypatch.setattr(suite, "ask", counted)
    limit = 32
    config = settings(outputs)
    config.protocol.seed = 5
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(config)
    (journal,) = (
        path
        for path in (outputs / "evaluations").glob("model0-*/journal.jsonl")
        if not (path.parent / "evaluation.json").exists()
    )
    with journal.open("ab") as file:
        file.write(b'{"key": "question|arith')  # what a crash leaves of a line
    limit = 0
    resumed = evaluate.run(config)
    assert len(asked) == len(set(asked)) == 80
    config.force = True
    again = evaluate.run(config)
    assert resumed["scores"] == again["scores"] and resumed["items"] == again["items"]


def test_files_shots_and_contamination(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"id": i, "question": f"{i}?", "choices": ["a", "b"], "answer": i % 2} for i in range(20)]
    lines[3]["answer"] = 7
    (tmp_path / "mmlu.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = settings(outputs)
    config.suite = SuiteConfig(
        name="own", embedded=[], files={"mmlu": str(tmp_path / "mmlu.jsonl")}, likelihood=False, contamination=True
    )
    config.protocol.shots = [0, 2]
    result = evaluate.run(config)
    assert "1 questions with no right answer are left out" in capsys.readouterr().err
    assert {row["shots"] for row in result["scores"]} == {0, 2}
    assert result["headline"]["mmlu"]["protocol"] == "letter"
    assert 0 <= result["contamination"]["mmlu"]["p_value"] <= 1
    assert result["skipped"] == {"mmlu": {"no right answer": 1}}


def test_leaderboard(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = evaluate.run(settings(outputs)), evaluate.run(settings(outputs, model=1))
    capsys.readouterr()
    tracking = TrackingConfig(enabled=False)
    rankings = leaderboard.run(LeaderboardStage(outputs=str(outputs), tracking=tracking, suite="embedded"))
    ranking = next(ranking for ranking in rankings if len(ranking.rows) == 2)
    assert ranking.one_tokenizer
    assert {row.name for row in ranking.rows} == {"model0", "model1"}
    assert sum(row.mean_win_rate or 0 for row in ranking.rows) == pytest.approx(1)
    behind = ranking.rows[1].behind
    assert behind is not None
    gap = abs(first["mean_accuracy"] - second["mean_accuracy"])
    assert abs(behind.difference) == pytest.approx(gap, abs=1e-9)
    assert "model1" in (outputs / "evaluations" / "index.html").read_text()
    capsys.readouterr()
    leaderboard.run(LeaderboardStage(outputs=str(outputs), tracking=tracking, suite="embedded", json=True))
    printed = json.loads(capsys.readouterr().out)
    assert {row["name"] for ranking in printed for row in ranking["rows"]} == {"model0", "model1"}


def test_mistakes(outputs: Path, tmp_path: Path) -> None:
    for wrong, message in (
        (SuiteConfig(embedded=["grammar"]), "embedded=grammar is not known"),
        (EvaluateStage(suite=no_suite()), "suite is empty"),
        (SuiteConfig(files={"agreement": "x.csv"}), "name of an embedded task"),
        (ProtocolConfig(protocols=["vibes"]), "protocols=vibes"),
        (ProtocolConfig(shots=[-1]), "shots"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(wrong)
    config = settings(outputs, corpus=str(tmp_path))
    with pytest.raises(StageError, match=r"manifest.json is missing"):
        evaluate.run(config)


@pytest.mark.slow(reason="trains a model and evaluates it")
def test_follows_a_training_run(tmp_path: Path, outputs: Path) -> None:
    """`maquette train suite=...` evaluates the model that it made, on its own corpus' held-out text."""
    config = small_run(tmp_path, outputs.parent / "source")
    config.suite = SuiteConfig(embedded=["arithmetic"], items=20, documents=2)
    config.protocol = ProtocolConfig(resamples=50)
    record = train.run(config)
    (file,) = (tmp_path / "evaluations").glob(f"{record.name}-embedded-*/evaluation.json")
    result = json.loads(file.read_text())
    assert {row["protocol"] for row in result["scores"]} >= {"likelihood", "unconditional"}
    assert set(result["likelihood"]) == {"all", "animals", "things"}
    config.suite = no_suite()
    assert (
        train.run(config).spec.fingerprint == record.spec.fingerprint
    )  # what is asked of a run does not make it another


def test_a_policy_is_no_language_model(outputs: Path, tmp_path: Path) -> None:
    """A checkpoint made by reinforcement is warned of, with its calibration error."""
    folder = tmp_path / "policy"
    shutil.copytree(outputs.parent / "model0", folder)
    RunRecord(make_spec(objective="ppo"), str(folder), "finished").save()
    config = settings(outputs)
    config.checkpoint = str(folder)
    config.suite = SuiteConfig(name="likelihood", embedded=[], documents=2)
    notes = evaluate.run(config)["notes"]
    assert notes[0].startswith("This model was trained by reinforcement from preferences (ppo)")
    assert "calibration error is 0." in notes[0]


def test_a_family_is_not_a_checkpoint_nor_a_reward_model(outputs: Path) -> None:
    with pytest.raises(ConfigError, match="both given"):
        check(settings(outputs, runs="isoflop"))
    reward = EvaluateStage(runs="isoflop", suite=SuiteConfig(preferences={"pairs": "pairs.jsonl"}))
    with pytest.raises(ConfigError, match="one reward model"):
        check(reward)
