"""The text of a training run as arrays: exactly what the model saw, and exactly what it was validated on."""

import numpy as np
import numpy.typing as npt

from maquette.data import MixtureOrder, TokenShards, validation_batches

Integers = npt.NDArray[np.integer]


def training_sequences(shards: TokenShards, order: MixtureOrder, count: int) -> Integers:
    """The first `count` sequences of the order, `(count, context + 1)`, each with its last target."""
    rows = np.empty((count, order.context + 1), np.uint32)
    places = order.locate(np.arange(count))
    for row, domain, start in zip(rows, places.domains.tolist(), places.start_tokens.tolist(), strict=True):
        row[:] = shards.read(order.domains[domain], "train", start, order.context + 1)
    return rows


def validation_sequences(shards: TokenShards, *, context: int, tokens: int) -> dict[str, Integers]:
    """Each domain's validation sequences, `(B, context + 1)`; domains without any are left out."""
    found = {domain: validation_batches(shards, domain, context, tokens, 1024) for domain in shards.domains}
    return {
        domain: np.concatenate([batch.tokens.numpy() for batch in batches])
        for domain, batches in found.items()
        if batches
    }
