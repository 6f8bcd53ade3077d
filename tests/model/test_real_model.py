"""A pretrained model of 135M parameters out of a GGUF file: it is what `transformers` reads, and it answers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.model import hf
from maquette.model.generation import generate
from maquette.model.sampling import Sampling
from maquette.text import Tokenizer
from maquette.text.chat import render
from maquette.text.gguf_tokenizer import SPLITS
from support.gguf_files import independent, strings
from support.real_model import REAL_MODEL

pytestmark = pytest.mark.slow(reason="imports and runs a model of 135M parameters")


@pytest.fixture(scope="module")
def folder(real_model: Path) -> Path:
    return real_model / "artifacts/models/smollm2"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def test_it_answers(folder: Path, tokenizer: Tokenizer) -> None:
    messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = render(tokenizer, messages, open_assistant=True).ids
    model = hf.load(folder)
    written = generate(model, [prompt], tokenizer=tokenizer, sampling=Sampling(temperature=0), max_tokens=16)[0]
    assert written.text == "The capital of France is Paris."


def test_logits_are_those_of_transformers(folder: Path, tokenizer: Tokenizer) -> None:
    """`transformers` on the numbers in the file, dequantised and put in order by itself."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(REAL_MODEL.parent, gguf_file=REAL_MODEL.name, dtype=torch.float32)
    ids = torch.tensor(
        [tokenizer.encode("The mouse ate the cheese, which was 42 days old.\n\ndef f(x):\n    return x")]
    )
    with torch.no_grad():
        torch.testing.assert_close(hf.load(folder)(ids), theirs.eval()(ids).logits, rtol=0, atol=1e-3)


def test_ids_equal_those_of_another_encoder(folder: Path, tokenizer: Tokenizer) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    sources = [path.read_text() for path in sorted(Path(hf.__file__).parent.glob("*.py"))]
    texts = strings(10_000, [*sources, *SPLITS])
    for text in random.Random(1).sample(texts, len(texts)):
        assert tokenizer.encode(text) == independent(text, "smollm", ranks, model["vocab"]), text
