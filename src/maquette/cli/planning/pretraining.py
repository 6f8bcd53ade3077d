"""From the settings of `maquette train` to a run: what it is (recipe/run_spec.py), and how it is done here.

Wiring alone: the numbers and the run's identity are the recipe's. Nothing here trains or writes. What a run is, and
whether it is finished, is known without torch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import read_run
from maquette.artifacts.settings import parse_quantity
from maquette.artifacts.targets import plain_nodes
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.recipe_numbers import recipe_of
from maquette.data.config import CustomDataConfig
from maquette.data.process_group import process_group
from maquette.data.token_artifacts import TokensResult
from maquette.model.config import ModelConfig
from maquette.model.core_config import CoreConfig
from maquette.model.loading import model_folder, model_name, weights_digest
from maquette.objectives.config import CustomObjectiveConfig, PretrainConfig
from maquette.optimization.config import recipe_remark
from maquette.recipe.pretraining import Recipe
from maquette.recipe.run_spec import RunSpec, label_of
from maquette.scaling.predictions.prediction import check_predicted
from maquette.text import Tokenizer
from maquette.training.record import RunRecord, find_record

if TYPE_CHECKING:
    from maquette.training import Job
    from maquette.training.job import ObjectivePlan


def resolve_recipe(config: TrainStage, data: TokensResult) -> Recipe:
    """Every number of the run. Raises `ConfigError` for settings that contradict each other."""
    start = config.starting_folder
    architecture: CoreConfig | None = None
    if start is None and config.adapter:
        raise ConfigError("adapter= is trained beside the weights of a model.", "Give checkpoint=<run or folder>.")
    if start is not None:
        from maquette.model.hf import config_of, read_config

        folder = model_folder(start)
        architecture = config_of(read_config(folder), folder)
        if config.model != ModelConfig(kind=config.model.kind):
            say("the settings of model have no effect: checkpoint has the architecture")
    if isinstance(config.data, CustomDataConfig):  # which say so themselves
        from maquette.training.devices import count_processes

        facts = read_manifest(data.folder).facts
        config.data.sequence_length = facts["sequence_length"]
        processes = count_processes(config.trainer, config.tensor_parallel_size)
        config.data.batch_size_tokens = facts["batch_size_tokens"] * processes
    vocab_size = Tokenizer.load(data.tokenizer).vocab_size
    recipe = recipe_of(config, vocab_size, architecture)
    if config.trainer.max_steps > 0 and config.trainer.max_steps != recipe.steps:
        tokens = config.trainer.max_steps * recipe.batch_size_tokens
        say(f"trainer.max_steps={config.trainer.max_steps}: {tokens:,} tokens instead of {recipe.tokens:,}")
        budget = dataclasses.replace(
            config, tokens=str(tokens), compute=None,
            data=dataclasses.replace(config.data, batch_size_tokens=recipe.batch_size_tokens),
        )  # fmt: skip
        recipe = recipe_of(budget, vocab_size, architecture)
    return recipe


def spec_of(config: TrainStage, recipe: Recipe, data: TokensResult) -> RunSpec:
    """The run that the settings and the recipe describe, on the tokens of `data`; nothing of this machine is in it."""
    digests = {"tokens": read_manifest(data.folder).digest, "tokenizer": Tokenizer.load(data.tokenizer).digest}
    if data.corpus is not None:
        digests["corpus"] = read_manifest(data.corpus).digest
    return specified(
        config,
        recipe,
        start=config.starting_folder,
        tokenizer=data.tokenizer,
        digests=digests,
        label=f"{_size_label(config, recipe)}-{label_of(recipe.tokens)}",
    )


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run: its settings, what it is, and the objective's own part, which imports torch and is asked for only where
    the run is not finished. `kept_steps`: after which a checkpoint stays; `tags`: what the tracker gets beside its own.
    """

    config: TrainStage
    spec: RunSpec
    plan: Callable[[], "ObjectivePlan"]
    kept_steps: frozenset[int] = frozenset()
    tags: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.spec.folder(self.config.outputs)

    def finished(self) -> RunRecord | None:
        """The record of the run where it is done, found by what it is; one of several processes does not look."""
        if self.config.force or self.spec.is_trial or process_group().size > 1:
            return None
        return find_record(self.spec, self.config.outputs, finished=True)

    def __getstate__(self) -> dict[str, Any]:
        """For the other processes of the run: with its job, which the first one has put together for all."""
        return self.__dict__ | {"plan": functools.partial(_itself, self.job.plan)}

    @functools.cached_property
    def job(self) -> "Job":
        """How the run is done here. Raises `ConfigError` where this machine can't do it."""
        from maquette.training import Job, choose_hardware
        from maquette.training.devices import check_sharing

        config, spec = self.config, self.spec
        check_sharing(
            spec.architecture, tensor_parallel_size=config.tensor_parallel_size,
            expert_parallel_size=config.expert_parallel_size, strategy=str(config.trainer.strategy),
            adapter=bool(config.adapter), compile=config.compile, policy=config.objective.entry.reads == "prompts",
        )  # fmt: skip
        remark = recipe_remark(config.optimizer, spec.learning_rate)
        if remark and process_group().is_first:
            say_once(remark)
        return Job(
            spec=spec,
            outputs=Path(config.outputs),
            plan=self.plan(),
            hardware=choose_hardware(
                config.trainer,
                config.precision,
                threads=config.threads,
                width=spec.architecture.hidden_size,
                tensor_parallel_size=config.tensor_parallel_size,
                expert_parallel_size=config.expert_parallel_size,
            ),
            optimizer=config.optimizer,
            scheduler=config.scheduler,
            trainer=config.trainer,
            activation_checkpointing=config.activation_checkpointing,
            num_validations=config.num_validations,
            callbacks=plain_nodes(config.callbacks),
            logger=plain_nodes(config.logger),
            kept_steps=self.kept_steps,
            tags=_tags(config, spec) | dict(self.tags),
        )


def _itself(plan: "ObjectivePlan") -> "ObjectivePlan":
    return plan


def plan_pretraining(config: TrainStage, data: TokensResult, recipe: Recipe | None = None) -> PlannedRun:
    """A run on text. `recipe`: where it is known already.

    Raises `ConfigError` for settings that contradict each other or the prediction that the run is for."""
    spec, tags = spec_of(config, recipe or resolve_recipe(config, data), data), {}
    if config.prediction is not None:
        prediction = check_predicted(config.prediction, config.outputs, spec)
        spec = dataclasses.replace(spec, prediction=prediction.digest)
        tags = {"prediction": prediction.id, "prediction.digest": prediction.digest}
    return PlannedRun(config, spec, functools.partial(_plan_of, config, data), tags=tags)


def _plan_of(config: TrainStage, data: TokensResult) -> "ObjectivePlan":
    """What is trained on which text: ours, or with an objective or data of a user's."""
    from maquette.training.pretraining import CustomPlan, PretrainingPlan

    objective = config.objective if isinstance(config.objective, PretrainConfig) else PretrainConfig()
    text = PretrainingPlan(data.folder, config.data, config.mixture, objective)
    theirs = {
        name: node.foreign_node()
        for name, node in (("objective", config.objective), ("data", config.data))
        if isinstance(node, CustomObjectiveConfig | CustomDataConfig)
    }
    return CustomPlan(text, **theirs) if theirs else text


def specified(
    config: TrainStage,
    recipe: Recipe,
    *,
    start: Path | None,
    tokenizer: Path,
    digests: dict[str, str],
    label: str,
) -> RunSpec:
    """A run of any objective. `start`: where its weights come from; `digests` of its data, to which that of the initial
    weights is added; `label` is how its name begins."""
    if start is not None:
        digests = digests | {"checkpoint": weights_digest(start)}
    return RunSpec.of(
        recipe,
        dataclasses.asdict(config),
        label=label,
        objective=config.objective.entry.name,
        tokenizer=str(tokenizer),
        digests=digests,
        checkpoint=None if start is None else str(start),
    )


def _tags(config: TrainStage, spec: RunSpec) -> dict[str, Any]:
    from maquette.tracking import lineage_tags

    source = None if spec.checkpoint is None else read_run(spec.checkpoint)
    return {
        "kind": "train",
        "objective": spec.objective,
        "fingerprint": spec.fingerprint,
        **lineage_tags(
            spec.digests,
            parent=config.tracking.parent,
            checkpoint=None if spec.checkpoint is None else model_name(spec.checkpoint),
            checkpoint_run=None if source is None else source.get("tracking_run"),
        ),
    }


@functools.cache
def say_once(remark: str) -> None:
    """A remark that is the same for every run of a sweep."""
    say(remark)


def _size_label(config: TrainStage, recipe: Recipe) -> str:
    """The size as it was typed where the model has it, else what it has."""
    asked = parse_quantity(config.size, "size")
    typed = config.checkpoint is None and abs(asked / recipe.size - 1) < 0.1
    return str(config.size).strip().lower() if typed else label_of(recipe.size)
