"""What two processes start from: each draws or reads its part of the weights, and no process has the whole model."""

from pathlib import Path

import pytest

from maquette.model import LanguageModel, hf
from maquette.model.architecture import read_architecture
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.training.processes import launch
from support.sharded_work import LARGE, initial_weights, train_on_meshes


@pytest.mark.slow(reason="a pair of processes that import PyTorch and Lightning")
def test_no_process_has_the_whole_model(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    folder = hf.save(LanguageModel(read_architecture(LARGE), seed=9), tokenizer, tmp_path / "model")
    for facts in launch(initial_weights, str(folder), 2):
        assert facts["equal"]
        assert facts["peak"] < 1.3 * facts["part"] + facts["largest"], facts


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="four processes that train")
def test_nodes_have_a_copy_each_and_gradients_are_averaged_in_float32() -> None:
    alone = train_on_meshes("two nodes")["two nodes"]["losses"]
    meshes = launch(train_on_meshes, None, 4)
    assert meshes["two nodes"]["losses"] == pytest.approx(alone, abs=1e-5)
    assert meshes["two nodes"]["placements"] == "(Replicate(), Shard(dim=0))"
    for name in ("two nodes, bf16-mixed", "bf16-true"):
        assert meshes[name]["losses"] == pytest.approx(alone, abs=0.02)
        assert meshes[name]["losses"] != pytest.approx(alone, abs=1e-6)
    mixed = meshes["two nodes, bf16-mixed"]
    assert mixed["dtype"] == "torch.float32" and mixed["finer than bf16"]
    assert meshes["bf16-true"]["dtype"] == "torch.bfloat16"
