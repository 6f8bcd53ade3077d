"""A run with an objective or data of a user's: their LightningModule and LightningDataModule around our model.

An objective is a LightningModule class that is given `model` (the description of `maquette.model.loading`, or what
`build_model` makes of it), `optimization` and its own settings, as far as it names them. The shortest one is a subclass
of `maquette.objectives.Pretraining` with a `loss(batch)` of its own; one that keeps the language model as `self.model`
is exported, others say that they are not.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from maquette.artifacts import ConfigError
from maquette.artifacts.progress import say
from maquette.artifacts.settings import plain_arguments
from maquette.artifacts.targets import import_target, users_code
from maquette.data.custom_data import build_data, facts_of
from maquette.model import LanguageModel, hf
from maquette.objectives import Pretraining
from maquette.text import Tokenizer
from maquette.training.card import write_card
from maquette.training.figures import draw_curves
from maquette.training.job import Job, Opened, Row, describe_run_model, module_weights, prepare_optimization
from maquette.training.pretraining import PretrainingPlan
from maquette.training.record import RunRecord


@dataclass(frozen=True)
class CustomPlan:
    """`text`: our plan, whose data and settings are used where `data` or `objective` (nodes with a `_target_`) are
    None."""

    text: PretrainingPlan
    objective: dict[str, Any] | None = None
    data: dict[str, Any] | None = None

    def open(self, job: Job, tokenizer: Tokenizer) -> Opened:
        if self.data is None:
            opened = self.text.open(job, tokenizer)
        else:
            target = str(self.data["_target_"])
            data = build_data(self.data, seed=job.seed)
            batches = facts_of(data, target).batches
            module = Pretraining(describe_run_model(job), prepare_optimization(job), self.text.objective)
            opened = Opened(module, data, 1, batches or 0)
        return opened if self.objective is None else replace(opened, module=build_objective(self.objective, job))

    def results(self, opened: Opened, last: Row, step: int) -> dict[str, Any]:
        return self.text.results(opened, last, step) if self.data is None else {}

    def export(
        self, job: Job, opened: Opened, state: dict[str, Tensor], folder: Path, record: RunRecord, *, finished: bool
    ) -> None:
        """The language model that the module keeps as `model`, as a Hugging Face folder."""
        with torch.device("meta"):
            model = LanguageModel(job.architecture)
        weights = module_weights(state, "model.")
        if set(weights) < set(model.state_dict()):
            say(
                f"{record.name}: {record.objective} keeps no language model as `self.model`: there is nothing to export"
            )
            return
        model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
        card = write_card(record, getattr(opened.data, "validation_weights", {})) if finished else None
        hf.save(model, Tokenizer.load(job.tokenizer_folder), folder, card=card)

    def draw(self, opened: Opened, history: list[Row], folder: Path, title: str) -> list[Path]:
        if self.data is None and self.objective is None:
            return self.text.draw(opened, history, folder, title)
        names = sorted({name for row in history for name in row if name.startswith(("train/", "validation/"))})
        losses = [name for name in names if name.endswith("loss")]
        others = [name for name in names if name.startswith("validation/") and name not in losses]
        return [draw_curves(history, [("loss", losses), ("validation", others)], folder / "loss", title=title)]

    def totals(self, record: RunRecord) -> dict[str, float]:
        return self.text.totals(record) if self.data is None else {}


def build_objective(node: Mapping[str, Any], job: Job) -> LightningModule:
    """The module that a node names. Raises `ConfigError` for what is none."""
    target = str(node["_target_"])
    found = import_target(target, key="objective._target_")
    known = {"model": describe_run_model(job), "optimization": prepare_optimization(job)}
    parameters = inspect.signature(found).parameters
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    given = {name: value for name, value in known.items() if anything or name in parameters}
    with users_code(target):
        module = found(**given, **plain_arguments(node))
    if not isinstance(module, LightningModule):
        raise ConfigError(
            f"objective: {target} gives {type(module).__name__}, not a lightning.LightningModule.",
            "Name a class that is one.",
        )
    return module
