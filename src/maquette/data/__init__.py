"""From documents to batches: token shards, deterministic mixtures, batches that resume exactly."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.data.batches import TokenBatch, TrainingBatches, validation_batches
    from maquette.data.encoding import describe_tokens, encode_corpus
    from maquette.data.mixture import MixtureOrder, Phase
    from maquette.data.shards import TokenShards

__all__ = [
    "MixtureOrder",
    "Phase",
    "TokenBatch",
    "TokenShards",
    "TrainingBatches",
    "describe_tokens",
    "encode_corpus",
    "validation_batches",
]

_HOMES = {
    "MixtureOrder": "mixture",
    "Phase": "mixture",
    "TokenBatch": "batches",
    "TokenShards": "shards",
    "TrainingBatches": "batches",
    "describe_tokens": "encoding",
    "encode_corpus": "encoding",
    "validation_batches": "batches",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"maquette.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
