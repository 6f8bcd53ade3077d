from .batches import (
    TokenBatch as TokenBatch,
    TrainingBatches as TrainingBatches,
    validation_batches as validation_batches,
)
from .encoding import describe_tokens as describe_tokens, encode_corpus as encode_corpus
from .mixture import MixtureOrder as MixtureOrder, Phase as Phase
from .shards import TokenShards as TokenShards
