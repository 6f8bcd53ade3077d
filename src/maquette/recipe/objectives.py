"""What an objective makes of the settings of `maquette train`: which mean nothing to it, and where it starts from.

One entry per objective. An objective of a user's own is trained as pretraining is, and every setting may matter to it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ObjectiveRules:
    """`starts_from`: what `checkpoint=latest` means, the first of these objectives that has a run; empty: from scratch.
    `unused`: settings without effect, each a dotted key or a whole group."""

    starts_from: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


_AFTERWARDS = (
    "source", "corpus", "curation", "executor", "tokenizer", "pretokenized", "shards", "size", "tokens", "compute",
    "tokens_per_parameter", "model", "mixture", "prediction", "compile",
    "data.sequence_length", "data.batch_size_tokens", "data.document_masking", "data.workers",
    "data.validation_tokens",
)  # fmt: skip
"""Settings of pretraining that mean nothing once there is a model."""

OBJECTIVES = {
    "pretrain": ObjectiveRules(unused=("instructions", "preferences", "prompts", "reward")),
    "sft": ObjectiveRules(("pretrain",), (*_AFTERWARDS, "preferences", "prompts", "reward")),
    "reward": ObjectiveRules(("sft", "pretrain"), (*_AFTERWARDS, "instructions", "prompts", "reward")),
    "dpo": ObjectiveRules(("sft", "pretrain"), (*_AFTERWARDS, "instructions", "prompts", "reward")),
    "ppo": ObjectiveRules(("sft", "pretrain"), (*_AFTERWARDS, "instructions", "preferences")),
}


def rules_of(objective: str) -> ObjectiveRules:
    """The rules of an objective by its name; a user's own has pretraining's."""
    return OBJECTIVES.get(objective, ObjectiveRules())
