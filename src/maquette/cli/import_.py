"""`maquette import path=<folder>`: a model of Hugging Face as an artifact, to score, sample and train from."""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import file_digest
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import progress, say
from maquette.cli.command_line.model_config import ImportStage
from maquette.model import count_parameters, hf
from maquette.reports import render
from maquette.text import Tokenizer


def run(config: ImportStage) -> Path:
    """Reads and checks every tensor and writes `<outputs>/artifacts/models/<name>`, weights bit for bit. Returns it.

    Raises `ConfigError` without a path, `StageError` for what can't be read (see `hf.load`).
    """
    if config.path is None:
        raise ConfigError("There is no folder to import.", "Write maquette import path=<Hugging Face folder>.")
    source = Path(config.path)
    digests = source_digests(source)
    name = config.name or source.resolve().name

    def make(folder: Path) -> dict[str, Any]:
        model, tokenizer = hf.load(source, dtype=None), Tokenizer.load(source)
        architecture = hf.family_of(hf.read_config(source), source).architecture
        facts = {
            "source": str(source.resolve()),
            "architecture": architecture,
            "parameters": dataclasses.asdict(count_parameters(model.config)),
            "vocab_size": model.config.vocab_size,
            "max_position_embeddings": model.config.max_position_embeddings,
            "tokenizer_digest": tokenizer.digest,
        }
        shown = {**facts, "source": str(source), "name": name, "digests": digests}
        hf.fill(folder, model, tokenizer, card=render("imported_card.md.j2", shown))
        return facts

    root = Path(config.outputs) / "artifacts"
    folder = build(
        "models", root, name=name, label=name, config={}, inputs=digests, make=make, force=config.force, say=say
    )
    say(f"{folder}: use it with checkpoint={name}")
    return folder


def source_digests(source: Path) -> dict[str, str]:
    """SHA-256 of the files that make up the model: settings, weights, tokenizer."""
    files = {source / "config.json", *hf.weight_files(source).values()} if hf.read_config(source) else set()
    files |= {path for path in (source / "tokenizer.json", source / "tokenizer_config.json") if path.is_file()}
    with progress("reading files", sum(path.stat().st_size for path in files), unit="bytes") as advance:
        digests = {}
        for path in sorted(files):
            digests[path.name] = file_digest(path)
            advance(path.stat().st_size)
    return digests
