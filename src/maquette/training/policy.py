"""A run of policy optimisation: prompts and a reward from above, rollouts and steps from the objective.

What is optimised for comes through a `FeedbackSource`, which the stage injects: this package does not know whether a
reward model or a task with a gold reward stands behind it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch import LightningDataModule

from maquette.artifacts.targets import import_target
from maquette.data.conversations import Prompt, PromptSource
from maquette.model import LanguageModel, ScalarModel
from maquette.objectives.completions import RewardFunction
from maquette.objectives.config import RolloutConfig
from maquette.objectives.rollouts import RolloutSchedule
from maquette.training.job import Job, ObjectivePlan, Opened, Row, describe_run_model, prepare_optimization
from maquette.training.micro_batch import forward_passes, rows_that_fit, share_of
from maquette.training.report import draw_curves

if TYPE_CHECKING:
    from maquette.text import Tokenizer


@dataclass(frozen=True)
class PolicyFeedback:
    """What a policy learns from, opened in one process. `measure(model, reference)` gives values of a policy on
    held-out prompts, by their names without `validation/`, the same in every process that trains it: all call it
    together and may share out the work. `held_out` are a few such prompts. `value_checkpoint`: the folder of `value`,
    None where it has none."""

    prompts: PromptSource
    reward: RewardFunction
    value: ScalarModel | None
    measure: Callable[[LanguageModel, LanguageModel], Mapping[str, float]]
    held_out: tuple[Prompt, ...]
    value_checkpoint: str | None = None


class FeedbackSource(Protocol):
    """Plain values that can go to another process, and there become a `PolicyFeedback`."""

    def open(self, tokenizer: "Tokenizer", context: int, max_completion_length: int) -> PolicyFeedback:
        """Raises `StageError` where a file is missing or damaged."""
        ...


class PolicyData(LightningDataModule):
    """Prompts and a reward. The policy completes them itself, so the module makes the batches."""

    def __init__(
        self,
        source: FeedbackSource,
        tokenizer: "Tokenizer",
        schedule: RolloutSchedule,
        *,
        context: int,
        max_completion_length: int,
    ) -> None:
        super().__init__()
        self.source, self.tokenizer, self.schedule = source, tokenizer, schedule
        self.context, self.max_completion_length = context, max_completion_length
        self.feedback: PolicyFeedback | None = None

    def setup(self, stage: str | None = None) -> None:
        """Raises `StageError` where a file is missing or damaged."""
        if self.feedback is None:
            self.feedback = self.source.open(self.tokenizer, self.context, self.max_completion_length)

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        policy: Any = self.trainer.lightning_module
        return policy.loader(self.schedule)

    def val_dataloader(self) -> list[int]:
        """One batch, which stands for all held-out prompts."""
        return [0]

    def describe(self, step: int) -> str:
        """What `step` (from 1) trained on."""
        return f"completions of iteration {(step - 1) // self.schedule.steps + 1}"


@dataclass(frozen=True)
class PolicyPlan(ObjectivePlan):
    """How a policy is optimised, and for what. `micro_batch_size`: completions of a forward pass; `accumulate`: forward
    passes of a minibatch; where both are None, as few as fit. `row_tokens`: what a prompt and its completion are
    expected to have at most; by default the whole context."""

    config: RolloutConfig
    feedback: FeedbackSource
    micro_batch_size: int | None = None
    accumulate: int | None = None
    row_tokens: int | None = None

    def schedule(self, processes: int, rows: int | None = None) -> RolloutSchedule:
        """An iteration of one of so many processes, with at most `rows` completions in a forward pass where the
        settings do not say how many. Raises `ConfigError` where its completions can't be shared out."""
        config, batch = self.config, self.config.rollout_batch_size
        whole, key = config.completions_per_prompt, "objective.rollout_batch_size"
        share, passes = share_of(batch, processes, f"{key}={batch}", key, whole=whole), self.accumulate
        if self.micro_batch_size is not None:  # without it the parts of a minibatch need not be alike
            passes = forward_passes(
                max(1, share // config.num_minibatches), "completions of a process's minibatch",
                micro_batch_size=self.micro_batch_size, accumulate=self.accumulate,
            )  # fmt: skip
        if passes is None and rows is not None:
            largest = -(-share // config.num_minibatches)
            # A forward pass at least for each; the smallest minibatch has one row (or pair) less than the largest.
            passes = min(-(-largest // rows), max(1, share // config.unit // config.num_minibatches))
        return RolloutSchedule(share, config.ppo_epochs, config.num_minibatches, passes or 1, config.unit, processes)

    def _rows_that_fit(self, job: Job) -> int:
        """Completions of a forward pass, through the policy and a value function with a core of its own."""
        architecture = job.spec.architecture
        tokens = min(self.row_tokens or architecture.max_position_embeddings, architecture.max_position_embeddings)
        rows = rows_that_fit(self.config.cores * architecture.numbers_per_token, tokens, job.hardware)
        minibatch = -(-self.config.rollout_batch_size // job.hardware.world_size // self.config.num_minibatches)
        return max(1, min(rows, minibatch // job.hardware.min_passes))

    def open(self, job: Job, tokenizer: "Tokenizer") -> Opened:
        assert job.spec.checkpoint is not None  # the stage asks for one
        schedule = self.schedule(job.hardware.world_size, self._rows_that_fit(job))
        data = PolicyData(
            self.feedback, tokenizer, schedule, context=job.spec.architecture.max_position_embeddings,
            max_completion_length=self.config.max_completion_length,
        )  # fmt: skip
        module = import_target(self.config._target_)(describe_run_model(job), prepare_optimization(job), self.config)
        return Opened(module, data, schedule.micro_batches, schedule.steps)

    def results(self, opened: Opened, last: Row, step: int) -> dict[str, Any]:
        assert isinstance(opened.data, PolicyData) and opened.data.feedback is not None
        left_out = getattr(opened.data.feedback.prompts, "left_out", None)  # those of a file that are too long
        counts = {} if left_out is None else {"prompts": {"too_long": left_out}}
        return {"facts": {"policy": dataclasses.asdict(self.config)} | counts}

    def draw(self, opened: Opened, history: list[Row], folder: Path, title: str) -> list[Path]:
        return [draw_curves(history, self.config.entry.curves, folder / "policy", title=title, rows=2)]
