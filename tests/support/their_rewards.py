"""A reward model as others publish it: a small random one, saved by `transformers`."""

from pathlib import Path
from typing import Any

import torch

from maquette.text import Tokenizer
from support.gguf_files import byte_level


def their_folder(family: str, folder: Path, **changes: Any) -> Any:
    """A random classifier of `transformers` with one label and its tokenizer, saved; returns the model."""
    import transformers

    folder.mkdir(parents=True)
    byte_level(["the mouse ate the cheese"], "gpt-2", 272).save(str(folder / "tokenizer.json"))
    chatml = Tokenizer.load(folder).with_chat("chatml")
    widths = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 32, "max_position_embeddings": 256,
    }  # fmt: skip
    if family == "GPT2":
        widths = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}
    ids = {"pad_token_id": chatml.special_ids["<|im_end|>"], "eos_token_id": chatml.special_ids["<|im_end|>"]}
    settings = {"vocab_size": chatml.vocab_size, "num_labels": 1, **widths, **ids, **changes}
    torch.manual_seed(5)
    model = getattr(transformers, f"{family}ForSequenceClassification")(
        getattr(transformers, f"{family}Config")(**settings)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    chatml.save(folder)
    return model
