"""Both ways with tiny models: equal compute, a verdict, and nothing trained twice."""

import json
from pathlib import Path

import pytest

from maquette.cli import pipelines
from maquette.cli.command_line.config import PipelinesStage
from maquette.training import pretraining
from support.small_runs import settings, write_documents

pytestmark = pytest.mark.slow


def test_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pretraining, "draw_loss", lambda *_, **__: tmp_path / "loss.png")
    (tmp_path / "documents").mkdir()
    write_documents(tmp_path / "documents")
    tiny = settings(tmp_path / "outputs", tmp_path / "documents", num_validations=1, tokens=None)
    tiny.model.hidden_size = tiny.model.num_hidden_layers = tiny.model.num_attention_heads = (
        tiny.model.intermediate_size
    ) = None
    config = PipelinesStage(**{**tiny.__dict__, "compute": "3e10", "trials": 2})
    folder = pipelines.run(config)
    facts = json.loads((folder / "verdict.json").read_text())
    assert facts["compute_new"] == pytest.approx(facts["compute_old"], rel=0.02)
    assert len(facts["old"]) == 2 and facts["big"]["compute"] > 0.8 * facts["compute_old"]
    assert facts["verdict"][:40] in " ".join(capsys.readouterr().out.split())
    assert pipelines.run(config) == folder
    assert "nothing to do, already made" in capsys.readouterr().err
