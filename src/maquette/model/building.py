"""A model's description, in plain containers, and the model that it describes.

`{"architecture": {"kind": "transformer", "width": ...}, "seed": 0, "parametrization": {...}, "checkpoint": None}`: what
a LightningModule keeps as a hyperparameter, so that its checkpoint can be opened without anything else.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import StageError
from maquette.model.config import KINDS, CoreConfig
from maquette.model.parametrization import STANDARD, Parametrization

if TYPE_CHECKING:
    from torch import nn

    from maquette.model.heads import LanguageModel, ScalarModel


def describe_architecture(config: CoreConfig) -> dict[str, Any]:
    """Its kind and every field, as plain containers."""
    return {"kind": config.kind, **dataclasses.asdict(config)}


def read_architecture(described: Mapping[str, Any]) -> CoreConfig:
    """What `describe_architecture` wrote. Raises `StageError` for a kind or a field that this version does not know."""
    values = dict(described)
    kind = values.pop("kind", "transformer")
    try:
        config: CoreConfig = KINDS[kind](**values)
    except (KeyError, TypeError) as error:
        raise StageError(f"An architecture that this version does not know: kind {kind!r} ({error}).") from None
    return config


def describe_model(model: "nn.Module") -> dict[str, Any]:
    """Of a model that is there already: its shape alone."""
    return {"architecture": describe_architecture(model.config)}  # type: ignore[arg-type]


def build_model(
    description: Mapping[str, Any], *, weights: bool = True, scalar: bool = False
) -> "LanguageModel | ScalarModel":
    """The model that is described; `weights`: with its initial weights (drawn from the seed, or those of `checkpoint`),
    else with whatever it is made with: another's weights follow. `scalar`: one number per position instead of logits.

    Raises `StageError` where the checkpoint is missing, damaged, or has another tokenizer than `tokenizer_digest`.
    """
    from maquette.model.heads import LanguageModel, ScalarModel

    architecture = read_architecture(description["architecture"])
    if not weights:
        return ScalarModel(architecture) if scalar else LanguageModel(architecture)
    checkpoint, seed = description.get("checkpoint"), description.get("seed", 0)
    if checkpoint is None:
        from maquette.model.initialization import initialize

        if scalar:
            return ScalarModel(architecture, seed=seed)
        model = LanguageModel(architecture, seed=seed)
        parametrization = description.get("parametrization")
        initialize(
            model, architecture, seed,
            parametrization=STANDARD if parametrization is None else Parametrization(**parametrization),
        )  # fmt: skip
        return model
    return _trained(Path(checkpoint), architecture, description, scalar=scalar)


def _trained(
    checkpoint: Path, architecture: CoreConfig, description: Mapping[str, Any], *, scalar: bool
) -> "LanguageModel | ScalarModel":
    from maquette.model import hf
    from maquette.model.heads import ScalarModel
    from maquette.model.loading import load_checkpoint, load_reward_model, model_folder

    digest = description.get("tokenizer_digest")
    if scalar and hf.is_scalar(hf.read_config(model_folder(checkpoint))):
        return load_reward_model(checkpoint, tokenizer_digest=digest)[0].train()
    model, _ = load_checkpoint(checkpoint, tokenizer_digest=digest)
    if architecture.max_position_embeddings > model.config.max_position_embeddings:
        model.core.change_context(max_position_embeddings=architecture.max_position_embeddings)
    if scalar:
        return ScalarModel.from_language_model(model, seed=description.get("seed", 0)).train()
    return model.train()
