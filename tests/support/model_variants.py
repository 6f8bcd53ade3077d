"""Small models of every option, with weights large enough that each option shows in the logits."""

import dataclasses

import torch

from maquette.model import LanguageModel, LSTMConfig, MixtureOfExpertsConfig, TransformerConfig

PLAIN = TransformerConfig(
    vocab_size=23,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    max_position_embeddings=16,
)

VARIANTS: dict[str, TransformerConfig] = {
    name: dataclasses.replace(PLAIN, **changes)
    for name, changes in {
        "llama": {},
        "grouped": {"num_attention_heads": 6, "num_key_value_heads": 3},
        "multi_query": {"num_attention_heads": 3, "num_key_value_heads": 1},
        "wide_heads": {"head_dim": 10},
        "layernorm": {"normalization": "layernorm"},
        "gpt2": {
            "normalization": "layernorm",
            "positions": "learned",
            "activation": "gelu",
            "bias": True,
            "tie_word_embeddings": True,
        },
        "learned_rms": {"positions": "learned", "activation": "relu2"},
        "qwen2": {"attention_bias": True, "num_key_value_heads": 1},
        "qwen3": {"qk_norm": True, "tie_word_embeddings": True, "rope_theta": 1e6},
        "no_attention_bias": {"bias": True, "attention_bias": False},
        "biases": {"bias": True},
        "gelu": {"activation": "gelu"},
        "relu2": {"activation": "relu2"},
        "softcap": {"logit_softcap": 3.0},
        "token_shift": {"token_shift": True},
        "window": {"sliding_window": 3},
        "local_and_global": {
            "sliding_window": 2,
            "layer_types": ("sliding_attention", "full_attention"),
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "token_shift": True,
        },
        "all_at_once": {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 4,
            "normalization": "layernorm",
            "qk_norm": True,
            "bias": True,
            "tie_word_embeddings": True,
            "logit_softcap": 5.0,
            "token_shift": True,
        },
    }.items()
}

_SPARSE = {"vocab_size": 23, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 10, "max_position_embeddings": 16}  # fmt: skip
VARIANTS |= {
    "moe": MixtureOfExpertsConfig(**_SPARSE, num_experts=5),
    "moe_shared": MixtureOfExpertsConfig(
        **_SPARSE, num_experts=4, num_experts_per_tok=3, n_shared_experts=2, norm_topk_prob=False, qk_norm=True,
        token_shift=True, router_bias_update_rate=0.001,
    ),
}  # fmt: skip

RECURRENT: dict[str, LSTMConfig] = {
    "lstm": LSTMConfig(vocab_size=23, hidden_size=12, num_hidden_layers=2),
    "lstm_tied": LSTMConfig(
        vocab_size=23, hidden_size=12, num_hidden_layers=1, tie_word_embeddings=True, logit_softcap=4.0
    ),
}

EVERY: dict[str, TransformerConfig | LSTMConfig] = {**VARIANTS, **RECURRENT}


def lively(config: TransformerConfig | LSTMConfig, seed: int = 0) -> LanguageModel:
    """A model in float64 whose weights, biases and norms are all random and of the order of 1."""
    model = LanguageModel(config, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4, generator=generator)
        for buffer in model.buffers():  # biases of routers
            buffer.uniform_(-0.3, 0.3, generator=generator)
    return model


def some_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(23, (rows, length), generator=torch.Generator().manual_seed(seed))
