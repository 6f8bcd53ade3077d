"""A small corpus, and settings that train a tiny model on it in a second."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

from maquette.cli.command_line.config import TrainStage
from maquette.corpus.config import CorpusConfig, SourceConfig
from maquette.data.config import DataConfig, ShardsConfig
from maquette.model.config import ModelConfig
from maquette.text.config import TokenizerConfig
from maquette.tracking.config import MLflowLoggerConfig
from maquette.training.config import TrainerConfig

WORDS = {
    "animals": ["mouse", "cat", "dog", "owl", "fox", "hen", "cow", "bee"],
    "things": ["door", "lamp", "river", "stone", "letter", "window", "engine", "clock"],
}


def write_documents(folder: Path, documents: int = 60, sentences: int = 60) -> None:
    """Sentences whose every second word follows from the one before it: two domains of so many documents."""
    for domain, nouns in WORDS.items():
        numbers = random.Random(domain)
        lines = []
        for document in range(documents):
            words = [numbers.choice(nouns) for _ in range(sentences)]
            text = " ".join(f"{word} {word.upper()} {numbers.randrange(1000)}." for word in words)
            lines.append(json.dumps({"id": f"{domain}-{document}", "text": text, "domain": domain}))
        (folder / f"{domain}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def settings(outputs: Path, source: Path, *, mlflow: bool = False, **changes: Any) -> TrainStage:
    """A model of 13 thousand parameters (with head) over bytes, 20 steps of 8 sequences of 32."""
    config = TrainStage(
        outputs=str(outputs),
        source=SourceConfig(kind="jsonl", path=str(source)),
        corpus=CorpusConfig(near_duplicates=1.0, validation=0.1, test=0.0, workers=1),
        tokenizer=TokenizerConfig(kind="byte"),
        shards=ShardsConfig(held_out_window=0, workers=1),
        size="13k",
        tokens=str(20 * 8 * 32),
        model=ModelConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32),
        data=DataConfig(sequence_length=32, batch_size_tokens=256, validation_tokens=512),
        trainer=TrainerConfig(log_every_n_steps=5),
        callbacks=default_callbacks(samples__prompts=["cat"]),
        num_validations=2,
        threads=1,
        compile="off",
        logger={"mlflow": MLflowLoggerConfig(save_dir=str(outputs))} if mlflow else {},
    )
    for key, value in changes.items():
        change(config, key, value)
    return config


def change(config: Any, key: str, value: Any) -> None:
    """Sets `optimizer__lr`, or `callbacks__checkpoint__every_n_train_steps`, to a value."""
    target = config
    *groups, name = key.split("__")
    for group in groups:
        target = target[group] if isinstance(target, dict) else getattr(target, group)
    if isinstance(target, dict):
        target[name] = value
        return
    assert hasattr(target, name), key
    setattr(target, name, value)


def default_callbacks(**changes: Any) -> dict[str, Any]:
    """What `callbacks=default` means, with changes."""
    path = Path(__file__).parents[2] / "conf" / "callbacks" / "default.yaml"
    callbacks: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    del callbacks["defaults"]  # the schema
    for key, value in changes.items():
        change(callbacks, key, value)
    return callbacks
