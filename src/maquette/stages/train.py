"""`maquette train`: one model, one objective.

The settings and the digests of the data give a run its fingerprint, and so its folder `<outputs>/runs/<name>`: typing
the same line again finds a finished run, or goes on with one that was stopped.
"""

import contextlib
import dataclasses
import datetime
import shutil
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, file_digest, locked, write_text
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.model.config import CoreConfig, ModelConfig, TransformerConfig
from maquette.model.hf.folder import family_of, read_config
from maquette.model.loading import find_checkpoint, model_folder
from maquette.scaling.recipe import Recipe, resolve
from maquette.stages import corpus as corpus_stage
from maquette.stages import tokens as tokens_stage
from maquette.stages.config import TrainStage
from maquette.stages.tokens import TokensResult
from maquette.text import Tokenizer
from maquette.tracking import lineage_tags
from maquette.tracking.environment import git_commit, hardware_name, package_versions
from maquette.training import Job, RunRecord, choose_hardware, fit, read_record
from maquette.training.compilation import compiler_works, wants_compilation
from maquette.training.processes import World, agree, join_group, launch, this_world
from maquette.training.record import FINISHED, RUNNING


def run(config: TrainStage, data: TokensResult | None = None) -> RunRecord:
    """Trains the model that the settings describe, from raw documents if need be, and returns its record.

    `data` is what `make_tokens(config)` gave, where it has been called already.
    Raises `ConfigError` for settings that contradict each other or this machine, `StageError` where data is damaged or
    training diverges, `KeyboardInterrupt` where it was stopped; then the same call goes on.
    """
    start = _start(config)
    data = data or make_tokens(config)
    recipe = _resolve(config, data, start)
    job = _plan(config, recipe, data, start)
    world = _meet(job)
    # The first of several processes decides; a second command that means the same run waits here for the first.
    with locked(job.folder) if world.is_first else contextlib.nullcontext():
        done = _begin(config, recipe, job) if world.is_first else None
        compiled = None if done is None else done.compiled
        if world.size > 1:
            done, compiled = agree((done, compiled))
        assert done is not None
        if done.status == FINISHED:
            return done
        job = dataclasses.replace(job, compiled=bool(compiled))
        if job.hardware.world_size > world.size:
            record: RunRecord = launch(fit, job, job.hardware.processes)
        else:
            record = fit(job)
    if world.is_first:
        _tell(record)
    return record


def _start(config: TrainStage) -> Path | None:
    """The folder whose weights are the initial ones."""
    return None if config.checkpoint is None else find_checkpoint(config.checkpoint, config.outputs)


def make_tokens(config: TrainStage) -> TokensResult:
    """Tokens of the corpus: by a tokenizer made for it, or by that of the model to start from."""
    upstream, start = dataclasses.replace(config, force=False), _start(config)
    if start is None:
        return tokens_stage.run(upstream)
    return tokens_stage.encode(upstream, corpus_stage.run(upstream), model_folder(start))


def _resolve(config: TrainStage, data: TokensResult, start: Path | None) -> Recipe:
    """Every number of the run."""
    architecture: CoreConfig | None = None
    if start is not None:
        folder = model_folder(start)
        raw = read_config(folder)
        architecture = family_of(raw, folder).read(raw)
        if config.model != ModelConfig(kind=config.model.kind):
            say("the settings of model have no effect: checkpoint has the architecture")
    return resolve(
        size=config.size,
        vocabulary_size=Tokenizer.load(data.tokenizer).vocabulary_size,
        context=config.data.context,
        tokens=config.tokens,
        compute=config.compute,
        tokens_per_parameter=config.tokens_per_parameter,
        model=config.model,
        architecture=architecture,
        batch_tokens=config.data.batch_tokens,
        learning_rate=config.optimizer.learning_rate,
        warmup=config.schedule.warmup,
        weight_decay=config.optimizer.weight_decay,
        phases=config.mixture.phases,
    )


def _plan(config: TrainStage, recipe: Recipe, data: TokensResult, start: Path | None) -> Job:
    digests = {
        "tokens": read_manifest(data.folder).digest,
        "tokenizer": Tokenizer.load(data.tokenizer).digest,
        "corpus": read_manifest(data.corpus).digest,
    }
    if start is not None:
        weights = sorted(model_folder(start).glob("*.safetensors"))
        digests["checkpoint"] = digest([file_digest(path) for path in weights])
    settings = resolved_settings(config, recipe)
    fingerprint = run_fingerprint(settings, recipe, digests)
    name = f"{_size_label(config, recipe)}-{_label(recipe.tokens)}-{fingerprint[:8]}"
    source = None if start is None else read_record(start)
    counts = recipe.parameters
    return Job(
        name=name,
        folder=Path(config.outputs) / "runs" / name,
        outputs=Path(config.outputs),
        seed=config.seed,
        architecture=recipe.architecture,
        checkpoint=start,
        tokens_folder=data.folder,
        tokenizer_folder=data.tokenizer,
        steps=recipe.steps,
        batch_tokens=recipe.batch_tokens,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        flops=recipe.compute,
        compiled=False,
        hardware=choose_hardware(
            config.trainer, config.precision, optimizer=config.optimizer.kind, width=recipe.architecture.width
        ),
        objective=config.objective,
        data=config.data,
        mixture=config.mixture,
        optimizer=config.optimizer,
        schedule=config.schedule,
        trainer=config.trainer,
        tracking=config.tracking,
        params=settings
        | {"N": recipe.size, "N_core": counts.core, "N_head": counts.head, "N_embedding": counts.embedding}
        | {"D": recipe.tokens, "C": recipe.compute, "C_kaplan": recipe.kaplan_compute, "steps": recipe.steps},
        tags={"kind": "train", "fingerprint": fingerprint}
        | lineage_tags(
            digests,
            parent=config.tracking.parent,
            checkpoint=None if start is None else str(start),
            checkpoint_run=None if source is None else source.tracking_run,
        ),
    )


def _meet(job: Job) -> World:
    """This process's place, after meeting those that torchrun or srun started beside it.

    Raises `ConfigError` where they are not as many as the settings say.
    """
    world = this_world()
    wanted = job.hardware.world_size
    if world.size > 1 and world.size != wanted:
        raise ConfigError(
            f"{world.size} processes were started; trainer.devices x trainer.num_nodes is {wanted}.",
            "Start as many as the settings say.",
        )
    if world.size == 1 and job.hardware.nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={job.hardware.nodes}, but nothing started this command on the other machines.",
            "Use torchrun or srun (hydra/launcher=submitit_slurm) to start it on each.",
        )
    if world.size > 1:
        join_group("gloo" if job.hardware.accelerator == "cpu" else "nccl")
    return world


def _begin(config: TrainStage, recipe: Recipe, job: Job) -> RunRecord:
    """The record of the run as it stands: finished, begun earlier, or new and written just now."""
    found = None if config.force else read_record(job.folder)
    if found is not None:
        if found.status == FINISHED:
            say(f"run {job.name}: nothing to do, already trained (validation loss {found.validation_loss:.4f})")
        return found
    if job.folder.exists():
        shutil.rmtree(job.folder)
    compiled = wants_compilation(config.trainer.compile, recipe.compute, job.hardware) and compiler_works(say)
    settings = {key: value for key, value in job.params.items() if key in {f.name for f in dataclasses.fields(config)}}
    _write_settings(job.folder / "config.yaml", settings)
    counts = dataclasses.asdict(recipe.parameters)
    record = RunRecord(
        name=job.name,
        folder=str(job.folder),
        fingerprint=job.tags["fingerprint"],
        status=RUNNING,
        size=config.size,
        parameters=counts,
        tokens=recipe.tokens,
        compute=recipe.compute,
        kaplan_compute=recipe.kaplan_compute,
        steps=recipe.steps,
        batch_tokens=recipe.batch_tokens,
        context=config.data.context,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        seed=config.seed,
        precision=config.precision.kind,
        compiled=compiled,
        hardware=hardware_name(),
        digests={key.removeprefix("digest."): value for key, value in job.tags.items() if key.startswith("digest.")},
        git_commit=git_commit(),
        versions=package_versions(),
        checkpoint=None if job.checkpoint is None else str(job.checkpoint),
        parent_run=config.tracking.parent,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    record.save()
    return record


def resolved_settings(config: TrainStage, recipe: Recipe) -> dict[str, Any]:
    """The settings with the recipe's numbers in place of the nulls."""
    model = dataclasses.asdict(config.model)
    known = {field.name for field in dataclasses.fields(recipe.architecture)}
    model |= {
        key: value for key, value in dataclasses.asdict(recipe.architecture).items() if key in model and key in known
    }
    if isinstance(recipe.architecture, TransformerConfig):
        model["kind"] = "transformer"
        model["feed_forward_width"] = recipe.architecture.inner_width
    settings = dataclasses.asdict(config)
    settings["model"] = model
    settings["tokens"], settings["compute"] = str(recipe.tokens), None
    settings["data"]["batch_tokens"] = recipe.batch_tokens
    settings["optimizer"] |= {"learning_rate": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    settings["schedule"]["warmup"] = recipe.warmup
    return settings


def run_fingerprint(settings: dict[str, Any], recipe: Recipe, digests: dict[str, str]) -> str:
    """Digest of all that decides what comes out: not of where it is written, on what devices, or how it is watched."""
    chosen = {
        key: settings[key] for key in ("seed", "objective", "model", "mixture", "optimizer", "schedule", "precision")
    }
    data = {key: value for key, value in settings["data"].items() if key not in ("workers", "micro_batch")}
    return digest(
        chosen
        | {"data": data, "compile": settings["trainer"]["compile"], "digests": digests}
        | {"architecture": dataclasses.asdict(recipe.architecture), "tokens": recipe.tokens}
    )


def _write_settings(path: Path, settings: dict[str, Any]) -> None:
    from omegaconf import OmegaConf

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(settings)))


def _size_label(config: TrainStage, recipe: Recipe) -> str:
    """The size as it was typed where the model has it, else what it has."""
    asked = parse_quantity(config.size, "size")
    typed = config.checkpoint is None and abs(asked / recipe.size - 1) < 0.1
    return str(config.size).strip().lower() if typed else _label(recipe.size)


def _label(count: int) -> str:
    """A count in two digits: 6000000 -> 6m, 1234 -> 1.2k."""
    for unit, name in ((1e12, "t"), (1e9, "b"), (1e6, "m"), (1e3, "k")):
        if count >= 0.995 * unit:
            return f"{float(f'{count / unit:.2g}'):g}{name}"
    return str(count)


def _tell(record: RunRecord) -> None:
    say(
        f"run {record.name}: validation loss {record.validation_loss or float('nan'):.4f}, "
        f"{record.bits_per_byte or float('nan'):.4f} bits per byte; in {record.folder}"
    )
