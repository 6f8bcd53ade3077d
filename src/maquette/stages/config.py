"""The settings of every stage. Each step of the road knows the steps before it, so one command can take the whole road.

Composed by Hydra from `conf/`, checked against these dataclasses before anything heavy is imported.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import from_table, setting
from maquette.corpus.config import CorpusConfig, SourceConfig
from maquette.corpus.curation.config import CurationConfig, ExecutorConfig
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
from maquette.feedback.config import FeedbackConfig, PromptsConfig, RewardConfig, TaskInstructionsConfig
from maquette.model.config import ModelConfig
from maquette.objectives.config import OBJECTIVES, CustomObjectiveConfig, PretrainConfig
from maquette.optimization.config import (
    OPTIMIZERS,
    SCHEDULERS,
    AdamWConfig,
    LinearSchedulerConfig,
    check_optimization,
)
from maquette.recipe.rules import HyperparameterRules
from maquette.recipe.sweep_config import SweepConfig
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
        "parameters (core and head) of the model: the one dial from which the recipe sets the rest",
        quantity=True,
    )
    tokens: str | None = setting(
        None, "token budget, such as 6m; by default tokens_per_parameter x size", quantity=True
    )
    compute: str | None = setting(
        None, "training FLOPs, such as 1e13: sets the token budget instead of tokens", quantity=True
    )
    tokens_per_parameter: float = setting(
        20.0, "token budget per parameter where neither tokens nor compute is given", minimum=0.0
    )
    checkpoint: str | None = setting(
        None, "start from this exported folder or run, with its own tokenizer; latest: the newest run that fits"
    )
    prediction: str | None = setting(None, "train exactly the run of this prediction (maquette predict), and link both")
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
        PreferenceFilesConfig, "pairs of answers, one of them wanted", variants={"file": PreferenceFilesConfig}
    )
    prompts: PromptsConfig = setting(PromptsConfig, "what a policy answers")
    reward: RewardConfig = setting(RewardConfig, "what a policy is optimised for")
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
    num_validations: int = setting(
        10, "how often validation is run over the whole training (the end counts)", minimum=1
    )
    threads: int | None = setting(
        None, "threads of a process; by default one for narrow models, else a share of the cores", minimum=1
    )
    compile: str = setting(
        "auto", "torch.compile: auto decides by the run's expected length", choices=("auto", "on", "off")
    )
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
        return dataclasses.replace(self, logger=with_tracking(self.logger, tracking))

    def __post_init__(self) -> None:
        """Nodes with a `_target_` of a user's become typed too, and plain tables of ours."""
        objectives = {one()._target_: one for one in OBJECTIVES.values()}
        if isinstance(self.objective, Mapping) and (ours := objectives.get(self.objective.get("_target_", ""))):
            own = {key: value for key, value in self.objective.items() if key != "kind"}
            self.objective = from_table(ours, own, "objective")
        for name, usual, theirs in (
            ("objective", PretrainConfig, CustomObjectiveConfig),
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


@dataclass
class DemoStage(TrainStage):
    reach: float = setting(10.0, "the predicted model has so many times the largest budget's compute", minimum=1.0)


@dataclass
class PipelinesStage(TrainStage):
    trials: int = setting(10, "runs of the old way: settings that somebody might guess, the best is kept", minimum=2)


@dataclass
class HallucinationStage(RecordedStage):
    seed: int = setting(0, "seed of the world, of weights and of the order of data", minimum=0)
    people: int = setting(256, "people whom the pretraining text tells of", minimum=8, maximum=2000)
    repeats: int = setting(40, "how often the text says each of its sentences", minimum=1)
    size: str = setting("200k", "parameters of the model", quantity=True)
    tokens: str = setting("3m", "token budget of pretraining", quantity=True)
    epochs: float = setting(12.0, "how often fine-tuning sees each of its questions", minimum=0.1)
    shares: list[float] = setting(
        lambda: [0.0, 0.25, 0.5, 1.0], "shares of the answers in fine-tuning that no text has told of"
    )


@dataclass
class AnnotateStage(RecordedStage):
    checkpoint: str | None = setting(
        None, "policy whose answers are judged: run or exported folder; by default the latest finished run"
    )
    given: str | None = setting(None, "judge the pairs of this preference file instead of sampling any")
    prompts: PromptsConfig = setting(PromptsConfig, "what is answered")
    count: int = setting(2000, "prompts", minimum=1)
    first: int = setting(0, "skip so many prompts", minimum=0)
    answers: int = setting(2, "answers sampled to each prompt; the first is judged against the second and so on",
                           minimum=2)  # fmt: skip
    max_completion_length: int = setting(20, "tokens of an answer at most", minimum=1)
    temperature: float = setting(1.0, "of sampling", minimum=0.01)
    feedback: FeedbackConfig = setting(FeedbackConfig, "who judges")
    repeats: int = setting(9, "simulated people label each pair so many times for the report", minimum=1)
    add: list[str] = setting(list, "preference files whose labels are put before the new ones")
    name: str | None = setting(None, "name of the artifact; by default the annotator and a digest")
    seed: int = setting(0, "seed of sampling", minimum=0)


@dataclass
class AlignmentStage(RecordedStage):
    title: str = setting("Alignment", "heading of the page")
    base: dict[str, Any] = setting(dict, "train: the base model; empty: the model of maquette demo")
    sft: dict[str, Any] = setting(dict, "train: the fine-tuned model, the reference of all policies")
    labels: dict[str, Any] = setting(dict, "annotate: preferences between the fine-tuned model's answers")
    reward: dict[str, Any] = setting(dict, "train: each reward model")
    dpo: dict[str, Any] = setting(dict, "train: each DPO policy")
    ppo: dict[str, Any] = setting(dict, "train: each PPO policy")
    reward_limits: dict[str, int] = setting(dict, "a reward model of so many labels by each name; empty: one of all")
    betas: list[float] = setting(list, "a DPO policy with each beta")
    kl_coefficients: list[float] = setting(list, "a PPO policy with each KL penalty coefficient and reward model")
    group: bool = setting(False, "PPO within groups, too")
    ppo_free: dict[str, Any] = setting(dict, "train: PPO without a KL penalty, too; empty: none")
    ppo_gold: dict[str, Any] = setting(dict, "train: PPO on the gold reward, too; empty: none")
    figures: list[str] = setting(list, "figures to draw: gold, frontier, overoptimisation, length")
    tasks: list[str] = setting(lambda: ["pick"], "tasks whose held-out prompts policies are measured on")
    prompts: int = setting(500, "held-out prompts", minimum=2)
    max_completion_length: int = setting(20, "tokens of an answer at most", minimum=1)
    best_of: int = setting(16, "answers of the reference for best-of-n; 1: none", minimum=1)
    seed: int = setting(0, "seed of sampling, and of every run", minimum=0)


@dataclass
class WritingStage(StageConfig):
    """What stages have that let a model write."""

    temperature: float = setting(0.8, "0 is greedy", minimum=0.0)
    top_k: int | None = setting(None, "sample among so many of the likeliest tokens", minimum=1)
    top_p: float | None = setting(
        0.95, "sample among the likeliest tokens that hold this probability", minimum=0.0, maximum=1.0
    )
    min_p: float | None = setting(
        None, "leave out tokens less likely than this share of the likeliest", minimum=0.0, maximum=1.0
    )


@dataclass
class SampleStage(WritingStage):
    checkpoint: str | None = setting(None, "run or exported folder; by default the latest finished run")
    prompts: list[str] = setting(list, "texts to continue (also: plain words on the command line)")
    chat: bool | None = setting(
        None, "prompts are requests to an assistant; by default what the run was trained for (sft, dpo, ppo)"
    )
    count: int = setting(1, "samples of each prompt", minimum=1)
    max_tokens: int = setting(200, "tokens to generate at most", minimum=1)
    repetition_penalty: float = setting(1.0, "divides the logits of tokens already used", minimum=0.1)
    stop: list[str] = setting(list, "stop at any of these strings")
    seed: int = setting(0, "seed of sampling", minimum=0)


@dataclass
class ChatStage(WritingStage):
    checkpoint: str | None = setting(None, "run or exported folder; by default the latest finished run")
    models: list[str] = setting(list, "several runs or folders, which then also meet in the arena")
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 lets other machines in")
    port: int = setting(8000, "port to listen on; 0: any free one", minimum=0, maximum=65535)

    def validate(self) -> None:
        """Raises `ConfigError` for both ways of naming models at once."""
        if self.models and self.checkpoint is not None:
            raise ConfigError("checkpoint and models are both given.", "Name all of them in models=[...].")


@dataclass
class ScoreStage(StageConfig):
    checkpoint: str | None = setting(None, "run or exported folder; by default the latest finished run")
    file: str | None = setting(None, "file with one sentence a line (also: plain sentences on the command line)")
    sentences: list[str] = setting(list, "sentences to score")
    json: bool = setting(False, "print JSON instead of a table (also: --json)")


@dataclass
class EvaluateStage(RecordedStage):
    checkpoint: str | None = setting(None, "run or exported folder; by default the latest finished run")
    corpus: str | None = setting(None, "corpus whose held-out documents are used; by default the run's own")
    suite: SuiteConfig = setting(SuiteConfig, "what is asked")
    protocol: ProtocolConfig = setting(ProtocolConfig, "how it is asked")

    def validate(self) -> None:
        """Raises `ConfigError` where nothing is asked."""
        if self.suite.empty:
            raise ConfigError("The suite is empty.", "Give suite.files, suite.embedded or suite.likelihood.")


@dataclass
class LeaderboardStage(RecordedStage):
    suite: str | None = setting(None, "show this suite alone")
    json: bool = setting(False, "print JSON instead of tables (also: --json)")


@dataclass
class CompareStage(RecordedStage):
    models: list[str] = setting(list, "models whose answers are compared: runs or exported folders, two or more")
    baseline: str | None = setting(None, "the one of them that the others are compared with; by default the first")
    prompts: PromptsConfig = setting(PromptsConfig, "what they answer: held-out prompts of tasks, or a file's")
    count: int = setting(200, "prompts at most", minimum=2)
    max_completion_length: int = setting(20, "tokens of an answer at most", minimum=1)
    temperature: float = setting(1.0, "of sampling; 0 is greedy", minimum=0.0)
    feedback: FeedbackConfig = setting(FeedbackConfig, "who judges")
    level: float = setting(0.9, "coverage of intervals", minimum=0.5, maximum=0.999)
    seed: int = setting(0, "seed of sampling and of the resamples", minimum=0)
    json: bool = setting(False, "print JSON instead of a table (also: --json)")

    def validate(self) -> None:
        """Raises `ConfigError` for a baseline that is none of the models, or a model named twice."""
        if len(set(self.models)) < len(self.models):
            raise ConfigError("A model is named twice.", "Name each once.")
        if self.baseline is not None and self.baseline not in self.models:
            raise ConfigError(f"baseline={self.baseline} is none of the models.", f"Models: {', '.join(self.models)}.")


@dataclass
class RatingsStage(RecordedStage):
    battles: str | None = setting(None, "file with model_a, model_b, winner a row: JSONL, CSV or Parquet")
    topics: dict[str, float] = setting(
        dict, "shares by which topics are re-weighted: topics.code=0.5; by default all alike"
    )
    bootstrap: int = setting(200, "resamples behind each interval", minimum=20)
    level: float = setting(0.9, "coverage of intervals", minimum=0.5, maximum=0.999)
    seed: int = setting(0, "seed of the resamples", minimum=0)
    json: bool = setting(False, "print JSON instead of a table (also: --json)")


@dataclass
class ExportStage(StageConfig):
    checkpoint: str | None = setting(None, "run to export; by default the latest finished run")
    to: str | None = setting(None, "folder to write; by default <outputs>/export/<run>")


@dataclass
class ImportStage(StageConfig):
    path: str | None = setting(None, "Hugging Face folder: Llama, Qwen2/3 or GPT-2, safetensors")
    name: str | None = setting(None, "name of the artifact; by default the folder's")


@dataclass
class RunsStage(RecordedStage):
    filter: str | None = setting(None, "MLflow filter, such as \"params.size = '300k'\"")
    columns: list[str] = setting(list, "metrics and parameters to show; by default the main ones")
    limit: int = setting(20, "newest runs to show", minimum=1)
    json: bool = setting(False, "print JSON instead of a table (also: --json)")


@dataclass
class FitStage(RecordedStage):
    runs: str | None = setting(
        None,
        "a sweep (name or MLflow run id; several with + between), an MLflow filter, or a CSV file with N, D and loss; "
        "by default the newest sweep",
    )
    name: str | None = setting(None, "name of the artifact (and of the recipe); by default after the runs")
    form: str | None = setting(
        None,
        "force a form instead of choosing by extrapolation; told what it costs",
        choices=("minima", "kaplan", "additive", "general"),
        own=True,
    )
    forms: list[str] = setting(list, "forms of your own that take part, each as package.module.Name")
    convention: str = setting(
        "exact",
        "exact: N counts core and head, C is exact; kaplan: N counts the core, C = 6 N D",
        choices=("exact", "kaplan"),
    )
    laws: str | None = setting(
        None,
        "another law than that of the loss: of a setting (writes a recipe), of epochs, or of mixtures",
        choices=("learning_rate", "batch", "repetition", "mixture"),
    )
    max_epochs: float = setting(4.0, "laws=mixture: no domain is read more often by the best mixture", minimum=0.1)
    targets: dict[str, float] = setting(
        dict, "laws=mixture: what each domain's held-out loss counts, such as {code: 2, docs: 1}; by default the same"
    )
    verify: bool = setting(False, "laws=mixture: train the best mixture as its runs were, and tell whether it holds")
    compare: str | None = setting(
        None, "compare families by this column, such as model.kind+model.activation: offset or slope?"
    )
    without: list[str] = setting(list, "names of runs to leave out")
    suggest: int = setting(0, "print so many next runs that narrow a prediction most per FLOP", minimum=0)
    size: str | None = setting(None, "the prediction that suggest is to narrow: its size", quantity=True)
    tokens: str | None = setting(None, "its tokens", quantity=True)
    compute: str | None = setting(
        None, "or its compute; by default ten times the largest budget, at the best size", quantity=True
    )
    affordable: str | None = setting(
        None, "FLOPs of a suggested run at most; by default the largest budget", quantity=True
    )
    bootstrap: int = setting(200, "resamples for intervals", minimum=100)
    level: float = setting(0.9, "coverage of the intervals", minimum=0.5, maximum=0.99)
    seed: int = setting(0, "seed of the resamples", minimum=0)
    json: bool = setting(False, "print JSON instead of tables (also: --json)")


@dataclass
class PredictStage(RecordedStage):
    fit: str | None = setting(None, "the fit to predict by (name or folder); by default the newest")
    size: str | None = setting(None, "parameters of the run; by default the best for compute", quantity=True)
    tokens: str | None = setting(None, "its token budget", quantity=True)
    compute: str | None = setting(None, "its training FLOPs, such as 1e14, instead of tokens", quantity=True)
    form: str | None = setting(None, "predict by another form of the fit than the one that it leads with")
    seed: int | None = setting(None, "seed of the run; by default that of the fit's runs", minimum=0)
    json: bool = setting(False, "print JSON (also: --json)")


@dataclass
class VerifyStage(RecordedStage):
    prediction: str | None = setting(None, "the prediction to judge (its id); by default all of them")
    json: bool = setting(False, "print JSON (also: --json)")


@dataclass
class PlanStage(StageConfig):
    preset: str | None = setting(None, "a known model's assumptions to start from", choices=("llama3_405b",))
    surface: str = setting(
        "besiroglu_2024",
        "the loss surface to plan on: besiroglu_2024, hoffmann_2022, muennighoff_2023, kaplan_2020, or your own fit "
        "(its name, or latest)",
    )
    gpus: float | None = setting(None, "accelerators (10,000)", minimum=1)
    gpu: str | None = setting(None, "their kind: v100, a100, h100, h200, b200, mi300x (h100)")
    days: float | None = setting(None, "days of training (30)", minimum=0)
    params: str | None = setting(None, "cost this model instead of the best one: its parameters", quantity=True)
    utilization: float | None = setting(None, "MFU: share of the peak that is reached (0.4)", minimum=0, maximum=1)
    tokens: str | None = setting(None, "and its training tokens", quantity=True)
    tokens_per_parameter: float | None = setting(
        None,
        "cost the model with so many tokens a parameter at this compute, and say what served volume asks for it",
        minimum=0,
    )
    tokens_available: str | None = setting(None, "distinct tokens there are; more is repetition", quantity=True)
    tokens_served: str | None = setting(None, "tokens the model will generate and read in its life", quantity=True)
    token_price: float | None = setting(None, "dollars for a million more distinct tokens (1)", minimum=0)
    price: float | None = setting(None, "dollars for an accelerator-hour; by default the accelerator's own", minimum=0)
    people: float | None = setting(None, "people (50)", minimum=0)
    salary: float | None = setting(None, "dollars for a person and year (500,000)", minimum=0)
    staff_years: float | None = setting(None, "years they work on it (1)", minimum=0)
    overhead: float | None = setting(None, "PUE: the data centre's energy over the accelerators' (1.1)", minimum=1)
    kilograms_per_kwh: float | None = setting(None, "kg of CO2e for a kWh (0.4)", minimum=0)
    pipeline: str | None = setting(
        None, "compare: thirty one-day models against three days of small ones and one of 27", choices=("compare",)
    )
    json: bool = setting(False, "print JSON instead of a table (also: --json)")
