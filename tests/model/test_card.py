"""What the README of a folder says about opening the model; the code in it runs."""

import re
from pathlib import Path

import pytest
import torch

from maquette.model import LanguageModel, LSTMConfig, TransformerConfig, count_parameters, hf
from maquette.model.generation import document_prompt, generate
from maquette.reports import render
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig


@pytest.mark.parametrize("token_shift", [False, True])
def test_the_code_in_the_card_runs(token_shift: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    config = TransformerConfig(
        272,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=80,
        token_shift=token_shift,
    )
    model = LanguageModel(config)
    with torch.no_grad():
        model.head_weight.mul_(50)
    readme = (hf.save(model, tokenizer, tmp_path / "out", card="# A model") / "README.md").read_text()
    assert readme.startswith("# A model\n\n## Use\n")
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert code is not None
    exec(code[1], {"folder": str(tmp_path / "out")})
    prompt = "Once upon a time"
    result = generate(model, [document_prompt(tokenizer, prompt)], tokenizer=tokenizer, max_tokens=50)
    assert capsys.readouterr().out == prompt + result[0].text + "\n"


def test_front_matter() -> None:
    yaml = pytest.importorskip("yaml")
    facts = {
        "name": "x", "source": "a/b", "architecture": "LlamaForCausalLM", "digests": {"config.json": "ab12"},
        "parameters": count_parameters(TransformerConfig(272, 16, 1, 2)), "vocab_size": 272,
        "max_position_embeddings": 64, "pipeline": "text-generation",
    }  # fmt: skip
    card = render("imported_card.md.j2", facts)
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {"library_name": "transformers", "pipeline_tag": "text-generation"}
    assert "# x" in body and "`ab12`" in body and "LlamaForCausalLM" in body


def test_lstm_has_no_code_for_transformers(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    model = LanguageModel(LSTMConfig(272, hidden_size=8, num_hidden_layers=1))
    readme = (hf.save(model, tokenizer, tmp_path / "out", card="# A model") / "README.md").read_text()
    assert "maquette sample" in readme and "transformers" not in readme
