"""Settings of files that somebody else may have written: nothing in them is looked up, and code is on a list."""

from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.artifacts.strangers import check_code, check_settings


@pytest.mark.parametrize(
    "name",
    ["os.system", "os:system", "subprocess.Popen", "builtins.exec", "shutil.rmtree", "torch.load", "torch.hub.load",
     "maquette.artifacts.files.shutil.rmtree", "maquette.artifacts.files.write_text", "mlflow.run", "yaml.unsafe_load",
     "lightning.pytorch.cli.LightningCLI", "torch.optim.optimizer.os.system", "mine.os.system", "mine.rmtree",
     "no.such.Thing"],
)  # fmt: skip
def test_code_that_no_file_may_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("import os\nfrom shutil import rmtree\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StageError, match=r"run\.json, optimizer\._target_: "):
        check_settings({"optimizer": {"_target_": name}}, "run.json")


@pytest.mark.parametrize(
    "name",
    ["torch.optim.AdamW", "torch.optim.lr_scheduler.OneCycleLR", "lightning.pytorch.callbacks.EarlyStopping",
     "maquette.objectives.Pretraining", "maquette.optimization:Muon", "torch.nn.GELU", "torch.sin", "own_part.Part",
     "own_part:make"],
)  # fmt: skip
def test_code_that_it_may(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_part.py").write_text("class Part: pass\ndef make(): return Part()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    check_code(name, "run.json", "model.kind")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "x${oc.decode:'[1]'}", "${hydra:runtime.cwd}", "${outputs}"])
def test_nothing_is_looked_up(value: str) -> None:
    for settings in ({"a": {"b": value}}, {"a": [value]}, {"a": [{"b": value}]}, {value: 1}):
        with pytest.raises(StageError, match=r"of_a_stranger\.json, "):
            check_settings(settings, "of_a_stranger.json")
