"""The stages of the pipeline, in order. Each is a short file that wires packages together.

This list is what the command line shows.
"""

import dataclasses
import importlib
import keyword
from typing import Any

from maquette.cli.command_line import config as settings
from maquette.cli.command_line import law_config, model_config


@dataclasses.dataclass(frozen=True)
class Stage:
    """One `maquette NAME`. `positional` is the list setting that takes plain words from the command line; all of them,
    options too, where they are `another_programs` (unless one asks for help first)."""

    name: str
    help: str
    config: type[settings.StageConfig]
    positional: str | None = None
    another_programs: bool = False

    @property
    def module(self) -> str:
        """Of its name, with an underscore where that is a word of Python."""
        return f"{self.name}_" if keyword.iskeyword(self.name) else self.name

    def run(self, chosen: settings.StageConfig, *shared: Any) -> Any:
        """Imports the stage (heavy) and runs it; `shared`: data that the jobs of a sweep have in common."""
        return importlib.import_module(f"maquette.cli.{self.module}").run(chosen, *shared)


_ALL = (
    Stage("corpus", "documents: read, curate, remove repetition, split", settings.CorpusToolStage),
    Stage("tokenizer", "train a tokenizer on the corpus and report on it", settings.TokenizerStage),
    Stage("tokens", "encode the corpus into checked, memory-mapped shards", settings.TokensStage),
    Stage("train", "train one model, or with -m a family of them", settings.TrainStage),
    Stage("profile", "where a step of training goes: time, FLOPs, memory, operators", settings.ProfileStage),
    Stage("annotate", "pairs of answers and who prefers which: labels and their report", model_config.AnnotateStage),
    Stage(
        "instruct", "new instructions that a model writes, from seed tasks: Self-Instruct", model_config.InstructStage
    ),
    Stage("alignment", "several runs from one recipe, compared: +experiment=, +sweep=", model_config.AlignmentStage),
    Stage("sample", "continue a prompt with a trained model", model_config.SampleStage, positional="prompts"),
    Stage(
        "next", "the next token: likeliest ones, and what sampling leaves", model_config.NextStage, positional="texts"
    ),
    Stage("chat", "talk to models in the browser, also blindly; an OpenAI endpoint", model_config.ChatStage),
    Stage("score", "log-probability of sentences under a model", model_config.ScoreStage, positional="sentences"),
    Stage("evaluate", "perplexity and questions, by every protocol, with intervals", model_config.EvaluateStage),
    Stage(
        "harness",
        "lm-evaluation-harness on a checkpoint: its own main, with its own options",
        model_config.HarnessStage,
        positional="arguments",
        another_programs=True,
    ),
    Stage("leaderboard", "evaluations side by side", model_config.LeaderboardStage),
    Stage(
        "compare",
        "win rates of models' completions, raw and length-controlled, and the judge's worth",
        model_config.CompareStage,
    ),
    Stage("ratings", "ratings of an arena's battles, with style and topics taken out", model_config.RatingsStage),
    Stage("runs", "list the runs in MLflow, or compare two: diff A B", law_config.RunsStage, positional="diff"),
    Stage("report", "one page that links all pages of these outputs, with what each says", settings.ReportStage),
    Stage("export", "write a run as a Hugging Face folder", model_config.ExportStage),
    Stage(
        "import", "read a Hugging Face folder or GGUF file (Llama, Mistral, Qwen2/3, GPT-2)", model_config.ImportStage
    ),
    Stage("fit", "laws from a sweep, or from anybody's table of runs", law_config.FitStage),
    Stage("predict", "write down what a bigger run will reach, before it is trained", law_config.PredictStage),
    Stage("verify", "the verdict on predictions, and the record over all of them", law_config.VerifyStage),
    Stage("backtest", "how good predictions were on tables whose larger runs are known", law_config.BacktestStage),
    Stage("plan", "so many GPUs for so many days: what to train, and what it costs", law_config.PlanStage),
    Stage("demo", "the whole pipeline on two cores in minutes, with a page to open", settings.DemoStage),
)

MULTIRUN = {"-m", "--multirun", "hydra.mode=MULTIRUN"}
"""The words that mean a sweep."""

STAGES = {stage.name: stage for stage in _ALL}
