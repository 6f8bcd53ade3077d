"""The stages of the road, in order. Each is a short file that wires rooms together.

This list is what the command line shows.
"""

import dataclasses
import importlib
from typing import Any

from maquette.stages import config


@dataclasses.dataclass(frozen=True)
class Stage:
    """One `maquette NAME`. `words` is the list setting that takes plain words from the command line."""

    name: str
    help: str
    config: type[config.StageConfig]
    module: str
    words: str | None = None

    def run(self, settings: config.StageConfig) -> Any:
        """Imports the stage (heavy) and runs it."""
        return importlib.import_module(f"maquette.stages.{self.module}").run(settings)


_ALL = (
    Stage("corpus", "documents: read, clean, remove repetition, split", config.CorpusStage, "corpus"),
    Stage("tokenizer", "train a tokenizer on the corpus and report on it", config.TokenizerStage, "tokenizer"),
    Stage("tokens", "encode the corpus into checked, memory-mapped shards", config.TokensStage, "tokens"),
    Stage("train", "train one model, or with -m a family of them", config.TrainStage, "train"),
    Stage("sample", "continue a prompt with a trained model", config.SampleStage, "sample", words="prompts"),
    Stage("score", "log-probability of sentences under a model", config.ScoreStage, "score", words="sentences"),
    Stage("runs", "list and compare the runs in MLflow", config.RunsStage, "runs"),
    Stage("export", "write a run as a Hugging Face folder", config.ExportStage, "export"),
    Stage("import", "read a Hugging Face folder (Llama, Qwen2/3, GPT-2)", config.ImportStage, "import_"),
    Stage("plan", "so many GPUs for so many days: what to train, and what it costs", config.PlanStage, "plan"),
    Stage("demo", "the whole road on two cores in minutes, with a page to open", config.DemoStage, "demo"),
)

STAGES = {stage.name: stage for stage in _ALL}
