"""What two processes start from: each draws or reads its part of the weights, and no process has the whole model."""

from pathlib import Path

import pytest

from maquette.model import LanguageModel, hf
from maquette.model.architecture import read_architecture
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.training.processes import launch
from support.sharded_work import LARGE, initial_weights


@pytest.mark.slow(reason="a pair of processes that import PyTorch and Lightning")
def test_no_process_has_the_whole_model(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    folder = hf.save(LanguageModel(read_architecture(LARGE), seed=9), tokenizer, tmp_path / "model")
    for facts in launch(initial_weights, str(folder), 2):
        assert facts["equal"]
        assert facts["peak"] < 1.3 * facts["part"] + facts["largest"], facts
