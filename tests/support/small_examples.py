"""A few instructions and preferences, and settings that learn from them in a second or two."""

import json
import random
from pathlib import Path
from typing import Any

from maquette.cli.command_line.config import TrainStage
from maquette.data.config import InstructionFilesConfig, PreferenceFilesConfig
from maquette.model.config import ModelConfig
from maquette.objectives.config import OBJECTIVES
from support.small_runs import change, settings

WORDS = ["cat", "dog", "owl", "fox", "hen", "cow", "bee", "ant"]


def conversation(numbers: random.Random) -> tuple[str, str, str]:
    """A request, the right answer, and a wrong one."""
    word = numbers.choice(WORDS)
    wrong = numbers.choice([other for other in WORDS if other != word])
    return f"say {word} {numbers.randrange(100)}", word, wrong


def write_instructions(path: Path, count: int = 80) -> Path:
    numbers = random.Random(1)
    rows = []
    for _ in range(count):
        request, right, _wrong = conversation(numbers)
        rows.append({"messages": [{"role": "user", "content": request}, {"role": "assistant", "content": right}]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_preferences(path: Path, count: int = 80) -> Path:
    numbers = random.Random(2)
    rows = []
    for number in range(count):
        request, right, wrong = conversation(numbers)
        rows.append(
            {
                "prompt": [{"role": "user", "content": request}],
                "chosen": [{"role": "assistant", "content": right}],
                "rejected": [{"role": "assistant", "content": wrong + " or so" * (number % 3)}],
                "annotator": "ann" if number % 2 else "bob",
                "margin": 0.5,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_labels(path: Path, count: int = 120) -> Path:
    """Completions with a thumb up or down, and some pairs."""
    numbers = random.Random(3)
    rows = []
    for number in range(count):
        request, right, wrong = conversation(numbers)
        row = {"prompt": request, "completion": right if number % 3 else wrong, "label": bool(number % 3)}
        rows.append(row if number % 5 else {"prompt": request, "chosen": right, "rejected": wrong})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def base_settings(outputs: Path, source: Path) -> TrainStage:
    """A model of bytes to start from, with room for a conversation and dropout that objectives have to switch off."""
    return settings(
        outputs, source, data__sequence_length=64, num_validations=1,
        model=ModelConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, dropout=0.1
        ),
    )  # fmt: skip


def example_settings(outputs: Path, kind: str, checkpoint: str, path: Path, **changes: Any) -> TrainStage:
    """Ten steps or so of an objective over the examples in `path`."""
    config = settings(outputs, outputs, num_validations=2, trainer__log_every_n_steps=2)
    config.checkpoint = checkpoint
    chosen = {key.removeprefix("objective__"): value for key, value in changes.items() if key.startswith("objective__")}
    plain = {"epochs": 1.0, "batch_size": 8} | (
        {"sample_prompts": 2, "max_completion_length": 6} if kind != "reward" else {}
    )
    config.objective = OBJECTIVES[kind](**(plain | chosen))
    if kind == "sft":
        config.instructions = InstructionFilesConfig(path=str(path), validation=0.2)
    else:
        config.preferences = PreferenceFilesConfig(path=str(path), validation=0.2)
    for key, value in changes.items():
        if key.startswith("objective__"):
            continue
        change(config, key, value)
    return config
