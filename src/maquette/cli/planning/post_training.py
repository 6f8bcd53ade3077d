"""From the settings of `maquette train` to a run, for objectives that read no text.

Nothing here trains, or imports torch before the run's job is asked for.
All start from a trained model. Those over a fixed set of examples have it encoded with the model's own tokenizer, as an
artifact; PPO draws prompts and has its completions scored.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.manifest import build, read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import read_run
from maquette.artifacts.settings import walk
from maquette.artifacts.targets import Node, node_value, with_values
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning.pretraining import PlannedRun, specified
from maquette.data.config import ExamplesConfig
from maquette.data.conversations import ExampleFiles, ExampleSource
from maquette.data.examples import describe_examples, encode_instructions, encode_labels, encode_preferences
from maquette.feedback.annotators.custom import CallableReward
from maquette.feedback.config import TaskInstructionsConfig
from maquette.feedback.prompts import TaskInstructions, open_prompts, say_left_out
from maquette.model.core_config import CoreConfig
from maquette.model.hf import config_of, read_config
from maquette.model.loading import find_checkpoint, find_reward_model, load_tokenizer, model_folder, weights_digest
from maquette.optimization.config import AdamConfig, planned_warmup, planned_weight_decay
from maquette.recipe.objectives import ObjectiveEntry
from maquette.recipe.post_training import PostTraining
from maquette.recipe.pretraining import Recipe, with_steps
from maquette.recipe.run_spec import label_of
from maquette.text import Tokenizer
from maquette.training.config import TrainerConfig

if TYPE_CHECKING:
    from maquette.training.job import ObjectivePlan

ADAM_EPS = 1e-5
"""Of PPO's AdamW, unless the settings have another: with 1e-8 a gradient that is nearly nothing becomes a full step."""

_PROMPTS_FOR_LENGTH = 64


def plan_examples(config: TrainStage) -> PlannedRun:
    """The run of an objective over examples, which are made where they are missing.

    Raises `ConfigError` for settings that contradict each other or lack what the objective needs, `StageError` where
    data is damaged.
    """
    objective = config.objective
    start = _start(config)
    architecture, tokenizer = _architecture(start), load_tokenizer(start)
    folder = encoded_examples(config, tokenizer, architecture.max_position_embeddings)
    manifest = read_manifest(folder)
    train: dict[str, int] = manifest.facts["train"]
    recipe = _known(config, architecture).over_examples(
        examples=train["examples"],
        tokens=train["tokens"],
        answer_tokens=train["answer_tokens"],
        epochs=objective.epochs,
        batch_size=objective.batch_size,
    )
    digests = {"examples": manifest.digest, "tokenizer": tokenizer.digest}
    record = read_run(start)  # the corpus that it was pretrained on: what it is evaluated on must not be of it
    if record is not None and (corpus := record["spec"]["digests"].get("corpus")):
        digests["corpus"] = corpus

    def open_plan() -> "ObjectivePlan":
        from maquette.training.devices import count_processes
        from maquette.training.examples import ExamplePlan

        plan = ExamplePlan(folder, objective, config.data.micro_batch_size)
        plan.forward_passes(
            count_processes(config.trainer, config.tensor_parallel_size), config.trainer.accumulate_grad_batches
        )  # raises
        return plan

    return _run(config, recipe, open_plan, start, digests)


def plan_policy(config: TrainStage) -> PlannedRun:
    """The run of policy optimisation.

    Raises `ConfigError` for settings that contradict each other or lack what PPO needs, `StageError` where a file is
    missing or damaged.
    """
    objective, reward = config.objective, config.reward
    if reward.kind == "callable":
        CallableReward(reward.callable)  # raises where it can't be imported, before anything is loaded
    start = _start(config)
    architecture, tokenizer = _architecture(start), load_tokenizer(start)
    if reward.kind == "reward_model" and reward.checkpoint is None:
        raise ConfigError(
            f"objective={objective.entry.name} needs something to optimise for.",
            "Give reward.checkpoint=<run of objective=reward>, or reward.kind=gold.",
        )
    of_another = reward.kind != "reward_model" or reward.baseline is not None
    if of_another and objective.has_value and objective.value_init == "reward":
        objective = dataclasses.replace(objective, value_init="policy")  # there is no reward model to start from
    if reward.baseline is not None and load_tokenizer(_baseline(config)).chat_digest != tokenizer.chat_digest:
        raise ConfigError(f"reward.baseline={reward.baseline} has another tokenizer or chat template than the policy.",
                          "Name the model that the policy starts from, or one that was trained from it.")  # fmt: skip
    foreign = _reward_tokenizer(config, tokenizer)
    if foreign is not None and objective.has_value and objective.value_init == "reward":
        objective = dataclasses.replace(objective, value_init="policy")
        say("the reward model has another tokenizer: completions are encoded again, the value function starts from the "
            "policy (objective.value_init=policy)")  # fmt: skip
    longest = max(1, architecture.max_position_embeddings - objective.max_completion_length)
    prompts = open_prompts(config.prompts, tokenizer, longest=longest)
    say_left_out(prompts)
    lengths = [len(prompts[number].ids) for number in range(_PROMPTS_FOR_LENGTH)]
    recipe = _known(config, architecture).of_policy(
        num_iterations=objective.num_iterations,
        rollout_batch_size=objective.rollout_batch_size,
        ppo_epochs=objective.ppo_epochs,
        num_minibatches=objective.num_minibatches,
        row_tokens=round(sum(lengths) / len(lengths)) + objective.max_completion_length,
        has_value=objective.has_value,
    )
    # Points of the curves are means over whole iterations; unless told otherwise over one.
    steps, log_every_n_steps = objective.ppo_epochs * objective.num_minibatches, config.trainer.log_every_n_steps
    log_every_n_steps = (
        steps if log_every_n_steps == TrainerConfig().log_every_n_steps else -(-log_every_n_steps // steps) * steps
    )
    config = dataclasses.replace(
        config,
        objective=objective,
        optimizer=_with_eps(config.optimizer),
        trainer=dataclasses.replace(config.trainer, log_every_n_steps=log_every_n_steps),
    )
    digests = {"tokenizer": tokenizer.chat_digest, "reward": _reward_digest(config)}
    if reward.baseline is not None:
        digests["reward_baseline"] = weights_digest(_baseline(config))
    if foreign is not None:
        digests["reward_tokenizer"] = foreign.chat_digest
    if config.prompts.path is not None:
        path, rows = Path(config.prompts.path), config.prompts.open_rows("prompts")
        digests["prompts"] = file_digest(path) if path.is_file() else digest([rows.identity, rows.inputs()])
    row_tokens = max(lengths) + objective.max_completion_length
    return _run(config, recipe, lambda: _policy_plan(config, row_tokens), start, digests)


def _policy_plan(config: TrainStage, row_tokens: int) -> "ObjectivePlan":
    from maquette.feedback.building import ConfiguredFeedback
    from maquette.training.devices import count_processes
    from maquette.training.policy import PolicyPlan

    feedback = ConfiguredFeedback(config.prompts, config.reward, config.outputs, config.objective.sample_prompts)
    accumulate = config.trainer.accumulate_grad_batches
    plan = PolicyPlan(config.objective, feedback, config.data.micro_batch_size, accumulate, row_tokens)
    plan.schedule(count_processes(config.trainer))  # raises where they can't be shared out
    return plan


PLANS: dict[str, Callable[[TrainStage], PlannedRun]] = {
    "instructions": plan_examples, "preferences": plan_examples, "labels": plan_examples, "prompts": plan_policy,
}  # fmt: skip
"""How a run is planned, by what the objective reads."""

# What both do ---------------------------------------------------------------------------------------------------------


def _start(config: TrainStage) -> Path:
    """The folder to start from. Raises `ConfigError` where none is named."""
    start = config.starting_folder
    if start is None:
        raise ConfigError(
            f"objective={config.objective.entry.name} starts from a trained model.",
            "Give checkpoint=<run or exported folder>, or checkpoint=latest for the newest run that fits.",
        )
    return start


def _architecture(start: Path) -> CoreConfig:
    """The architecture of the model in a folder: a language model's, or a reward model's."""
    folder = model_folder(start)
    return config_of(read_config(folder), folder)


def _known(config: TrainStage, architecture: CoreConfig) -> PostTraining:
    """What the settings say of the recipe's numbers, and its rules for the rest."""
    return PostTraining(
        config.objective.entry,
        architecture,
        learning_rate=node_value(config.optimizer, "lr"),
        warmup=planned_warmup(config.scheduler),
        weight_decay=planned_weight_decay(config.optimizer),
        rules=config.recipe,
        adapter=config.adapter,
    )


def _run(
    config: TrainStage, recipe: Recipe, plan: "Callable[[], ObjectivePlan]", start: Path, digests: dict[str, str]
) -> PlannedRun:
    if config.trainer.max_steps > 0:
        recipe = with_steps(recipe, config.trainer.max_steps)
    _say_unused(config)
    label = f"{config.objective.entry.label}-{label_of(recipe.size)}"
    spec = specified(config, recipe, start=start, tokenizer=model_folder(start), digests=digests, label=label)
    return PlannedRun(config, spec, plan)


def _say_unused(config: TrainStage) -> None:
    """Says which settings were given and have no effect on this objective."""
    plain = {setting.key: setting.default for setting in walk(TrainStage())}
    given = [
        setting.key
        for setting in walk(config)
        if any(setting.key == key or setting.key.startswith(f"{key}.") for key in config.objective.entry.unused)
        and plain.get(setting.key, setting.default) != setting.default
        and not (setting.key.endswith(".seed") and setting.default == config.seed)  # it follows the run's
    ]
    if given:
        say(f"these settings have no effect on objective={config.objective.entry.name}: {', '.join(given)}")


def _with_eps(optimizer: Node) -> Node:
    ours = isinstance(optimizer, AdamConfig) and optimizer.eps == AdamConfig().eps
    return with_values(optimizer, eps=ADAM_EPS) if ours else optimizer


def _reward_tokenizer(config: TrainStage, tokenizer: Tokenizer) -> Tokenizer | None:
    """The reward model's, where it is not the policy's."""
    if config.reward.kind != "reward_model":
        return None
    its_own = load_tokenizer(find_reward_model(config.reward.checkpoint, config.outputs))
    return None if its_own.digest == tokenizer.digest else its_own


def _baseline(config: TrainStage) -> Path:
    try:
        return find_checkpoint(config.reward.baseline, config.outputs)
    except ConfigError as error:
        raise ConfigError(
            f"reward.baseline={config.reward.baseline}: there is no such folder or run.", error.hint
        ) from None


def _reward_digest(config: TrainStage) -> str:
    reward = config.reward
    if reward.kind != "reward_model":
        return digest({"kind": reward.kind, "callable": reward.callable})
    return weights_digest(find_reward_model(reward.checkpoint, config.outputs))


# Examples -------------------------------------------------------------------------------------------------------------


_ENCODE: dict[str, Callable[..., dict[str, Any]]] = {
    "instructions": encode_instructions, "preferences": encode_preferences, "labels": encode_labels,
}  # fmt: skip


def encoded_examples(config: TrainStage, tokenizer: Tokenizer, longest: int) -> Path:
    """The artifact of what the objective reads, `config.instructions` or `config.preferences`, made where it is
    missing. Examples have at most `longest` tokens.

    Raises `ConfigError` where the settings do not say where they come from."""
    kind = config.objective.entry.reads
    chosen: ExamplesConfig = getattr(config, config.objective.entry.section)
    source = _source(kind, chosen, config.objective.entry)
    settings = {"longest": longest, "validation": getattr(chosen, "validation", 0.0), "limit": chosen.limit}

    def make(folder: Path) -> dict[str, Any]:
        facts = _ENCODE[kind](source.examples(), tokenizer, folder, **settings)
        for line in describe_examples(facts, kind):
            say(line)
        return facts

    return build(
        kind,
        Path(config.outputs) / "artifacts",
        name=None,
        label=source.label,
        config=settings,
        inputs=source.inputs() | {"tokenizer": tokenizer.chat_digest},
        make=make,
        say=say,
    )


def _source(kind: str, chosen: Any, entry: ObjectiveEntry) -> ExampleSource:
    if isinstance(chosen, TaskInstructionsConfig):
        return TaskInstructions(chosen)
    if chosen.path is None:
        more = ", or instructions=task" if kind == "instructions" else ""
        raise ConfigError(
            f"objective={entry.name} needs {kind}.", f"Give {entry.section}.path=<file or folder of JSON lines>{more}."
        )
    return ExampleFiles(chosen.open_rows(kind), kind)
