"""What `maquette import` reads: a Hugging Face folder, of a language model or a reward model, or a GGUF file; its
digests, its model, and what of it is not followed here.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import file_digest, listed
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import short
from maquette.model.adapters import load_adapter
from maquette.model.heads import LanguageModel, ScalarModel, with_rows
from maquette.model.hf.config_file import CHECKSUMS, family_of, read_config
from maquette.model.hf.family import is_scalar
from maquette.model.hf.folder import load, load_scalar
from maquette.model.hf.gguf import unpacked
from maquette.model.hf.weights import INDEX, weight_files
from maquette.text import Tokenizer, model_files


def is_gguf(source: Path) -> bool:
    """Whether it is one file of llama.cpp's."""
    return source.suffix == ".gguf"


def load_source(
    source: Path,
    beside: Path,
    add_tokens: Sequence[str] = (),
    chat: str | None = None,
    adapter: Path | None = None,
) -> tuple[LanguageModel | ScalarModel, Tokenizer, str]:
    """The model as it stands in the file, its tokenizer, and the name of its architecture in `transformers`.

    `adapter`: a folder in PEFT's format, merged into the weights; `add_tokens`: special tokens that both get; `chat`:
    the template of a model that has none (text/chat_template.py). A GGUF file is unpacked `beside` a folder for as long
    as it is read. Raises as `load`.
    """
    with unpacked(source, beside) if is_gguf(source) else contextlib.nullcontext(source) as opened:
        raw = read_config(opened)
        model: Any  # of one kind or the other
        model = load_scalar(opened, dtype=None) if is_scalar(raw) else load(opened, dtype=None)
        tokenizer, family = Tokenizer.load(opened), family_of(raw, opened)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise StageError(
                f"{opened / 'tokenizer.json'} has {tokenizer.vocab_size:,} tokens, config.json says "
                f"{model.config.vocab_size:,}.",
                "The two files do not belong together, or one is damaged.",
            )
    if adapter is not None:
        model = load_adapter(model, family, adapter)
    known = tokenizer.vocab_size
    tokenizer = tokenizer.add_tokens(add_tokens, special=True) if add_tokens else tokenizer
    tokenizer = tokenizer.with_chat(chat) if chat else tokenizer
    if tokenizer.vocab_size > known:
        model = with_rows(model, known, tokenizer.vocab_size)
    return model, tokenizer, family.scalar_architecture if is_scalar(raw) else family.architecture


def not_followed(source: Path, tokenizer: Tokenizer, taken: set[str]) -> list[str]:
    """What the folder says or holds that goes another way here, or no way."""
    if is_gguf(source):
        return []
    lines = [f"kept for export, not followed by Maquette: {change}" for change in tokenizer.changes]
    if sampling := tokenizer.files.sampling:
        values = ", ".join(f"{key}={short(value, 40)}" for key, value in sampling.items())
        lines.append(f"kept for export, not followed by Maquette: {values}; set temperature=, top_p=, ... yourself")
    others = [
        path.name for path in listed(source) if path.name not in taken | {model_files.TEMPLATES, INDEX, CHECKSUMS}
    ]
    return [*lines, *([f"not taken from {source}: {', '.join(others)}"] if others else [])]


def source_digests(source: Path, adapter: Path | None = None) -> dict[str, str]:
    """SHA-256 of the files that make up the model: settings, weights, tokenizer; and of the adapter's."""
    if adapter is not None:
        if not adapter.is_dir():
            raise ConfigError(f"merge_adapter={adapter} is not a folder.", "Give one of an adapter in PEFT's format.")
        files = (path for path in listed(adapter) if path.is_file())
        return source_digests(source) | {f"adapter/{path.name}": file_digest(path) for path in files}
    if is_gguf(source):
        if not source.is_file():
            raise ConfigError(f"path={source} is not a file.", "Give a GGUF file, or a Hugging Face folder.")
        return {source.name: file_digest(source)}
    parts = {source / "config.json", *weight_files(source).values()} if read_config(source) else set()
    beside = [source / name for name in ("tokenizer.json", "tokenizer_config.json", *model_files.NAMES)]
    parts |= {path for path in (*beside, *listed(source / model_files.TEMPLATES)) if path.is_file()}
    with progress("reading files", sum(path.stat().st_size for path in parts), unit="bytes") as advance:
        digests = {}
        for path in sorted(parts):
            digests[str(path.relative_to(source))] = file_digest(path)
            advance(path.stat().st_size)
    return digests
