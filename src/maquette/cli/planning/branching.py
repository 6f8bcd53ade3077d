"""`scheduler=wsd scheduler.branches=[...]`: one trunk serves every token budget (Hu et al. 2024; Haegele et al. 2024).

The trunk warms up and stays at the peak rate. Each budget is a run of its own, `scheduler=wsd` over its own tokens,
that starts from the trunk's checkpoint where its cooldown begins. Up to there the two are the same run, bit for bit:
the same batches, rate and warm-up; so a branch is what it would have been alone, for the price of its cooldown.

What it is not is a run with a schedule made for its length (linear to zero from the start), which ends 0.5 to 5% better
at small budgets; a sweep measures that on one size (`sweep.bias`).
"""

import dataclasses
import shutil
from pathlib import Path

from maquette.artifacts import ConfigError
from maquette.artifacts.files import atomic_file, write_json
from maquette.artifacts.reading import load_table
from maquette.artifacts.settings import parse_quantity
from maquette.artifacts.targets import Node, plain_nodes, with_values
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning.pretraining import plan_job, resolve_recipe
from maquette.data.token_artifacts import TokensResult
from maquette.optimization import build_schedule
from maquette.optimization.config import ConstantSchedulerConfig, WSDSchedulerConfig, short_name
from maquette.recipe.pretraining import Recipe
from maquette.training import Job
from maquette.training.checkpoint_io import CheckpointFolder

TRUNK = "trunk"
"""The kind of a run that serves others: no point of a law."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run: what was asked for, and the job. A branch leaves the trunk after `branch_step` steps."""

    config: TrainStage
    job: Job
    branch_step: int = 0

    @property
    def cooldown_tokens(self) -> int:
        """What a branch trains beyond the trunk."""
        return self.job.spec.tokens - self.branch_step * self.job.spec.batch_size_tokens


@dataclasses.dataclass(frozen=True)
class Branching:
    """The trunk, and its branches by rising tokens; the last one is the run that the settings name."""

    trunk: Planned
    branches: tuple[Planned, ...]

    @property
    def tokens(self) -> int:
        """What is trained in all."""
        return self.trunk.job.spec.tokens + sum(branch.cooldown_tokens for branch in self.branches)


def plan_tree(config: TrainStage, data: TokensResult) -> Branching:
    """Raises `ConfigError` where the settings do not go with branches."""
    if not isinstance(config.scheduler, WSDSchedulerConfig):
        raise ConfigError(
            f"scheduler.branches with scheduler={short_name(config.scheduler)}: only a stable rate has a trunk.",
            "Use scheduler=wsd.",
        )
    if config.mixture.phases:
        raise ConfigError(
            "scheduler.branches with phases of the mixture: they would begin elsewhere for each number of tokens.",
            "Leave one of the two out.",
        )
    whole = resolve_recipe(config, data)
    asked = [parse_quantity(one, "scheduler.branches") for one in config.scheduler.branches]
    # Whole steps, so that the share of the warm-up is the same number of tokens for every one of them.
    steps = sorted({*(max(1, round(tokens / whole.batch_size_tokens)) for tokens in asked), whole.steps})
    budgets = [whole.batch_size_tokens * one for one in steps]
    if budgets[-1] > whole.tokens:
        raise ConfigError(
            f"scheduler.branches has {max(asked):,} tokens, and the run itself only {whole.tokens:,}.",
            "Branches are shorter versions of the run; tokens (or compute) sets the longest.",
        )
    warmup = whole.warmup * budgets[0]  # of the shortest, for all: they share it
    branches = [_planned(_with(config, whole, tokens, warmup / tokens), data) for tokens in budgets]
    branches = [dataclasses.replace(branch, branch_step=_leaves(branch)) for branch in branches]
    if branches[0].branch_step * whole.batch_size_tokens < warmup:
        raise ConfigError(
            f"The shortest of scheduler.branches, {budgets[0]:,} tokens, cools down before it is warm.",
            "Leave it out, or shorten scheduler.warmup or scheduler.decay.",
        )
    # One step further than the last branch needs: the checkpoint of a last step says that training is over.
    length = (branches[-1].branch_step + 1) * whole.batch_size_tokens
    trunk = _planned(_with(config, whole, length, warmup / length, ConstantSchedulerConfig()), data)
    job = dataclasses.replace(
        trunk.job,
        kept_steps=frozenset(branch.branch_step for branch in branches),
        tags=trunk.job.tags | {"kind": TRUNK},
    )
    return Branching(dataclasses.replace(trunk, job=job), tuple(branches))


def below(trunk: str | None, branch: Planned) -> Planned:
    """The branch as a child of the trunk's run in MLflow."""
    if trunk is None:
        return branch
    config = branch.config.tracked(dataclasses.replace(branch.config.tracking, parent=trunk))
    tags = branch.job.tags | {"mlflow.parentRunId": trunk}
    job = dataclasses.replace(branch.job, logger=plain_nodes(config.logger), tags=tags)
    return dataclasses.replace(branch, config=config, job=job)


def resume_from_trunk(tree: Branching, branch: Planned) -> bool:
    """Gives a branch that has not begun the trunk's checkpoint to resume from; False where there is none.

    Weights, optimiser, place in the data, random numbers and curves are the trunk's. The seal is written last: killed
    before it, the branch resumes from the trunk again.
    """
    trunk, target = tree.trunk.job, CheckpointFolder(branch.job.folder / "checkpoints")
    if target.steps():
        return True
    source = CheckpointFolder(trunk.folder / "checkpoints")
    if branch.branch_step not in source.steps():
        return False
    for path in (trunk.folder / "metrics.jsonl", source.path(branch.branch_step)):
        to = branch.job.folder / path.relative_to(trunk.folder)
        with atomic_file(to) as temporary:
            shutil.copyfile(path, temporary)
    seal = source.path(branch.branch_step).with_suffix(".json")
    write_json(target.path(branch.branch_step).with_suffix(".json"), load_table(seal))
    return True


def _planned(config: TrainStage, data: TokensResult) -> Planned:
    return Planned(config, plan_job(config, resolve_recipe(config, data), data))


def _with(config: TrainStage, whole: Recipe, tokens: int, warmup: float, scheduler: Node | None = None) -> TrainStage:
    """The settings of one token budget: what the whole run's recipe chose is common to all."""
    return dataclasses.replace(
        config,
        tokens=str(tokens),
        compute=None,
        data=dataclasses.replace(config.data, batch_size_tokens=whole.batch_size_tokens),
        optimizer=with_values(config.optimizer, lr=whole.learning_rate, weight_decay=whole.weight_decay),
        scheduler=with_values(scheduler or config.scheduler, branches=[], warmup=warmup),
    )


def _leaves(branch: Planned) -> int:
    """The last step of a branch after which the trunk's next step has the same rate: it was planned already then."""
    job = branch.job
    schedule = build_schedule(job.scheduler, job.spec.tokens, job.spec.warmup)
    return max(1, (schedule.warmup + schedule.stable) // job.spec.batch_size_tokens - 1)


def run_folders(tree: Branching) -> list[Path]:
    """Of the branches, by rising tokens."""
    return [branch.job.folder for branch in tree.branches]
