"""GGUF files and their metadata, as llama.cpp's converter writes them, for small models and tokenizers made here; and
an encoder that knows nothing of `tokenizers`."""

import itertools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import regex
from gguf import GGMLQuantizationType as Kind
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from maquette.text.gguf_tokenizer import SPLITS

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def byte_level(texts: list[str], pre: str, size: int = 320) -> Backend:
    backend = Backend(models.BPE(ignore_merges=pre in ("llama-bpe", "tekken")))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[pre]]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    backend.train_from_iterator(texts, trainer)
    return backend


def metadata_of(backend: Backend, pre: str) -> dict[str, Any]:
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token.startswith("<|") else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
    }


def write_gguf(path: Path, name: str, model: Any, metadata: dict[str, Any], kind: Kind, **more: Any) -> Path:
    """As llama.cpp's converter: sizes by its names, Llama's query and key rows interleaved."""
    config, family = model.config, name.split()[0]
    writer = gguf.GGUFWriter(path, family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    if family == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    for key, value in more.items():
        getattr(writer, key)(value)
    writer.add_vocab_size(config.vocab_size)
    for key, value in metadata.items():
        writer.add_key_value(key, *_typed(value))
    for full, tensor in model.state_dict().items():
        if full == "lm_head.weight" and config.tie_word_embeddings:
            continue
        theirs, ending = full.rsplit(".", 1)
        layer = regex.match(r"model\.layers\.(\d+)\.(.*)", theirs)
        stem = f"blk.{layer[1]}.{NAMES[layer[2]]}" if layer else NAMES[theirs]
        values = tensor.float().numpy()
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(stem.split(".")[-1])
        if family == "llama" and heads:
            shape = (heads, 2, len(values) // heads // 2, *values.shape[1:])
            values = values.reshape(shape).swapaxes(1, 2).reshape(values.shape)
        used = Kind.F32 if values.ndim == 1 else kind
        writer.add_tensor(f"{stem}.{ending}", gguf.quants.quantize(values, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _typed(value: Any) -> tuple[Any, ...]:
    kinds = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
    if isinstance(value, list):
        return value, gguf.GGUFValueType.ARRAY, kinds[type(value[0])]
    return value, kinds[type(value)]


def independent(text: str, pre: str, ranks: Mapping[tuple[str, ...], int], vocabulary: Mapping[str, int]) -> list[int]:
    """Byte-level BPE by its definition: split, write bytes as characters, join the best-ranked pair until none is
    left (Sennrich et al. 2016, algorithm 1)."""
    words = [text]
    for pattern in SPLITS[pre]:
        words = [piece for word in words for piece in _isolated(pattern, word)]
    ids = []
    for word in words:
        parts = [_CHARACTER[byte] for byte in word.encode()]
        if pre in ("llama-bpe", "tekken") and "".join(parts) in vocabulary:
            parts = ["".join(parts)]
        while len(parts) > 1:
            rank, place = min((ranks.get(pair, 1 << 30), at) for at, pair in enumerate(itertools.pairwise(parts)))
            if rank == 1 << 30:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        ids += [vocabulary[part] for part in parts]
    return ids


def _isolated(pattern: str, text: str) -> list[str]:
    pieces, end = [], 0
    for match in regex.finditer(pattern, text):
        pieces += [text[end : match.start()], match[0]]
        end = match.end()
    return [piece for piece in [*pieces, text[end:]] if piece]


_PRINTING = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_CHARACTER = {byte: chr(byte) for byte in _PRINTING}
_CHARACTER |= {byte: chr(256 + place) for place, byte in enumerate(b for b in range(256) if b not in _PRINTING)}


def strings(count: int, texts: list[str], seed: int = 0) -> list[str]:
    """Pieces of text with digits, spaces, capitals, contractions, signs and other scripts put between."""
    draw = random.Random(seed)
    odd = [
        " ",
        "  ",
        "\n",
        "\r\n\n",
        "\t",
        "1234567",
        "42",
        "it's",
        "I'LL",
        "É",
        "naïve",
        "東京",
        "🎉",
        "_x",
        "//",
        "…",
        "Ωmega",
        "\u00a0",
    ]
    source = "\n".join(texts)
    made = []
    for _ in range(count):
        start = draw.randrange(len(source) - 60)
        parts = [
            source[start : start + draw.randrange(40)],
            draw.choice(odd),
            draw.choice(odd),
            source[start : start + 5],
        ]
        draw.shuffle(parts)
        made.append("".join(parts))
    return made
