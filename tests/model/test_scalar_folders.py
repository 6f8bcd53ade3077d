"""Reward models as folders: written, read back, opened by `transformers`, and taken for nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import StageError
from maquette.artifacts.run_file import write_run
from maquette.model import LanguageModel, ScalarModel, TransformerConfig, hf
from maquette.model.loading import find_reward_model, latest_run, load_reward_model
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

TOKENS = torch.arange(20, 30)[None]
SHAPE: dict[str, Any] = {
    "vocab_size": 272, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "token_shift": False
}  # fmt: skip
FAMILIES = {
    "Llama": {},
    "Qwen2": {"attention_bias": True},
    "Qwen3": {"qk_norm": True},
    "GPT2": {
        "normalization": "layernorm", "positions": "learned", "activation": "gelu", "bias": True,
        "tie_word_embeddings": True,
    },
    "Maquette": {"token_shift": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(family: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = TransformerConfig(**SHAPE | FAMILIES[family])
    model = ScalarModel.from_language_model(LanguageModel(config, seed=3), seed=4).eval()
    torch.nn.init.constant_(model.score.bias, 0.5)
    folder = hf.save(model, tokenizer, tmp_path / "reward", card="# A reward model")
    raw = json.loads((folder / "config.json").read_text())
    assert raw["architectures"] == [f"{family}ForSequenceClassification"] and hf.is_scalar(raw)
    again, result = load_reward_model(folder, tokenizer_digest=tokenizer.digest)
    assert result.digest == tokenizer.digest
    with torch.no_grad():
        assert torch.equal(again(TOKENS), model(TOKENS))
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    constant = 0.0 if family == "Maquette" else 0.5  # only ours has a place for the bias
    padding = [tokenizer.padding_id] * 4
    texts = [[*range(20, 30)], [*range(40, 46), *padding], [*range(50, 56), *padding]]
    mask = torch.tensor([[1] * 10, [1] * 6 + [0] * 4, [1] * 6 + [0] * 4])
    with torch.no_grad():
        scores = theirs(torch.tensor(texts), attention_mask=mask).logits[:, 0]
        ours = [model(torch.tensor([text[:length]]))[0, -1] for text, length in zip(texts, mask.sum(1), strict=True)]
    torch.testing.assert_close(scores + constant, torch.stack(ours), atol=1e-4, rtol=0)


def test_the_two_kinds_are_not_mixed_up(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = TransformerConfig(**SHAPE)
    text = hf.save(LanguageModel(config), tokenizer, tmp_path / "text")
    reward = hf.save(ScalarModel(config), tokenizer, tmp_path / "reward")
    with pytest.raises(StageError, match="is not a reward model"):
        load_reward_model(text)
    with pytest.raises(StageError, match="is a reward model"):
        hf.load(reward)
    with pytest.raises(StageError, match="has another tokenizer"):
        load_reward_model(reward, tokenizer_digest="0" * 64)


def test_the_latest_run_is_one_that_writes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, objective, ended in (("a", "sft", "2026-01"), ("b", "reward", "2026-02")):
        record = {"spec": {"objective": objective}, "status": "finished", "finished": ended}
        write_run(tmp_path / "runs" / name, record)
    hf.save(ScalarModel(TransformerConfig(**SHAPE)), tokenizer, tmp_path / "runs" / "b" / "model")
    assert latest_run(tmp_path).name == "a"
    assert find_reward_model("latest", tmp_path).name == "b"
    assert find_reward_model("a", tmp_path).name == "a"


def test_the_latest_run_of_an_objective(tmp_path: Path) -> None:
    for name, objective, ended in (("a", "pretrain", "2026-01"), ("b", "sft", "2026-02"), ("c", "dpo", "2026-03")):
        record = {"spec": {"objective": objective}, "status": "finished", "finished": ended}
        write_run(tmp_path / "runs" / name, record)
    assert latest_run(tmp_path).name == "c"
    assert latest_run(tmp_path, ("pretrain",)).name == "a"
    assert latest_run(tmp_path, ("sft", "pretrain")).name == "b"
    assert latest_run(tmp_path, ("ppo", "pretrain")).name == "a"
    with pytest.raises(StageError, match="has no finished run"):
        latest_run(tmp_path, ("ppo",))
