"""A GGUF file (llama.cpp's format) as a Hugging Face folder: Llama, Qwen2 and Qwen3, whatever their quantisation.

The numbers come from the `gguf` library (`[real]`), which dequantises F16, BF16, Q8_0, Q4_x, Q5_x and the K-quants; in
the folder they are float32, which holds each of them exactly. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import scratch_folder, write_json
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import reading, short
from maquette.text.gguf_tokenizer import tokenizer_files

_FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""general.architecture -> the class in `transformers`."""

_SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@contextlib.contextmanager
def unpacked(file: Path, beside: Path) -> Iterator[Path]:
    """A folder beside `beside`, for as long as it is needed: config.json, model.safetensors and the tokenizer's files.

    Raises `ConfigError` where the library is missing, and `StageError` for a family, a tokenizer, a kind of tensor or
    of rotary scaling that is not known, and for a damaged file.
    """
    try:
        import gguf
    except ModuleNotFoundError:
        raise ConfigError("GGUF files need the library gguf.", "pip install 'maquette-lm[real]'") from None
    with reading(file, hint="Fetch the file again."):
        reader = gguf.GGUFReader(file)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        names = {tensor.name for tensor in reader.tensors}
        config = _config(metadata, names)
        tokenizer, settings = tokenizer_files(metadata)
    with scratch_folder(beside) as folder:
        write_json(folder / "tokenizer.json", tokenizer)
        write_json(folder / "tokenizer_config.json", settings)
        tensors = {}
        with progress("dequantising", sum(int(one.n_elements) for one in reader.tensors), unit="numbers") as advance:
            for tensor in reader.tensors:
                with reading(f"{file}, {short(tensor.name)},"):
                    values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
                    tensors[_name(tensor.name)] = torch.from_numpy(_rows(tensor.name, values, config))
                advance(int(tensor.n_elements))
        config["vocab_size"] = len(tensors["model.embed_tokens.weight"])
        write_json(folder / "config.json", config)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        del tensors, values
        yield folder


def _config(metadata: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """config.json from the metadata and the names of the tensors, but for `vocab_size`."""
    architecture = metadata["general.architecture"]
    if architecture not in _FAMILIES:
        raise StageError(
            f"general.architecture={short(architecture)} is not supported.", f"Known: {', '.join(_FAMILIES)}."
        )

    def value(key: str, default: Any = None) -> Any:
        return metadata.get(f"{architecture}.{key}", default)

    if value("expert_count"):
        raise StageError(f"{architecture}.expert_count={value('expert_count')}: experts are not supported.")
    config: dict[str, Any] = {
        "architectures": [_FAMILIES[architecture]],
        "model_type": architecture,
        "dtype": "float32",
    }
    config |= {ours: metadata[f"{architecture}.{theirs}"] for ours, theirs in _SIZES.items()}
    heads = config["num_attention_heads"]
    config |= {
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length") or config["hidden_size"] // heads,
        "rms_norm_eps": _decimal(value("attention.layer_norm_rms_epsilon", 1e-6)),
        "rope_theta": _decimal(value("rope.freq_base", 10_000.0)),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in names,
    }
    if value("rope.dimension_count", config["head_dim"]) != config["head_dim"]:
        raise StageError(
            f"{architecture}.rope.dimension_count={value('rope.dimension_count')}: rotary positions must turn whole "
            f"heads ({config['head_dim']} wide)."
        )
    if value("rope.scale_linear", 1.0) not in (0.0, 1.0):
        raise StageError(f"{architecture}.rope.scale_linear={value('rope.scale_linear')} is not supported.")
    scaling = value("rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in names:  # the reader of config.json refuses it by name
        config["rope_scaling"] = {"rope_type": scaling if scaling != "none" else "llama3"}
    if architecture == "llama":
        config |= {"attention_bias": "blk.0.attn_q.bias" in names, "mlp_bias": "blk.0.ffn_up.bias" in names}
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if (id := metadata.get(f"tokenizer.ggml.{theirs}_token_id")) is not None:
            config[f"{ours}_token_id"] = id
    return config


def _decimal(value: float) -> float:
    """The short decimal that a float32 was written from: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; a name that is not known stays, to be refused."""
    stem, _, ending = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{ending}"
    block, _, rest = stem.removeprefix("blk.").partition(".")
    return f"model.layers.{block}.{_INSIDE[rest]}.{ending}" if stem.startswith("blk.") and rest in _INSIDE else name


def _rows(name: str, values: npt.NDArray[np.float32], config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """A tensor's values as `transformers` orders them.

    llama.cpp turns neighbouring pairs of a head's rows in Llama's rotary positions, `transformers` row i with row
    i + d/2: its converter has interleaved the two halves of query and key, which is undone here.
    """
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    part = name.split(".")[-2]
    if config["model_type"] != "llama" or part not in heads:
        return values
    halves = values.reshape(heads[part], len(values) // heads[part] // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
