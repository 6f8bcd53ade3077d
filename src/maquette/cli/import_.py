"""`maquette import path=<folder>`: a model of Hugging Face as an artifact, to score, sample and train from."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import file_digest, listed
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import short
from maquette.cli.command_line.model_config import ImportStage
from maquette.model import count_parameters, hf
from maquette.model.heads import with_rows
from maquette.reports import render
from maquette.text import Tokenizer, model_files
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
    packed = source.suffix == ".gguf"
    digests = {source.name: file_digest(source)} if packed else source_digests(source)
    name = config.name or (source.stem if packed else source.resolve().name)

    def make(folder: Path) -> dict[str, Any]:
        with hf.unpacked(source, folder) if packed else contextlib.nullcontext(source) as opened:
            model, tokenizer = hf.load(opened, dtype=None), Tokenizer.load(opened)
            architecture = hf.family_of(hf.read_config(opened), opened).architecture
        known = tokenizer.vocab_size
        tokenizer = tokenizer.add_tokens(config.add_tokens, special=True) if config.add_tokens else tokenizer
        tokenizer = tokenizer.with_chat(config.chat) if config.chat else tokenizer
        if tokenizer.vocab_size > known:
            model = with_rows(model, known, tokenizer.vocab_size)
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
        for line in _not_followed(source, tokenizer, set(digests)) if not packed else ():
            say(line)
        return facts

    root = Path(config.outputs) / "artifacts"
    folder = build(
        "models", root, name=name, label=name, config=added, inputs=digests, make=make, force=config.force, say=say
    )
    say(f"{folder}: use it with checkpoint={name}")
    return folder


def _not_followed(source: Path, tokenizer: Tokenizer, taken: set[str]) -> list[str]:
    """What the folder says or holds that goes another way here, or no way."""
    lines = [f"kept for export, not followed by Maquette: {change}" for change in tokenizer.changes]
    if sampling := tokenizer.files.sampling:
        values = ", ".join(f"{key}={short(value, 40)}" for key, value in sampling.items())
        lines.append(f"kept for export, not followed by Maquette: {values}; set temperature=, top_p=, ... yourself")
    others = [path.name for path in listed(source) if path.name not in taken | {model_files.TEMPLATES, hf.INDEX}]
    return [*lines, *([f"not taken from {source}: {', '.join(others)}"] if others else [])]


def source_digests(source: Path) -> dict[str, str]:
    """SHA-256 of the files that make up the model: settings, weights, tokenizer."""
    files = {source / "config.json", *hf.weight_files(source).values()} if hf.read_config(source) else set()
    beside = [source / name for name in ("tokenizer.json", "tokenizer_config.json", *model_files.NAMES)]
    files |= {path for path in (*beside, *listed(source / model_files.TEMPLATES)) if path.is_file()}
    with progress("reading files", sum(path.stat().st_size for path in files), unit="bytes") as advance:
        digests = {}
        for path in sorted(files):
            digests[str(path.relative_to(source))] = file_digest(path)
            advance(path.stat().st_size)
    return digests
