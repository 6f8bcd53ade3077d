"""GGUF files: weights as `transformers` reads them; what is not known or damaged is named."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen3Config

from maquette.artifacts import StageError
from maquette.model import hf
from maquette.text import Tokenizer
from support.gguf_files import byte_level, metadata_of, write_gguf

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, vocab_size=320, tie_word_embeddings=False),
    "llama tied": LlamaConfig(**SIZES, vocab_size=320, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES, vocab_size=320, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=128, vocab_size=320, tie_word_embeddings=False),
}


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return metadata_of(byte_level(["the mouse ate the cheese", "naïve 東京 1234"] * 20, "qwen2"), "qwen2")


def opened(path: Path, folder: Path) -> tuple[Any, Tokenizer]:
    with hf.unpacked(path, folder / "unpacked") as place:
        return hf.load(place), Tokenizer.load(place)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str, kind: Kind, metadata: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    for parameter in theirs.parameters():  # also the norms and biases, which begin as ones and zeros
        parameter.data += 0.05 * torch.randn_like(parameter)
    ours, _ = opened(write_gguf(tmp_path / "m.gguf", name, theirs, metadata, kind), tmp_path)
    if kind is not Kind.F32:
        rounded = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
        theirs = rounded.eval()
    tokens = torch.randint(0, 320, (2, 24))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-3)
    assert list(tmp_path.iterdir()) == [tmp_path / "m.gguf"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tokenizer.ggml.pre": "martian"}, "tokenizer.ggml.pre=martian"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model=bert"),
        ({"llama.rope.scaling.type": "yarn"}, "yarn"),
        ({"llama.expert_count": 8}, "expert_count=8"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count=8"),
        ({"llama.rope.scale_linear": 4.0}, "scale_linear=4"),
    ],
)
def test_what_is_not_known_is_refused(
    change: dict[str, Any], named: str, metadata: dict[str, Any], tmp_path: Path
) -> None:
    model = LlamaForCausalLM(CONFIGS["llama"])
    file = write_gguf(tmp_path / "m.gguf", "llama", model, metadata | change, Kind.F32)
    with pytest.raises(StageError, match=named):
        opened(file, tmp_path)


def test_damaged_files_are_named(metadata: dict[str, Any], tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", "llama", LlamaForCausalLM(CONFIGS["llama"]), metadata, Kind.Q8_0)
    whole = file.read_bytes()
    draw = random.Random(0)
    for size in [0, 10, 100, 1000, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(StageError, match=r"m\.gguf"):
            opened(file, tmp_path)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(4):
            data[draw.randrange(4000)] = draw.randrange(256)
        file.write_bytes(data)
        try:
            opened(file, tmp_path)
        except StageError:
            refused += 1
    assert refused > 0
