"""Reward models as folders: written, read back, opened by `transformers`, and taken for nothing else; and those of
others, read as `transformers` reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import StageError
from maquette.artifacts.run_file import write_run
from maquette.cli import import_
from maquette.cli.command_line.model_config import ImportStage
from maquette.feedback.annotators.reward_model import LearnedReward, last_places
from maquette.model import LanguageModel, ScalarModel, TransformerConfig, hf
from maquette.model.loading import find_reward_model, latest_run, load_reward_model
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig
from support.their_rewards import their_folder

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


THEIRS = ["Llama", "Qwen2", "Qwen3", "GPT2"]
CONVERSATIONS = [
    [{"role": "user", "content": "Say cat."}, {"role": "assistant", "content": "cat"}],
    [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "And again"},
        {"role": "assistant", "content": "Well then, hello again."},
    ],
]


@pytest.mark.parametrize("family", THEIRS)
def test_one_from_elsewhere_scores_as_transformers_does(family: str, tmp_path: Path) -> None:
    """Also where padding is the token that ends turns, and stands in the middle and at the end of a row."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = their_folder(family, tmp_path / "theirs")
    folder = import_.run(ImportStage(path=str(tmp_path / "theirs"), name="reward", outputs=str(tmp_path / "outputs")))
    model, own = load_reward_model(folder)
    end = own.special_ids["<|im_end|>"]
    rows = torch.tensor([[*range(60, 70)], [*range(60, 66), end, end, end, end], [70, end, 71, end, *[72] * 5, end]])
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        places = last_places(rows, torch.full((3,), 10), model.padding_id)
        ours = model(rows).gather(1, places[:, None])
        for one in (theirs, again):
            torch.testing.assert_close(one(rows).logits, ours, atol=1e-5, rtol=0)
        assert places.tolist() == [9, 5, 8]
        rendered = AutoTokenizer.from_pretrained(folder).apply_chat_template(CONVERSATIONS, return_dict=False)
        expected = [theirs(torch.tensor([ids])).logits.item() for ids in rendered]
    assert rendered[0][-1] != end  # ChatML puts a new line behind it, and it is read there
    answers = [(one[:-1], one[-1]["content"]) for one in CONVERSATIONS]
    assert LearnedReward(model, own).of_answers(answers) == pytest.approx(expected, abs=1e-5)


def test_without_padding_the_last_token_is_read(tmp_path: Path) -> None:
    theirs = their_folder("Llama", tmp_path / "theirs", pad_token_id=None)
    model, _ = load_reward_model(tmp_path / "theirs")
    end = theirs.config.eos_token_id
    row = torch.tensor([[*range(60, 66), end, end]])
    with torch.no_grad():
        place = last_places(row, torch.tensor([8]), model.padding_id)
        torch.testing.assert_close(theirs(row).logits, model(row)[:, place], atol=1e-5, rtol=0)


def test_ours_is_read_at_the_end_of_turn_where_that_is_padding_too(tmp_path: Path) -> None:
    """`transformers` would read the token before it; the folder says that there is no padding."""
    from transformers import AutoModelForSequenceClassification

    their_folder("Llama", tmp_path / "theirs")
    base, own = load_reward_model(tmp_path / "theirs")
    model = ScalarModel.from_language_model(LanguageModel(base.config, seed=1), seed=2).eval()
    folder = hf.save(model, own, tmp_path / "ours")
    row = torch.tensor([[*range(60, 66), own.special_ids["<|im_end|>"]]])
    with torch.no_grad():
        theirs = AutoModelForSequenceClassification.from_pretrained(folder)(row).logits[0, 0]
        torch.testing.assert_close(theirs, model(row)[0, -1], atol=1e-5, rtol=0)
    again, _ = load_reward_model(folder)
    assert (again.padding_id, again.reads_rendering) == (None, False)
    assert "one text at a time" in " ".join(hf.limits(model.config, own, scalar=True))


def test_a_classifier_is_not_a_reward_model(tmp_path: Path) -> None:
    two = {"num_labels": 2, "id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    for name, changes, labels in (("plain", {"num_labels": 2}, "2 labels"), ("named", two, r"2 labels \(bad, good\)")):
        their_folder("Qwen2", tmp_path / name, **changes)
        with pytest.raises(StageError, match=f"config.json: a classifier with {labels}"):
            load_reward_model(tmp_path / name)
