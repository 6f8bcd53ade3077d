"""Settings of the stages that use a trained model: what it writes, how it is judged, compared and handed on."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import check, from_table, setting
from maquette.cli.command_line.config import ModelStage, PrintedStage, RecordedStage, SeededStage, StageConfig
from maquette.evaluation.config import ProtocolConfig, SuiteConfig
from maquette.feedback.config import CAPTIONS, AuthorConfig, FeedbackConfig, PromptsConfig


@dataclass
class AnnotateStage(RecordedStage, SeededStage):
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
    judges: dict[str, dict[str, Any]] = setting(
        dict, "others who judge the same pairs, for the report: {cheap: {noise: 0.6}, big: {kind: language_model, ...}}"
    )
    repeats: int = setting(9, "simulated people label each pair so many times for the report", minimum=1)
    add: list[str] = setting(list, "preference files whose labels are put before the new ones")
    labels: int | None = setting(None, "label so many of the pairs; by default all", minimum=1)
    choose: str = setting(
        "random", "which of them: any, those that reward models are least sure of, or those they differ on",
        choices=("random", "uncertainty", "disagreement"),
    )  # fmt: skip
    rewards: list[str] = setting(
        list, "the reward models that choose: one or more for uncertainty, two for disagreement"
    )
    name: str | None = setting(None, "name of the artifact; by default the annotator and a digest")

    def validate(self) -> None:
        """Raises `ConfigError` where nobody can choose, or there is nothing to choose."""
        for name, judge in self.judges.items():
            if name == "gold":
                raise ConfigError("judges.gold: gold is in the report anyway.", "Leave it out.")
            check(from_table(FeedbackConfig, judge, f"judges.{name}"), f"judges.{name}.")
        least = {"random": 0, "uncertainty": 1, "disagreement": 2}.get(self.choose, 0)
        if len(self.rewards) < least:
            raise ConfigError(
                f"choose={self.choose} needs {'a reward model' if least == 1 else 'two reward models or more'}.",
                "Name runs of objective=reward: rewards=[run-a,run-b].",
            )
        if self.labels is None and (least or self.rewards):
            raise ConfigError(f"choose={self.choose} has nothing to choose.", "Say how many are labelled: labels=500.")
        if self.rewards and not least:
            raise ConfigError("rewards has no effect on a random choice.", "Add choose=uncertainty or disagreement.")

    def beside(self) -> dict[str, FeedbackConfig]:
        """The settings of the judges beside the one who gives the labels."""
        return {name: from_table(FeedbackConfig, judge, f"judges.{name}") for name, judge in self.judges.items()}

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is preferred, not where things lie."""
        without = ("outputs", "force", "tracking", "name", "checkpoint", "given", "add", "rewards")
        settings = {key: value for key, value in dataclasses.asdict(self).items() if key not in without}
        settings["feedback"] = self.feedback.identity("checkpoint", "path")
        del settings["prompts"]["path"], settings["judges"]
        if self.judges:
            settings["judges"] = {name: one.identity() for name, one in self.beside().items()}
        if self.labels is None:  # as artifacts were named before there was a choice
            del settings["labels"], settings["choose"]
        return settings


@dataclass
class InstructStage(RecordedStage, SeededStage):
    author: AuthorConfig = setting(AuthorConfig, "the model that writes")
    seeds: str | None = setting(None, "JSON lines of seed tasks: instruction, input, output; by default 175 of our own")
    count: int = setting(100, "go on until so many tasks are kept", minimum=1)
    requests: int = setting(200, "ask so many times at most", minimum=1)
    tasks_per_request: int = setting(5, "new tasks asked for at once", minimum=1)


@dataclass
class AlignmentStage(RecordedStage, SeededStage):
    title: str = setting("Alignment", "heading of the page")
    checkpoint: str | None = setting(None, "the base model, instead of training one: run, folder or imported model")
    base: dict[str, Any] = setting(dict, "train: the base model; empty: checkpoint, or the model of maquette demo")
    sizes: list[str] = setting(list, "a study at each size of the base model, and a page over them; empty: one study")
    sft: dict[str, Any] = setting(dict, "train: the fine-tuned model, the reference of all policies")
    labels: dict[str, Any] = setting(dict, "annotate: preferences between the fine-tuned model's completions")
    reward: dict[str, Any] = setting(dict, "train: each reward model; empty: none, PPO has a reward of its own")
    dpo: dict[str, Any] = setting(dict, "train: each DPO policy")
    ppo: dict[str, Any] = setting(dict, "train: each PPO policy")
    reward_limits: dict[str, int] = setting(dict, "a reward model of so many labels by each name; empty: one of all")
    ensemble: int = setting(
        1, "reward models of each kind, of other seeds: how far they disagree on a policy is measured", minimum=1
    )
    betas: list[float] = setting(list, "a DPO policy with each beta")
    kl_coefficients: list[float] = setting(list, "a PPO policy with each KL penalty coefficient and reward model")
    group: bool = setting(False, "PPO within groups, too")
    ppo_free: dict[str, Any] = setting(dict, "train: PPO without a KL penalty, too; empty: none")
    ppo_gold: dict[str, Any] = setting(dict, "train: PPO on the gold reward, too; empty: none")
    corpus: dict[str, Any] = setting(dict, "corpus: whose held-out documents evaluate reads; empty: the base model's")
    evaluate: dict[str, Any] = setting(dict, "evaluate: what each policy keeps of the rest; empty: not evaluated")
    figures: list[str] = setting(list, "figures to draw: gold, frontier, overoptimisation, signals, length")
    tasks: list[str] = setting(lambda: ["pick"], "tasks whose held-out prompts policies are measured on")
    prompts: int = setting(500, "held-out prompts", minimum=2)
    max_completion_length: int = setting(20, "tokens of an answer at most", minimum=1)
    best_of: int = setting(16, "completions of the reference for best-of-n; 1: none", minimum=1)

    def require_study(self) -> None:
        """Raises `ConfigError` where no study is chosen, there are two base models, PPO has no reward, or a figure is
        not known."""
        if not self.sft:
            raise ConfigError("there is nothing to run.", "Choose a study: maquette alignment +experiment=alignment.")
        if self.base and self.checkpoint is not None:
            raise ConfigError(f"checkpoint={self.checkpoint} stands beside a base model to train.", "Leave one out.")
        if self.sizes and not self.base:
            raise ConfigError("sizes has no effect on a model that is there already.", "Give base={...} to train one.")
        if self.kl_coefficients and not self.reward and not self.ppo.get("reward"):
            raise ConfigError("PPO has no reward.", "Give reward={...} to train one, or ppo.reward.callable.")
        for figure in self.figures:
            if figure not in CAPTIONS:
                raise ConfigError(f"there is no figure '{figure}'.", f"Allowed: {', '.join(CAPTIONS)}.")


@dataclass
class WritingStage(ModelStage):
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
class SampleStage(WritingStage, SeededStage):
    prompts: list[str] = setting(list, "texts to continue (also: plain words on the command line)")
    chat: bool | None = setting(
        None, "prompts are requests to an assistant; by default what the model was trained for (sft, dpo, ppo)"
    )
    count: int = setting(1, "samples of each prompt", minimum=1)
    max_tokens: int = setting(200, "tokens to generate at most", minimum=1)
    repetition_penalty: float = setting(1.0, "divides the logits of tokens already used", minimum=0.1)
    stop: list[str] = setting(list, "stop at any of these strings")


@dataclass
class ChatStage(WritingStage):
    models: list[str] = setting(list, "several runs or folders, which then also meet in the arena")
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 lets other machines in")
    port: int = setting(8000, "port to listen on; 0: any free one", minimum=0, maximum=65535)
    token: str | None = setting(None, "what who asks must know; null: nothing on this machine, else one is made")

    def validate(self) -> None:
        """Raises `ConfigError` for what is no address, and both ways of naming models at once."""
        if not re.fullmatch(r"[\w.:%\[\]-]+", self.host):
            raise ConfigError(f"host={self.host} is not an address.", "Write it like 127.0.0.1 or localhost.")
        if self.models and self.checkpoint is not None:
            raise ConfigError("checkpoint and models are both given.", "Name all of them in models=[...].")


@dataclass
class NextStage(PrintedStage, WritingStage):
    models: list[str] = setting(list, "several runs or folders side by side, instead of checkpoint")
    texts: list[str] = setting(list, "texts whose next token is looked at (also: plain words on the command line)")
    chat: bool | None = setting(
        None, "texts are requests to an assistant; by default what the model was trained for (sft, dpo, ppo)"
    )
    count: int = setting(10, "likeliest tokens shown", minimum=1)
    back: int = setting(0, "look so many tokens before the end of the text", minimum=0)
    beams: int = setting(0, "also the likeliest continuations, by a search with so many beams, as a tree", minimum=0)
    max_tokens: int = setting(8, "tokens of those continuations at most", minimum=1)

    def validate(self) -> None:
        """Raises `ConfigError` where models are named in both ways."""
        if self.models and self.checkpoint is not None:
            raise ConfigError("checkpoint and models are both given.", "Name all of them in models=[...].")


@dataclass
class ScoreStage(PrintedStage, ModelStage):
    file: str | None = setting(None, "file with one sentence a line (also: plain sentences on the command line)")
    sentences: list[str] = setting(list, "sentences to score")


@dataclass
class EvaluateStage(RecordedStage, ModelStage):
    runs: str | None = setting(
        None, "every run of a sweep instead of one checkpoint (as for fit), so that fit predicts a larger one's scores"
    )
    corpus: str | None = setting(None, "corpus whose held-out documents are used; by default the run's own")
    suite: SuiteConfig = setting(SuiteConfig, "what is asked")
    protocol: ProtocolConfig = setting(ProtocolConfig, "how it is asked")

    def validate(self) -> None:
        """Raises `ConfigError` where nothing is asked, or it is not clear of whom."""
        if self.runs is not None and self.checkpoint is not None:
            raise ConfigError("runs and checkpoint are both given.", "Name a family, or one model.")
        if self.runs is not None and self.suite.preferences:
            raise ConfigError("suite.preferences is asked of one reward model.", "Give checkpoint instead of runs.")
        if self.suite.empty:
            raise ConfigError("The suite is empty.", "Give suite.files, suite.embedded or suite.likelihood.")


@dataclass
class HarnessStage(StageConfig):
    arguments: list[str] = setting(list, "what lm_eval's own main is given (on the command line: all that follows)")


@dataclass
class LeaderboardStage(RecordedStage, PrintedStage):
    suite: str | None = setting(None, "show this suite alone")


@dataclass
class CompareStage(RecordedStage, PrintedStage, SeededStage):
    models: list[str] = setting(list, "models whose answers are compared: runs or exported folders")
    model_outputs: list[str] = setting(
        list,
        "others' answers in AlpacaEval's format (instruction, output, generator): JSON files; models complete the same",
    )
    system: dict[str, str] = setting(
        dict, "models complete again under each system prompt: {verbose: Be verbose., concise: Be concise.}"
    )
    baseline: str | None = setting(None, "the one of them that the others are compared with; by default the first")
    prompts: PromptsConfig = setting(PromptsConfig, "what they answer: held-out prompts of tasks, or a file's")
    count: int = setting(200, "prompts at most", minimum=2)
    max_completion_length: int = setting(20, "tokens of an answer at most", minimum=1)
    temperature: float = setting(1.0, "of sampling; 0 is greedy", minimum=0.0)
    feedback: FeedbackConfig = setting(FeedbackConfig, "who judges")
    level: float = setting(0.9, "coverage of intervals", minimum=0.5, maximum=0.999)

    def validate(self) -> None:
        """Raises `ConfigError` for a baseline that is none of the models, or a model named twice."""
        if len(set(self.models)) < len(self.models):
            raise ConfigError("A model is named twice.", "Name each once.")
        if self.outputs.endswith((".json", ".jsonl")):
            raise ConfigError(
                f"outputs={self.outputs} is where results go.", "Others' answers: model_outputs=[<file>]."
            )
        known = [*self.models, *self.systems()]
        if self.baseline is not None and not self.model_outputs and self.baseline not in known:
            raise ConfigError(f"baseline={self.baseline} is none of the models.", f"Models: {', '.join(known)}.")

    def identity(self) -> dict[str, Any]:
        """The settings that decide completions and judgements, without whose they are."""
        without = ("outputs", "force", "tracking", "models", "json", "level", "model_outputs")
        settings = {key: value for key, value in dataclasses.asdict(self).items() if key not in without}
        if not self.system:  # as comparisons were named before there were any
            del settings["system"]
        return settings

    def called(self, folders: Mapping[str, Path]) -> dict[str, str]:
        """By the names of models, what people call them."""
        from maquette.model.loading import model_names

        names = dict(zip(self.models, model_names([folders[model] for model in self.models]), strict=True))
        return names | {
            f"{model} ({name})": f"{names[model]} ({name})" for model in self.models for name in self.system
        }

    def systems(self) -> dict[str, tuple[str, str]]:
        """By the names of models with a system prompt: the model, and what the prompt says."""
        return {
            f"{model} ({name})": (model, text) for model in self.models for name, text in self.system.items()
        }  # fmt: skip


@dataclass
class RatingsStage(RecordedStage, PrintedStage, SeededStage):
    battles: str | None = setting(None, "file with model_a, model_b, winner a row: JSONL, CSV or Parquet")
    topics: dict[str, float] = setting(
        dict, "shares by which topics are re-weighted: topics.code=0.5; by default all alike"
    )
    bootstrap: int = setting(200, "resamples behind each interval", minimum=20)
    level: float = setting(0.9, "coverage of intervals", minimum=0.5, maximum=0.999)


@dataclass
class ExportStage(StageConfig):
    checkpoint: str | None = setting(None, "run to export; by default the latest finished run")
    to: str | None = setting(None, "folder to write; by default <outputs>/export/<run>")


@dataclass
class ImportStage(StageConfig):
    path: str | None = setting(
        None,
        "Hugging Face folder (Llama, Mistral, Qwen2/3 or GPT-2, safetensors; also of a reward model), or a .gguf file",
    )
    merge_adapter: str | None = setting(None, "merge this folder's adapter, in PEFT's format, into the weights")
    chat: str | None = setting(None, "chat template for a model without one: chatml, plain, or a file with Jinja")
    add_tokens: list[str] = setting(list, "special tokens to add, with rows in the embedding and the head")
    name: str | None = setting(None, "name of the artifact; by default the folder's")
