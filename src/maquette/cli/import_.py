"""`maquette import path=<folder>`: a model of Hugging Face as an artifact, to score, sample and train from."""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import ImportStage
from maquette.model import ScalarModel, count_parameters, hf
from maquette.reports import render
from maquette.text.chat_template import template_text


def run(config: ImportStage) -> Path:
    """Reads and checks every tensor and writes `<outputs>/artifacts/models/<name>`, weights bit for bit. Returns it.

    Raises `ConfigError` without a path, `StageError` for what can't be read (see `hf.load`).
    """
    if config.path is None:
        raise ConfigError("There is no folder to import.", "Write path=<Hugging Face folder, or file.gguf>.")
    source = Path(config.path)
    added: dict[str, Any] = {"add_tokens": config.add_tokens} if config.add_tokens else {}
    added |= {"chat": template_text(config.chat)} if config.chat else {}
    adapter = Path(config.merge_adapter) if config.merge_adapter else None
    digests = hf.source_digests(source, adapter)
    name = config.name or (source.stem if hf.is_gguf(source) else source.resolve().name)

    def make(folder: Path) -> dict[str, Any]:
        model, tokenizer, architecture = hf.load_source(source, folder, config.add_tokens, config.chat, adapter)
        parameters, scalar = count_parameters(model.config), isinstance(model, ScalarModel)
        if scalar:
            parameters = dataclasses.replace(parameters, head=model.config.hidden_size)
        facts = {
            "source": str(source.resolve()),
            "architecture": architecture,
            "parameters": dataclasses.asdict(parameters),
            "vocab_size": model.config.vocab_size,
            "max_position_embeddings": model.config.max_position_embeddings,
            "tokenizer_digest": tokenizer.digest,
        }
        pipeline = "text-classification" if scalar else "text-generation"
        shown = {**facts, "source": str(source), "name": name, "digests": digests, "pipeline": pipeline}
        hf.fill(folder, model, tokenizer, card=render("imported_card.md.j2", shown))
        for line in hf.not_followed(source, tokenizer, set(digests)):
            say(line)
        return facts

    root = Path(config.outputs) / "artifacts"
    folder = build(
        "models", root, name=name, label=name, config=added, inputs=digests, make=make, force=config.force, say=say
    )
    key = "reward.checkpoint" if hf.is_scalar(hf.read_config(folder)) else "checkpoint"
    say(f"{folder}: use it with {key}={name}")
    return folder
