"""From the settings of `maquette train` to a job: every number resolved, and the run's identity.

The settings with the recipe's numbers in them, and the digests of the data, give a run its fingerprint, and so its name
and its folder `<outputs>/runs/<name>`. Nothing here trains or writes.
"""

import dataclasses
import datetime
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.nodes import has_key, node_values
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.model.config import CoreConfig, CustomConfig, ModelConfig, TransformerConfig
from maquette.model.hf import family_of, read_config
from maquette.model.loading import find_checkpoint, latest_run, model_folder
from maquette.model.parametrization import STANDARD
from maquette.objectives.config import PretrainConfig
from maquette.optimization.config import recipe_remark, short_name
from maquette.recipe.pretraining import Recipe
from maquette.stages.config import TrainStage
from maquette.stages.loggers import other_loggers, plain_nodes
from maquette.stages.recipe_numbers import recipe_of
from maquette.stages.tokens import TokensResult
from maquette.text import Tokenizer
from maquette.tracking import lineage_tags
from maquette.tracking.environment import git_commit, hardware_name, package_versions
from maquette.training import Job, RunRecord, choose_hardware, read_record
from maquette.training.plan import Plan
from maquette.training.pretraining import PretrainingPlan
from maquette.training.record import RUNNING

BEFORE = {
    "sft": ("pretrain",),
    "reward": ("sft", "pretrain"),
    "dpo": ("sft", "pretrain"),
    "ppo": ("sft", "pretrain"),
}
"""What an objective usually starts from: the first of these that has a run."""


def starting_folder(config: TrainStage) -> Path | None:
    """The folder whose weights are the initial ones; None where the model starts from scratch. After pretraining,
    `latest` is the newest run of what comes before the objective, so that the same words mean the same run again.

    Raises `ConfigError` where `checkpoint` names nothing."""
    if config.checkpoint == "latest" and config.objective.kind != "pretrain":
        return latest_run(config.outputs, BEFORE[config.objective.kind])
    return None if config.checkpoint is None else find_checkpoint(config.checkpoint, config.outputs)


def resolve_recipe(config: TrainStage, data: TokensResult) -> Recipe:
    """Every number of the run. Raises `ConfigError` for settings that contradict each other."""
    start = starting_folder(config)
    architecture: CoreConfig | None = None
    if start is not None:
        folder = model_folder(start)
        raw = read_config(folder)
        architecture = family_of(raw, folder).read(raw)
        if config.model != ModelConfig(kind=config.model.kind):
            say("the settings of model have no effect: checkpoint has the architecture")
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


def plan_job(config: TrainStage, recipe: Recipe, data: TokensResult) -> Job:
    """The job that the settings and the recipe describe, on the tokens of `data`.

    Raises `ConfigError` where this machine can't do it.
    """
    start = starting_folder(config)
    digests = {
        "tokens": read_manifest(data.folder).digest,
        "tokenizer": Tokenizer.load(data.tokenizer).digest,
    }
    if data.corpus is not None:
        digests["corpus"] = read_manifest(data.corpus).digest
    settings = resolved_settings(config, recipe)
    assert isinstance(config.objective, PretrainConfig)
    return assemble_job(
        config,
        recipe,
        PretrainingPlan(data.folder, config.data, config.mixture, config.objective),
        start=start,
        tokenizer=data.tokenizer,
        digests=digests,
        settings=settings,
        fingerprint=lambda digests: run_fingerprint(settings, recipe, digests),
        label=f"{_size_label(config, recipe)}-{label_of(recipe.tokens)}",
    )


def assemble_job(
    config: TrainStage,
    recipe: Recipe,
    plan: Plan,
    *,
    start: Path | None,
    tokenizer: Path,
    digests: dict[str, str],
    settings: dict[str, Any],
    fingerprint: Callable[[dict[str, str]], str],
    label: str,
) -> Job:
    """The job of any objective: `plan` is its own part, `start` where its weights come from.

    `digests` of its data, to which that of the initial weights is added; `fingerprint` of them all and of the settings
    that count names the run, after its `label`. Raises `ConfigError` where this machine can't do it.
    """
    if start is not None:
        weights = sorted(model_folder(start).glob("*.safetensors"))
        digests = digests | {"checkpoint": digest([file_digest(path) for path in weights])}
    identity = fingerprint(digests)
    name = f"{label}-{identity[:8]}"
    source = None if start is None else read_record(start)
    counts = recipe.parameters
    if remark := recipe_remark(config.optimizer, recipe.learning_rate):
        say_once(remark)
    return Job(
        name=name,
        folder=Path(config.outputs) / "runs" / name,
        outputs=Path(config.outputs),
        seed=config.seed,
        architecture=recipe.architecture,
        checkpoint=start,
        tokenizer_folder=tokenizer,
        plan=plan,
        steps=recipe.steps,
        batch_size_tokens=recipe.batch_size_tokens,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        flops=recipe.compute,
        compiled=False,
        linear_backend="torch",
        hardware=choose_hardware(
            config.trainer,
            config.precision,
            threads=config.threads,
            optimizer=short_name(config.optimizer),
            width=recipe.architecture.hidden_size,
        ),
        optimizer=config.optimizer,
        scheduler=config.scheduler,
        trainer=config.trainer,
        tracking=config.tracking,
        num_validations=config.num_validations,
        callbacks=plain_nodes(config.callbacks),
        logger=other_loggers(config.logger),
        parametrization=recipe.parametrization,
        params=settings
        | {"N": recipe.size, "N_core": counts.core, "N_head": counts.head, "N_embedding": counts.embedding}
        | {"D": recipe.tokens, "C": recipe.compute, "C_kaplan": recipe.kaplan_compute, "steps": recipe.steps},
        tags={"kind": "train", "objective": plan.kind, "fingerprint": identity}
        | lineage_tags(
            digests,
            parent=config.tracking.parent,
            checkpoint=None if start is None else str(start),
            checkpoint_run=None if source is None else source.tracking_run,
        ),
    )


@functools.cache
def say_once(remark: str) -> None:
    """A remark that is the same for every run of a sweep."""
    say(remark)


def new_record(
    config: TrainStage, recipe: Recipe, job: Job, *, compiled: bool, linear_backend: str = "torch"
) -> RunRecord:
    """What a run says about itself before its first step."""
    counts = dataclasses.asdict(recipe.parameters)
    return RunRecord(
        name=job.name,
        folder=str(job.folder),
        fingerprint=job.tags["fingerprint"],
        status=RUNNING,
        size=config.size if job.plan.kind == "pretrain" else label_of(recipe.size),
        parameters=counts,
        tokens=recipe.tokens,
        compute=recipe.compute,
        kaplan_compute=recipe.kaplan_compute,
        steps=recipe.steps,
        batch_size_tokens=recipe.batch_size_tokens,
        sequence_length=config.data.sequence_length
        if job.plan.kind == "pretrain"
        else recipe.architecture.max_position_embeddings,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        seed=config.seed,
        precision=config.precision.kind,
        compiled=compiled,
        linear_backend=linear_backend,
        hardware=hardware_name(),
        architecture=kind_of(job.architecture),
        digests={key.removeprefix("digest."): value for key, value in job.tags.items() if key.startswith("digest.")},
        git_commit=git_commit(),
        versions=package_versions(),
        checkpoint=None if job.checkpoint is None else str(job.checkpoint),
        parent_run=config.tracking.parent,
        prediction=job.tags.get("prediction.digest"),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        objective=job.plan.kind,
    )


def kind_of(architecture: CoreConfig) -> str:
    """What sort of model it is, in words: models of one kind train at comparable speeds."""
    return architecture.description


def resolved_settings(config: TrainStage, recipe: Recipe) -> dict[str, Any]:
    """The settings with the recipe's numbers in place of the nulls."""
    model = dataclasses.asdict(config.model)
    known = {field.name for field in dataclasses.fields(recipe.architecture)}
    model |= {
        key: value for key, value in dataclasses.asdict(recipe.architecture).items() if key in model and key in known
    }
    custom = isinstance(recipe.architecture, CustomConfig)
    model["kind"] = recipe.architecture.description if custom else recipe.architecture.kind
    if isinstance(recipe.architecture, TransformerConfig):
        model["intermediate_size"] = recipe.architecture.inner_width
    # Of other objectives; of the line, not of the run
    left_out = ("instructions", "preferences", "prompts", "reward", "sweep", "suite", "protocol")
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in left_out}
    settings["model"] = model
    settings["tokens"], settings["compute"] = str(recipe.tokens), None
    settings["data"]["batch_size_tokens"] = recipe.batch_size_tokens
    return settings | resolved_optimization(config, recipe)


def resolved_optimization(config: TrainStage, recipe: Recipe) -> dict[str, Any]:
    """The settings of optimiser and scheduler with the recipe's numbers in place of the nulls."""
    optimizer, scheduler = node_values(config.optimizer), node_values(config.scheduler)
    optimizer |= {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if has_key(config.scheduler, "warmup"):
        scheduler["warmup"] = recipe.warmup
    return {"optimizer": optimizer, "scheduler": scheduler}


def run_fingerprint(settings: dict[str, Any], recipe: Recipe, digests: dict[str, str]) -> str:
    """Digest of all that decides what comes out: not of where it is written, on what devices, or how it is watched."""
    chosen = {
        key: settings[key] for key in ("seed", "objective", "model", "mixture", "optimizer", "scheduler", "precision")
    }
    data = {key: value for key, value in settings["data"].items() if key not in ("workers", "micro_batch_size")}
    # What else the line trains is not of this run; what a run was before this setting existed, it still is.
    chosen["scheduler"] = {key: value for key, value in settings["scheduler"].items() if key != "branches"}
    if recipe.architecture.own_code:
        chosen["code"] = code_digest(*recipe.architecture.own_code)
    if recipe.parametrization != STANDARD:
        chosen["parametrization"] = dataclasses.asdict(recipe.parametrization)
    return digest(
        chosen
        | {"data": data, "compile": settings["compile"], "digests": digests}
        | {"architecture": dataclasses.asdict(recipe.architecture), "tokens": recipe.tokens}
    )


def _size_label(config: TrainStage, recipe: Recipe) -> str:
    """The size as it was typed where the model has it, else what it has."""
    asked = parse_quantity(config.size, "size")
    typed = config.checkpoint is None and abs(asked / recipe.size - 1) < 0.1
    return str(config.size).strip().lower() if typed else label_of(recipe.size)


def label_of(count: int) -> str:
    """A count in two digits: 6000000 -> 6m, 1234 -> 1.2k."""
    for unit, name in ((1e12, "t"), (1e9, "b"), (1e6, "m"), (1e3, "k")):
        if count >= 0.995 * unit:
            return f"{float(f'{count / unit:.2g}'):g}{name}"
    return str(count)
