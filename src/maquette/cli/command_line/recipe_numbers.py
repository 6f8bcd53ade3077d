"""`${recipe:learning_rate}`: a number that the recipe fills in, in a config.

While settings are read for a run it is null: the run's planning fills it in once the data is known. Where a config is
shown (`--cfg job --resolve`, `--show`) it is what the recipe gives for the settings themselves, with
`tokenizer.vocab_size` as the size of the vocabulary. Free of torch.
"""

import contextlib
import copy
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import nearest
from maquette.artifacts.targets import node_value
from maquette.optimization.config import planned_warmup, planned_weight_decay
from maquette.text.special import SPECIAL_TOKENS

if TYPE_CHECKING:
    from maquette.cli.command_line.config import TrainStage
    from maquette.model.core_config import CoreConfig
    from maquette.recipe import Recipe
    from maquette.recipe.sweeps import Curve

_open: ContextVar[bool] = ContextVar("open_numbers", default=False)


@contextlib.contextmanager
def left_open() -> Iterator[None]:
    """Within it the recipe's numbers are null."""
    token = _open.set(True)
    try:
        yield
    finally:
        _open.reset(token)


def register_resolver() -> None:
    """Makes `${recipe:NAME}` known to OmegaConf."""
    OmegaConf.register_new_resolver("recipe", _number, replace=True)


def _number(name: str, *, _root_: DictConfig) -> Any:
    if _open.get():
        return None
    from maquette.cli.command_line.config import TrainStage

    with left_open():
        settings = OmegaConf.to_object(_without_hydra(_root_))
    if not isinstance(settings, TrainStage):
        raise ConfigError(f"${{recipe:{name}}} is of training.", "Give the number itself.")
    if not settings.objective.entry.reads_text:
        return None  # its recipe follows the starting model and the examples, which are not read here
    recipe = recipe_of(settings, vocab_size(settings))
    if not hasattr(recipe, name):
        known = [one for one in dir(recipe) if not one.startswith("_")]
        close = nearest(name, known)
        raise ConfigError(f"the recipe has no '{name}'.", f"Did you mean '{close}'?" if close else ", ".join(known))
    value = getattr(recipe, name)
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _without_hydra(config: DictConfig) -> DictConfig:
    if "hydra" not in config:
        return config
    config = copy.deepcopy(config)
    with open_dict(config):
        del config["hydra"]
    return config


def vocab_size(settings: "TrainStage") -> int:
    """What the tokenizer's settings say of it, before there is a tokenizer."""
    tokenizer: Any = settings.tokenizer
    if getattr(tokenizer, "kind", None) == "byte":
        return 256 + len(SPECIAL_TOKENS)
    return int(getattr(tokenizer, "vocab_size", None) or 256)


def curve_of(settings: "TrainStage", budget: float, vocab_size: int, count: int) -> "Curve":
    """`count` sizes around the best for a budget of FLOPs."""
    from maquette.recipe.sweeps import isoflop_curve

    return isoflop_curve(
        budget,
        count=count,
        ratio=settings.sweep.ratio,
        tokens_per_parameter=settings.tokens_per_parameter,
        model=settings.model,
        vocab_size=vocab_size,
        context=settings.data.sequence_length,
        phases=settings.mixture.phases,
    )


def recipe_of(settings: "TrainStage", vocab_size: int, architecture: "CoreConfig | None" = None) -> "Recipe":
    """Every number of a pretraining run. Raises `ConfigError` for settings that contradict each other."""
    from maquette.recipe import resolve

    return resolve(
        size=settings.size,
        vocab_size=vocab_size,
        sequence_length=settings.data.sequence_length,
        tokens=settings.tokens,
        compute=settings.compute,
        tokens_per_parameter=settings.tokens_per_parameter,
        model=settings.model,
        architecture=architecture,
        batch_size_tokens=settings.data.batch_size_tokens,
        learning_rate=node_value(settings.optimizer, "lr"),
        warmup=planned_warmup(settings.scheduler),
        weight_decay=planned_weight_decay(settings.optimizer),
        phases=settings.mixture.phases,
        rules=settings.recipe,
    )
