"""From the settings of `maquette train objective=sft|reward|dpo` to a job. Nothing here trains."""

from pathlib import Path

from maquette.artifacts import ConfigError
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import read_run
from maquette.artifacts.settings import walk
from maquette.artifacts.targets import node_value
from maquette.model.architecture import CoreConfig
from maquette.model.hf import read_config
from maquette.model.hf.scalar import read_architecture
from maquette.model.loading import load_tokenizer, model_folder
from maquette.objectives.config import ExampleConfig
from maquette.optimization.config import planned_warmup, planned_weight_decay
from maquette.recipe.objectives import rules_of
from maquette.recipe.post_training import resolve_examples
from maquette.recipe.pretraining import with_steps
from maquette.recipe.run_spec import label_of
from maquette.stages import examples
from maquette.stages.config import TrainStage
from maquette.stages.planning import assemble_job
from maquette.training import Job
from maquette.training.devices import count_processes
from maquette.training.examples import ExamplePlan
from maquette.training.micro_batch import micro_batches


def plan_examples(config: TrainStage) -> Job:
    """The job of an objective over examples, which are made where they are missing.

    Raises `ConfigError` for settings that contradict each other or lack what the objective needs, `StageError` where
    data is damaged.
    """
    objective = config.objective
    assert isinstance(objective, ExampleConfig)
    start = required_checkpoint(config)
    architecture, tokenizer = starting_architecture(start), load_tokenizer(start)
    micro_batches(objective.batch_size, count_processes(config.trainer), config.data.micro_batch_size)
    make = examples.instructions if objective.kind == "sft" else examples.preferences
    folder = make(config, tokenizer, architecture.max_position_embeddings)
    manifest = read_manifest(folder)
    train: dict[str, int] = manifest.facts["train"]
    recipe = resolve_examples(
        objective.kind,
        architecture,
        examples=train["examples"],
        tokens=train["tokens"],
        answer_tokens=train["answer_tokens"],
        pairs=objective.kind != "sft",
        epochs=objective.epochs,
        batch_size=objective.batch_size,
        learning_rate=node_value(config.optimizer, "lr"),
        warmup=planned_warmup(config.scheduler),
        weight_decay=planned_weight_decay(config.optimizer),
        rules=config.recipe,
    )
    if config.trainer.max_steps > 0:
        recipe = with_steps(recipe, config.trainer.max_steps)
    say_unused(config)
    return assemble_job(
        config,
        recipe,
        ExamplePlan(folder, objective, config.data.micro_batch_size),
        start=start,
        tokenizer=model_folder(start),
        digests={"examples": manifest.digest, "tokenizer": tokenizer.digest} | corpus_digest(start),
        label=f"{objective.kind}-{label_of(recipe.size)}",
    )


def required_checkpoint(config: TrainStage) -> Path:
    """The folder to start from. Raises `ConfigError` where none is named."""
    start = config.starting_folder
    if start is None:
        raise ConfigError(
            f"objective={config.objective.kind} starts from a trained model.",
            "Give checkpoint=<run or exported folder>, or checkpoint=latest for the newest run that fits.",
        )
    return start


def corpus_digest(start: Path) -> dict[str, str]:
    """The corpus that the model was pretrained on, where its run says so: what it is evaluated on must not be of it."""
    record = read_run(start)
    digests = {} if record is None else record["spec"]["digests"]
    return {"corpus": digests["corpus"]} if "corpus" in digests else {}


def starting_architecture(start: Path) -> CoreConfig:
    """The architecture of the model in a folder: a language model's, or a reward model's."""
    folder = model_folder(start)
    return read_architecture(read_config(folder), folder)


def say_unused(config: TrainStage) -> None:
    """Says which settings were given and have no effect on this objective."""
    unused = rules_of(config.objective.kind).unused
    plain = {setting.key: setting.default for setting in walk(TrainStage())}
    given = [
        setting.key
        for setting in walk(config)
        if any(setting.key == key or setting.key.startswith(f"{key}.") for key in unused)
        and plain.get(setting.key, setting.default) != setting.default
        and not (setting.key.endswith(".seed") and setting.default == config.seed)  # it follows the run's
    ]
    if given:
        say(f"these settings have no effect on objective={config.objective.kind}: {', '.join(given)}")
