"""Training on tokens that were there already: without a tokenizer what needs text is left out; resumed exactly."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maquette.artifacts import ConfigError, StageError
from maquette.cli import train
from maquette.model import hf
from maquette.model.loading import load_checkpoint
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.training import read_history
from support.small_runs import settings
from training.test_killed import start, wait_for_checkpoint

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A nanoGPT folder over 40 ids, of which 39 separates documents and each follows from the one before."""
    folder = tmp_path / "shakespeare"
    folder.mkdir()
    for name, count in (("train", 20_000), ("val", 2_000)):
        ids = np.cumsum(np.random.default_rng(count).integers(1, 4, count)) % 39
        ids[49::50] = 39
        ids.astype(np.uint16).tofile(folder / f"{name}.bin")
    return folder


def changes(folder: Path, **more: Any) -> dict[str, Any]:
    given = {"pretokenized__path": str(folder), "pretokenized__vocab_size": 40, "pretokenized__eos_token_id": 39}
    return given | {"data__document_masking": True} | more


def test_without_a_tokenizer_what_needs_text_is_left_out(
    tmp_path: Path, tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = train.run(settings(tmp_path / "outputs", tmp_path, **changes(tokens)))
    assert "no tokenizer" in capsys.readouterr().err
    assert record.validation_loss is not None and record.validation_loss < 3.5
    assert record.bits_per_byte is None and "bits per byte" not in record.summary and not record.samples
    assert record.spec.digests.keys() == {"tokens", "tokenizer"}
    folder = Path(record.folder) / "model"
    assert hf.load(folder).config.vocab_size == 40
    assert not (folder / "tokenizer.json").exists() and "unknown bits per byte" in (folder / "README.md").read_text()
    _, tokenizer = load_checkpoint(record.folder)
    with pytest.raises(StageError, match="without a tokenizer"):
        tokenizer.encode("a")


@pytest.mark.slow(reason="kills a process that trains, and trains twice beside it")
def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path, tokens: Path) -> None:
    given = changes(
        tokens, tokens=str(200 * 256), callbacks__checkpoint__every_n_train_steps=10, data__workers=1,
        data__micro_batch_size=4, model__dropout=0.1,
    )  # fmt: skip
    whole = train.run(settings(tmp_path / "whole", tmp_path, **given))
    process = start(tmp_path / "killed", tmp_path, given)
    wait_for_checkpoint(tmp_path / "killed" / "runs" / whole.name / "checkpoints", process, set())
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = train.run(settings(tmp_path / "killed", tmp_path, **given))
    assert resumed.name == whole.name
    one, other = (load_file(Path(run.folder) / "model" / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    curves = [
        [row.get("train/loss") for row in read_history(Path(run.folder) / "metrics.jsonl")] for run in (whole, resumed)
    ]
    assert curves[0] == curves[1]


def test_a_model_goes_on_with_tokens_of_its_own_tokenizer_only(tmp_path: Path, tokens: Path) -> None:
    outputs = tmp_path / "outputs"
    first = train.run(settings(outputs, tmp_path, **changes(tokens)))
    more = changes(tokens, checkpoint=first.folder, seed=1)
    assert train.run(settings(outputs, tmp_path, **more)).spec.checkpoint == first.folder
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    tokenizer.save(tmp_path / "bytes")
    more |= {"pretokenized__tokenizer": str(tmp_path / "bytes"), "pretokenized__vocab_size": None}
    with pytest.raises(ConfigError, match="other tokens"):
        train.run(settings(outputs, tmp_path, **more))
