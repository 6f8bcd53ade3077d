"""From the settings of `maquette train objective=ppo` to a job. Nothing here trains."""

import dataclasses
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.targets import Node, node_value, with_values
from maquette.feedback.annotators.custom import CallableReward
from maquette.feedback.building import ConfiguredFeedback
from maquette.feedback.prompts import open_prompts
from maquette.model.loading import find_checkpoint, load_tokenizer, model_folder
from maquette.objectives.config import PolicyConfig
from maquette.optimization.config import OptimizerConfig, planned_warmup, planned_weight_decay
from maquette.recipe.policy_optimization import resolve_policy
from maquette.recipe.pretraining import with_steps
from maquette.recipe.run_spec import label_of
from maquette.stages.config import TrainStage
from maquette.stages.planning import assemble_job
from maquette.stages.post_training import required_checkpoint, say_unused, starting_architecture
from maquette.training import Job
from maquette.training.config import TrainerConfig
from maquette.training.devices import count_processes
from maquette.training.policy import PolicyPlan

ADAM_EPS = 1e-5
"""Of PPO's AdamW, unless the settings have another: with 1e-8 a gradient that is nearly nothing becomes a full step."""

_PROMPTS_FOR_LENGTH = 64


def plan_policy(config: TrainStage) -> Job:
    """The job of policy optimisation.

    Raises `ConfigError` for settings that contradict each other or lack what PPO needs, `StageError` where a file is
    missing or damaged.
    """
    objective = config.objective
    assert isinstance(objective, PolicyConfig)
    if config.reward.kind == "callable":
        CallableReward(config.reward.callable)  # raises where it can't be imported, before anything is loaded
    start = required_checkpoint(config)
    architecture, tokenizer = starting_architecture(start), load_tokenizer(start)
    if config.trainer.strategy == "fsdp":
        raise ConfigError(
            "objective=ppo samples from whole models, and trainer.strategy=fsdp cuts them up.", "Use trainer=ddp."
        )
    if config.reward.kind == "reward_model" and config.reward.checkpoint is None:
        raise ConfigError(
            "objective=ppo needs something to optimise for.",
            "Give reward.checkpoint=<run of objective=reward>, or reward.kind=gold.",
        )
    if config.reward.kind != "reward_model" and objective.advantage == "value" and objective.value_init == "reward":
        objective = dataclasses.replace(objective, value_init="policy")  # there is no reward model to start from
    prompts = open_prompts(
        config.prompts,
        tokenizer,
        longest=max(1, architecture.max_position_embeddings - objective.max_completion_length),
    )
    lengths = [len(prompts[number].ids) for number in range(_PROMPTS_FOR_LENGTH)]
    recipe = resolve_policy(
        architecture,
        num_iterations=objective.num_iterations,
        rollout_batch_size=objective.rollout_batch_size,
        ppo_epochs=objective.ppo_epochs,
        num_minibatches=objective.num_minibatches,
        row_tokens=round(sum(lengths) / len(lengths)) + objective.max_completion_length,
        has_value=objective.advantage == "value",
        learning_rate=node_value(config.optimizer, "lr"),
        warmup=planned_warmup(config.scheduler),
        weight_decay=planned_weight_decay(config.optimizer),
        rules=config.recipe,
    )
    if config.trainer.max_steps > 0:
        recipe = with_steps(recipe, config.trainer.max_steps)
    say_unused(config)
    steps = objective.ppo_epochs * objective.num_minibatches
    config = dataclasses.replace(
        config,
        objective=objective,
        optimizer=_with_eps(config.optimizer),
        trainer=dataclasses.replace(
            config.trainer, log_every_n_steps=_whole_iterations(config.trainer.log_every_n_steps, steps)
        ),
    )
    digests = {"tokenizer": tokenizer.digest, **_reward_digest(config)}
    if config.prompts.path is not None:
        digests["prompts"] = file_digest(config.prompts.path)
    plan = PolicyPlan(objective, ConfiguredFeedback(config.prompts, config.reward, config.outputs))
    plan.iterations(count_processes(config.trainer))  # raises where they can't be shared out
    return assemble_job(
        config,
        recipe,
        plan,
        start=start,
        tokenizer=model_folder(start),
        digests=digests,
        label=f"ppo-{label_of(recipe.size)}",
    )


def _with_eps(optimizer: Node) -> Node:
    ours = isinstance(optimizer, OptimizerConfig) and optimizer.eps == OptimizerConfig().eps
    return with_values(optimizer, eps=ADAM_EPS) if ours else optimizer


def _whole_iterations(log_steps: int, steps: int) -> int:
    """Points of the curves are means over whole iterations; unless told otherwise over one."""
    return steps if log_steps == TrainerConfig().log_every_n_steps else -(-log_steps // steps) * steps


def _reward_digest(config: TrainStage) -> dict[str, Any]:
    reward = config.reward
    if reward.kind != "reward_model":
        return {"reward": digest({"kind": reward.kind, "callable": reward.callable})}
    weights = sorted(model_folder(find_checkpoint(reward.checkpoint, config.outputs)).glob("*.safetensors"))
    return {"reward": digest([file_digest(path) for path in weights])}
