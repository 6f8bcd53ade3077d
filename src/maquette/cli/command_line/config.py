"""Settings of the stages from documents to a trained model, and what those of all stages have in common.

Each stage has the settings of the stages before it, so one command can run them all. Composed by Hydra from `conf/`,
checked against these dataclasses before anything heavy is imported. model_config.py and law_config.py have the rest.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import from_table, setting
from maquette.artifacts.targets import node_value
from maquette.corpus.config import CorpusConfig, CurationConfig, ExecutorConfig, SourceConfig
from maquette.data.config import (
    CustomDataConfig,
    DataConfig,
    ExamplesConfig,
    InstructionFilesConfig,
    MixtureConfig,
    PreferenceFilesConfig,
    PretokenizedConfig,
    ShardsConfig,
)
from maquette.evaluation.config import ProtocolConfig, SuiteConfig, no_suite
from maquette.feedback.config import PromptsConfig, RewardConfig, TaskInstructionsConfig
from maquette.model.config import ACTIVATION_CHECKPOINTING, ModelConfig
from maquette.objectives.config import OBJECTIVES, PretrainConfig, objective_of
from maquette.optimization.config import (
    OPTIMIZERS,
    SCHEDULERS,
    AdamWConfig,
    LinearSchedulerConfig,
    check_optimization,
)
from maquette.recipe.rules import HyperparameterRules, SweepConfig
from maquette.text.config import TokenizerConfig
from maquette.tracking.config import MLflowLoggerConfig, TrackingConfig, tracking_of, with_tracking
from maquette.training.config import CALLBACKS, PrecisionConfig, TrainerConfig


@dataclass
class StageConfig:
    """What every stage has."""

    outputs: str = setting("outputs", "folder for everything that is written")
    force: bool = setting(False, "do it again although it is already done")


@dataclass
class RecordedStage(StageConfig):
    """What stages have that are recorded in MLflow, or read what is."""

    tracking: TrackingConfig = setting(TrackingConfig, "record in MLflow")

    def tracked(self, tracking: TrackingConfig) -> Self:
        """The same, recorded where `tracking` says."""
        return dataclasses.replace(self, tracking=tracking)


@dataclass
class SeededStage(StageConfig):
    """What stages have that draw: samples, resamples, data."""

    seed: int = setting(0, "seed of sampling and of resamples", minimum=0)


@dataclass
class PrintedStage(StageConfig):
    """What stages have that print tables."""

    json: bool = setting(False, "print JSON instead of tables (also: --json)")


@dataclass
class ReportStage(PrintedStage):
    """The pages of an outputs folder."""


@dataclass
class ModelStage(StageConfig):
    """What stages have that use a trained model."""

    checkpoint: str | None = setting(None, "run or exported folder; by default the latest finished run")


@dataclass
class CorpusStage(StageConfig):
    source: SourceConfig = setting(SourceConfig, "where documents come from")
    corpus: CorpusConfig = setting(CorpusConfig, "what is kept of them")
    curation: CurationConfig = setting(CurationConfig, "which pages of a crawl are worth training on")
    executor: ExecutorConfig = setting(ExecutorConfig, "where the work on a crawl is done")


@dataclass
class CorpusToolStage(CorpusStage):
    explain: str | None = setting(None, "tell the story of the document with this id or address")


@dataclass
class TokenizerStage(CorpusStage):
    tokenizer: TokenizerConfig = setting(TokenizerConfig, "how text becomes tokens")


@dataclass
class TokensStage(TokenizerStage):
    shards: ShardsConfig = setting(ShardsConfig, "token files")
    pretokenized: PretokenizedConfig = setting(
        PretokenizedConfig, "tokens that are there already, instead of source, corpus, tokenizer and shards"
    )


@dataclass
class TrainStage(TokensStage):
    seed: int = setting(0, "seed of the initial weights and of the order of data", minimum=0)
    size: str = setting(
        "300k",
        "parameters (core and head): the one dial from which the recipe sets the rest",
        quantity=True,
    )
    tokens: str | None = setting(
        None, "token budget, such as 6m; by default tokens_per_parameter x size", quantity=True
    )
    compute: str | None = setting(
        None, "training FLOPs, such as 1e13: sets the token budget instead of tokens", quantity=True
    )
    tokens_per_parameter: float | None = setting(
        None,
        "tokens per parameter where neither is given: 20; in the middle of a sweep's curves the expected best",
        minimum=0.0,
    )
    checkpoint: str | None = setting(
        None, "start from this exported folder or run, with its own tokenizer; latest: the newest run that fits"
    )
    prediction: str | None = setting(None, "train the run of this prediction")
    recipe: HyperparameterRules = setting(
        HyperparameterRules, "from size to every hyperparameter: constants, or a file that a fit has written"
    )
    objective: Any = setting(PretrainConfig, "what is trained for", variants=OBJECTIVES)
    instructions: ExamplesConfig = setting(
        InstructionFilesConfig,
        "conversations to imitate",
        variants={"file": InstructionFilesConfig, "task": TaskInstructionsConfig},
    )
    preferences: ExamplesConfig = setting(
        PreferenceFilesConfig, "pairs of completions, one of them chosen", variants={"file": PreferenceFilesConfig}
    )
    prompts: PromptsConfig = setting(PromptsConfig, "what a policy completes")
    reward: RewardConfig = setting(RewardConfig, "what a policy is optimised for")
    adapter: Any = setting(None, "lora, or a config class of peft's")
    model: Any = setting(ModelConfig, "architecture", variants={"transformer": ModelConfig, "lstm": ModelConfig})
    mixture: MixtureConfig = setting(MixtureConfig, "which text, in which shares")
    data: Any = setting(DataConfig, "sequences and batches", variants={"pretrain": DataConfig})
    # Any: beside ours anyone's, by its `_target_`
    optimizer: Any = setting(AdamWConfig, "optimiser", variants=OPTIMIZERS)
    scheduler: Any = setting(LinearSchedulerConfig, "learning rate schedule", variants=SCHEDULERS)
    precision: PrecisionConfig = setting(PrecisionConfig, "number format")
    trainer: TrainerConfig = setting(TrainerConfig, "lightning.Trainer, all its arguments")
    callbacks: Any = setting(dict, "Lightning callbacks by name, each with its _target_", items=CALLBACKS)
    logger: Any = setting(
        dict, "Lightning loggers by name, each with its _target_", items={"mlflow": MLflowLoggerConfig}
    )
    num_validations: int = setting(10, "validations over the training, with the end", minimum=1)
    threads: int | None = setting(
        None, "threads of a process; by default one for narrow models, else a share of the cores", minimum=1
    )
    compile: str = setting(
        "auto", "torch.compile: auto decides by the run's expected length", choices=("auto", "on", "off")
    )
    activation_checkpointing: str = setting(
        "none",
        "compute them again in the backward pass",
        choices=ACTIVATION_CHECKPOINTING,
    )
    tensor_parallel_size: int = setting(1, "fsdp: processes that share each matrix", minimum=1)
    expert_parallel_size: int = setting(1, "fsdp, moe: processes that share experts", minimum=1)
    suite: SuiteConfig = setting(no_suite, "what the trained model is asked when it is done")
    protocol: ProtocolConfig = setting(ProtocolConfig, "how it is asked")
    sweep: SweepConfig = setting(SweepConfig, "with -m: which runs belong together (+sweep=isoflop sets it)")

    @property
    def tracking(self) -> TrackingConfig:
        """Where the run's loggers keep its record in MLflow; a sweep and an evaluation go there too."""
        return tracking_of(self.logger, self.outputs)

    @property
    def starting_folder(self) -> Path | None:
        """The folder whose weights are the initial ones; None where the model starts from scratch. After pretraining,
        `latest` is the newest run of what comes before the objective, so that the same words mean the same run again.

        Raises `ConfigError` where `checkpoint` names nothing."""
        from maquette.model.loading import find_checkpoint, latest_run

        before = self.objective.entry.starts_from
        if self.checkpoint == "latest" and before:
            return latest_run(self.outputs, before)
        return None if self.checkpoint is None else find_checkpoint(self.checkpoint, self.outputs)

    def tracked(self, tracking: TrackingConfig) -> Self:
        """The same run, recorded where `tracking` says."""
        return dataclasses.replace(self, logger=with_tracking(self.logger, tracking, self.outputs))

    def __post_init__(self) -> None:
        """Nodes with a `_target_` of a user's become typed too, and plain tables of ours."""
        if isinstance(self.objective, Mapping):
            self.objective = objective_of(self.objective)
        for name, usual, theirs in (
            ("model", ModelConfig, ModelConfig),
            ("data", DataConfig, CustomDataConfig),
        ):
            node = getattr(self, name)
            if isinstance(node, Mapping) and "_target_" in node:
                setattr(self, name, theirs.of_target(node))
            elif isinstance(node, Mapping):
                setattr(self, name, from_table(usual, node, name))

    def validate(self) -> None:
        """Raises `ConfigError` for an optimiser or a scheduler that can't work here."""
        check_optimization(self.optimizer, self.scheduler)
        if node_value(self.scheduler, "branches") and (self.prediction or not self.objective.entry.branches):
            raise ConfigError(
                "scheduler.branches makes several pretraining runs.",
                "Leave it out with a prediction or another objective.",
            )


@dataclass
class ProfileStage(TrainStage, PrintedStage):
    profile_steps: int = setting(10, "steps that are timed; twice, and six around them", minimum=1)


@dataclass
class DemoStage(TrainStage):
    reach: float = setting(10.0, "the predicted model has so many times the largest budget's compute", minimum=1.0)

    def validate(self) -> None:
        """Raises `ConfigError` without text to measure, or budgets to train a family at."""
        super().validate()
        if self.pretokenized.path is not None:
            raise ConfigError("The demo measures text, and pretokenized has none.", "Leave pretokenized.path out.")
        if not self.sweep.budgets:
            raise ConfigError("The demo needs budgets to train a family at.", "Set sweep.budgets=[1e11,3e11,1e12].")
