"""The core and the recurrent baseline, heads, likelihoods, generation, counts, loading, Hugging Face import and export.

Names that need torch are imported on first use, so that `maquette.model.config` stays free of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from maquette.model.config import (
    CoreConfig,
    CustomConfig,
    FlopCount,
    LSTMConfig,
    ModelConfig,
    ParameterCount,
    TransformerConfig,
    count_parameters,
    forward_flops,
    kaplan_compute,
    training_flops,
)

if TYPE_CHECKING:
    from maquette.model.cache import Cache, KeyValueCache, RecurrentCache, new_cache
    from maquette.model.generation import Generation, generate, stream
    from maquette.model.heads import Core, LanguageModel, ScalarModel, build_core
    from maquette.model.initialization import initialize, materialize
    from maquette.model.likelihoods import next_token_loss, token_log_probs
    from maquette.model.loading import find_checkpoint, load_checkpoint
    from maquette.model.lstm import LSTM
    from maquette.model.sampling import Sampling
    from maquette.model.scoring import score_sentences, score_tokens
    from maquette.model.transformer import Transformer

_HOMES = {
    "Cache": "cache",
    "KeyValueCache": "cache",
    "RecurrentCache": "cache",
    "new_cache": "cache",
    "Generation": "generation",
    "generate": "generation",
    "stream": "generation",
    "Core": "heads",
    "LanguageModel": "heads",
    "ScalarModel": "heads",
    "build_core": "heads",
    "initialize": "initialization",
    "materialize": "initialization",
    "next_token_loss": "likelihoods",
    "find_checkpoint": "loading",
    "load_checkpoint": "loading",
    "Sampling": "sampling",
    "score_sentences": "scoring",
    "score_tokens": "scoring",
    "token_log_probs": "likelihoods",
    "LSTM": "lstm",
    "Transformer": "transformer",
}

__all__ = [
    "LSTM",
    "Cache",
    "Core",
    "CoreConfig",
    "CustomConfig",
    "FlopCount",
    "Generation",
    "KeyValueCache",
    "LSTMConfig",
    "LanguageModel",
    "ModelConfig",
    "ParameterCount",
    "RecurrentCache",
    "Sampling",
    "ScalarModel",
    "Transformer",
    "TransformerConfig",
    "build_core",
    "count_parameters",
    "find_checkpoint",
    "forward_flops",
    "generate",
    "initialize",
    "kaplan_compute",
    "load_checkpoint",
    "materialize",
    "new_cache",
    "next_token_loss",
    "score_sentences",
    "score_tokens",
    "stream",
    "token_log_probs",
    "training_flops",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
