"""`scheduler=wsd scheduler.branches=[...]`: one trunk serves every token budget (Hu et al. 2024; Haegele et al. 2024).

The trunk warms up and stays at the peak rate. Each budget is a run of its own, `scheduler=wsd` over its own tokens,
that starts from the trunk's checkpoint where its cooldown begins. Up to there the two are the same run, bit for bit:
the same batches, rate and warm-up; so a branch is what it would have been alone, for the price of its cooldown.

What it is not is a run with a schedule made for its length (linear to zero from the start), which ends 0.5 to 5% better
at small budgets; a sweep measures that on one size (`sweep.bias`).
"""

import dataclasses
import shutil

from maquette.artifacts import ConfigError
from maquette.artifacts.files import atomic_file, atomic_folder, write_json
from maquette.artifacts.reading import load_table
from maquette.artifacts.settings import parse_quantity
from maquette.artifacts.targets import Node, with_values
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning.pretraining import PlannedRun, plan_pretraining, resolve_recipe
from maquette.data.token_artifacts import TokensResult
from maquette.optimization.config import ConstantSchedulerConfig, WSDSchedulerConfig, short_name
from maquette.recipe.pretraining import Recipe

TRUNK = "trunk"
"""The kind of a run that serves others: no point of a law."""


@dataclasses.dataclass(frozen=True)
class PlannedBranch(PlannedRun):
    """A run that leaves the trunk after `branch_step` steps."""

    branch_step: int = 0

    @property
    def cooldown_tokens(self) -> int:
        """What it trains beyond the trunk."""
        return self.spec.tokens - self.branch_step * self.spec.batch_size_tokens


@dataclasses.dataclass(frozen=True)
class Branching:
    """The trunk, and its branches by rising tokens; the last one is the run that the settings name."""

    trunk: PlannedRun
    branches: tuple[PlannedBranch, ...]

    @property
    def tokens(self) -> int:
        """What is trained in all."""
        return self.trunk.spec.tokens + sum(branch.cooldown_tokens for branch in self.branches)


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
    branches = [_branch(_with(config, whole, tokens, warmup / tokens), data) for tokens in budgets]
    if branches[0].branch_step * whole.batch_size_tokens < warmup:
        raise ConfigError(
            f"The shortest of scheduler.branches, {budgets[0]:,} tokens, cools down before it is warm.",
            "Leave it out, or shorten scheduler.warmup or scheduler.decay.",
        )
    # One step further than the last branch needs: the checkpoint of a last step says that training is over.
    length = (branches[-1].branch_step + 1) * whole.batch_size_tokens
    trunk = plan_pretraining(_with(config, whole, length, warmup / length, ConstantSchedulerConfig()), data)
    leaving = frozenset(branch.branch_step for branch in branches)
    return Branching(dataclasses.replace(trunk, kept_steps=leaving, tags={"kind": TRUNK}), tuple(branches))


def below(trunk: str | None, branch: PlannedBranch) -> PlannedBranch:
    """The branch as a child of the trunk's run in MLflow."""
    if trunk is None:
        return branch
    tracking = dataclasses.replace(branch.config.tracking, parent=trunk)
    return dataclasses.replace(branch, config=branch.config.tracked(tracking))


def resume_from_trunk(tree: Branching, branch: PlannedBranch) -> bool:
    """Gives a branch that has not begun the trunk's checkpoint to resume from; False where there is none.

    Weights, optimiser, place in the data, random numbers and curves are the trunk's. The seal is written last: killed
    before it, the branch resumes from the trunk again.
    """
    from maquette.training.checkpoint_io import CheckpointFolder

    trunk, target = tree.trunk, CheckpointFolder(branch.folder / "checkpoints")
    if target.steps():
        return True
    source = CheckpointFolder(trunk.folder / "checkpoints")
    if branch.branch_step not in source.steps():
        return False
    for path in (trunk.folder / "metrics.jsonl", source.path(branch.branch_step)):
        to = branch.folder / path.relative_to(trunk.folder)
        if path.is_dir():  # of sharded weights
            with atomic_folder(to, lambda folder: (folder / "rest.pt").exists()) as copy:
                shutil.copytree(path, copy, dirs_exist_ok=True)
            continue
        with atomic_file(to) as temporary:
            shutil.copyfile(path, temporary)
    seal = source.path(branch.branch_step).with_suffix(".json")
    write_json(target.path(branch.branch_step).with_suffix(".json"), load_table(seal))
    return True


def _branch(config: TrainStage, data: TokensResult) -> PlannedBranch:
    """It leaves after the last step after which the trunk's next one has the same rate: it was planned already then."""
    from maquette.optimization import build_schedule

    run = plan_pretraining(config, data)
    schedule = build_schedule(config.scheduler, run.spec.tokens, run.spec.warmup)
    step = max(1, (schedule.warmup + schedule.stable) // run.spec.batch_size_tokens - 1)
    return PlannedBranch(config, run.spec, run.plan, branch_step=step)


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
