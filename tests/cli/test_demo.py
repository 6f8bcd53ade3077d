"""`maquette demo`: the whole pipeline on a small text, then nothing left to do."""

import datetime
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts.manifest import build
from maquette.cli import demo
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import DemoStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps import running
from maquette.feedback.study.measurement import Measurement, PolicyResult
from maquette.feedback.study.report import write_study
from maquette.scaling.predictions import demo_page
from maquette.scaling.predictions.prediction import read_predictions
from maquette.statistics import IntervalEstimate
from maquette.tracking import find_runs

WORDS = [
    "river",
    "stone",
    "the",
    "of",
    "walks",
    "under",
    "bridge",
    "light",
    "and",
    "winter",
    "seven",
    "blue",
    "never",
    "opens",
]


def write_documents(path: Path) -> None:
    """Two domains of sentences, words drawn again in each, so that little of the text repeats."""
    chosen = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(240):
            lines = [" ".join(chosen.choices(WORDS, k=9)) + f" {chosen.randrange(10**6)}." for _ in range(12)]
            row = {"id": str(number), "text": "\n".join(lines), "domain": ("prose", "notes")[number % 2]}
            file.write(json.dumps(row) + "\n")


@pytest.mark.slow(reason="the whole demo: a family of twelve models, fits, a prediction, the larger model", minutes=2)
@pytest.mark.usefixtures("no_pictures")
def test_the_whole_pipeline_and_then_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "usable_cores", lambda: 1)  # the family is trained in this process
    write_documents(tmp_path / "documents.jsonl")
    overrides = [
        f"outputs={tmp_path / 'outputs'}", "source=jsonl", f"source.path={tmp_path / 'documents.jsonl'}",
        "tokenizer.vocab_size=300", "data.sequence_length=32", "sweep.budgets=[5e7,1e8,2e8,4e8]",
        "sweep.sizes_per_budget=3",
        "reach=3", "trainer=cpu", "threads=1",
        "data.validation_tokens=256", "corpus.validation=0.1", "corpus.test=0.1", "corpus.workers=1",
        "num_validations=2", "callbacks.samples.prompts=[the]",
    ]  # fmt: skip
    settings = compose(STAGES["demo"], overrides)
    page = demo.run(settings)
    assert page == tmp_path / "outputs" / "demo" / "index.html"
    text = page.read_text(encoding="utf-8")
    for part in (
        "your own text",
        "prose",
        "notes",
        "IsoFLOP curves",
        "Observed loss",
        "Score: how each form predicted",
        "Kneser-Ney 5-gram",
        "maquette sample",
        "mlflow",
        "after 100% of training",
    ):
        assert part in text, part
    runs = find_runs(tmp_path / "outputs")
    prediction = read_predictions(tmp_path / "outputs")[0]
    predicted = runs[(runs["tags.prediction.digest"] == prediction.digest) & (runs["tags.kind"] == "train")]
    (run,) = predicted.to_dict("records")
    assert run["status"] == "FINISHED"
    assert f"{run['validation/loss']:.3f}" in text and f"{prediction.loss:.3f}" in text
    assert run["start"] > datetime.datetime.fromisoformat(prediction.created).replace(microsecond=0)
    assert len(prediction.runs) >= 12

    capsys.readouterr()
    written = page.stat().st_mtime_ns
    assert demo.run(settings) == page
    assert page.stat().st_mtime_ns == written
    stderr = " ".join(capsys.readouterr().err.split())
    for part in (
        "corpus",
        "tokenizer",
        "tokens",
        "run",
        "prediction",
        "baselines",
        "page: up to date",
    ):
        assert part in stderr
    assert stderr.count("up to date") >= 5

    heavy = ("torch", "lightning", "mlflow", "matplotlib", "scipy", "pandas", "joblib")
    program = f"""
import sys
from maquette.cli import main
try:
    main(["demo", *{overrides!r}])
except SystemExit as ended:
    print("exit code", ended.code, "imported", [name for name in {heavy} if name in sys.modules])
"""
    typed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert typed.stdout.splitlines()[-1] == "exit code 0 imported []" and typed.stderr.count("up to date") >= 5, (
        typed.stderr
    )

    made = demo.make(settings)
    study = build("alignment", tmp_path / "outputs" / "artifacts", name=None, label="tiny", config={},
                  inputs={"base": made.record.spec.fingerprint}, make=write_a_study)  # fmt: skip
    assert made.write(study) == page
    assert all(
        part in page.read_text(encoding="utf-8") for part in ("What alignment bought", "Observed loss", "pick two")
    )
    made.write()  # it stays
    assert "pick two" in page.read_text(encoding="utf-8")
    shutil.rmtree(study)
    made.write()
    assert "What alignment bought" not in page.read_text(encoding="utf-8")


def write_a_study(folder: Path) -> dict[str, Any]:
    """Two policies, compared on prompts that nobody answered."""
    point = {"gold": IntervalEstimate(0.5, 0.4, 0.6)}
    policies = [
        PolicyResult(name, name, {}, 1e9, 1.0, 0.1, 3.0, 1.0, point, point, point, point, ["one two"])
        for name in ("sft", "dpo")
    ]
    measured = Measurement("sft", policies, [], ["pick two"], 10)
    return write_study(folder, measured, ["gold"], title="Tiny", validations={}, commands={}, evaluations={})


def commands_of(overrides: list[str]) -> dict[str, str]:
    config = compose(STAGES["demo"], overrides)
    assert isinstance(config, DemoStage)
    return demo_page.commands(config.outputs, config.tracking)


def test_commands_are_what_one_would_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_page.shutil, "which", lambda name: f"/usr/bin/{name}")
    typed = commands_of([])
    assert "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db" in typed.values()
    assert not any("outputs=" in command for command in typed.values())
    typed = commands_of(["outputs=elsewhere", "logger.mlflow.tracking_uri=http://host:5000"])
    assert "mlflow ui" not in " ".join(typed.values())
    assert all("outputs=elsewhere" in command for command in typed.values() if command.startswith("maquette"))
