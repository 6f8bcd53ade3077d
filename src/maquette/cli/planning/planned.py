"""What the settings of `maquette train` come to: one run, or a tree of them; planned by one process for all.

torchrun and srun start the same command in every process. The first one makes what is missing (corpus, tokenizer,
tokens, examples), checks and hashes it and the initial weights, and says so; the others get the run, job and all.
"""

import functools

from maquette.artifacts.targets import node_value
from maquette.cli import tokens
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning import branching, post_training
from maquette.cli.planning.pretraining import PlannedRun, plan_pretraining
from maquette.data.process_group import of_the_first, process_group
from maquette.data.token_artifacts import TokensResult


def plan_once(config: TrainStage, data: TokensResult | None = None) -> PlannedRun | branching.Branching:
    """`data` is what `tokens.make_tokens(config)` gave, where it has been called already.

    Raises `ConfigError` for settings that contradict each other, this machine or the number of processes, `StageError`
    where data is damaged; `PeerError` beside the first process."""
    plan = functools.partial(_plan, config, data)
    if process_group().size == 1:
        return plan()
    from maquette.training import choose_hardware
    from maquette.training.train_job import meet

    meet(choose_hardware(config.trainer, config.precision))
    return of_the_first(plan)


def _plan(config: TrainStage, data: TokensResult | None) -> PlannedRun | branching.Branching:
    if node_value(config.scheduler, "branches"):
        return branching.plan_tree(config, data or tokens.make_tokens(config))
    return plan_run(config, data)


def plan_run(config: TrainStage, data: TokensResult | None = None) -> PlannedRun:
    """The run of any objective, without branches, in this process. Raises as `plan_once`."""
    if not config.objective.entry.reads_text:
        return post_training.PLANS[config.objective.entry.reads](config)
    return plan_pretraining(config, data or tokens.make_tokens(config))
