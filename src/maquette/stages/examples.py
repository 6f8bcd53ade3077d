"""From sources of instructions and preferences to checked examples on disk, encoded with a model's own tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.data.config import ExamplesConfig, InstructionFilesConfig, PreferenceFilesConfig
from maquette.data.example_encoding import describe_examples, encode_instructions, encode_preferences
from maquette.data.instructions import InstructionFiles, InstructionSource
from maquette.data.preferences import PreferenceFiles, PreferenceSource
from maquette.feedback.config import TaskInstructionsConfig
from maquette.feedback.prompts import TaskInstructions
from maquette.stages.config import TrainStage
from maquette.text import Tokenizer


def instructions(config: TrainStage, tokenizer: Tokenizer, longest: int) -> Path:
    """The artifact of `config.instructions`, made where it is missing. Examples have at most `longest` tokens."""
    source = instruction_source(config.instructions)

    def make(folder: Path, **settings: Any) -> dict[str, Any]:
        return encode_instructions(source.instructions(), tokenizer, folder, **settings)

    return _built("instructions", config, config.instructions, source, tokenizer, longest, make)


def preferences(config: TrainStage, tokenizer: Tokenizer, longest: int) -> Path:
    """The artifact of `config.preferences`, made where it is missing. Answers with their prompts have at most `longest`
    tokens."""
    source = preference_source(config.preferences)

    def make(folder: Path, **settings: Any) -> dict[str, Any]:
        return encode_preferences(source.preferences(), tokenizer, folder, **settings)

    return _built("preferences", config, config.preferences, source, tokenizer, longest, make)


def instruction_source(config: ExamplesConfig) -> InstructionSource:
    """Where the settings take instructions from. Raises `ConfigError` where they do not say."""
    if isinstance(config, TaskInstructionsConfig):
        return TaskInstructions(config)
    assert isinstance(config, InstructionFilesConfig)
    if config.path is None:
        raise ConfigError(
            "objective=sft needs instructions.",
            "Give instructions.path=<file or folder of JSON lines>, or instructions=task.",
        )
    return InstructionFiles(config.path)


def preference_source(config: ExamplesConfig) -> PreferenceSource:
    """Where the settings take preferences from. Raises `ConfigError` where they do not say."""
    assert isinstance(config, PreferenceFilesConfig)
    if config.path is None:
        raise ConfigError("This objective needs preferences.", "Give preferences.path=<file or folder of JSON lines>.")
    return PreferenceFiles(config.path)


def _built(
    kind: str,
    config: TrainStage,
    chosen: ExamplesConfig,
    source: InstructionSource | PreferenceSource,
    tokenizer: Tokenizer,
    longest: int,
    encode: Callable[..., dict[str, Any]],
) -> Path:
    settings = {"longest": longest, "validation": getattr(chosen, "validation", 0.0), "limit": chosen.limit}

    def make(folder: Path) -> dict[str, Any]:
        facts = encode(folder, **settings)
        for line in describe_examples(facts, kind):
            say(line)
        return facts

    return build(
        kind,
        Path(config.outputs) / "artifacts",
        name=None,
        label=source.label,
        config=settings,
        inputs=source.inputs() | {"tokenizer": tokenizer.digest},
        make=make,
        say=say,
    )
