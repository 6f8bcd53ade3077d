"""The artifacts that training reads: encoded tokens, tokens that were there already, a user's own data.

Each is made once and found again (artifacts/manifest.py).
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.files import write_json
from maquette.artifacts.manifest import build, read_manifest, verify_files
from maquette.artifacts.progress import say
from maquette.data import describe_tokens, encode_corpus
from maquette.data.config import PretokenizedConfig, ShardsConfig
from maquette.data.pretokenized import (
    TOKENIZER,
    describe_pretokenized,
    index_tokens,
    seen_files,
    separator,
    source_files,
)
from maquette.text import Tokenizer
from maquette.text.tokenizer import MissingTokenizer


@dataclasses.dataclass(frozen=True)
class TokensResult:
    """The folders of the tokens, of the tokenizer that made them and of the corpus they were made from."""

    folder: Path
    tokenizer: Path
    corpus: Path | None  # None where the tokens were there already


def encoded(
    corpus: Path, tokenizer: Path, shards: ShardsConfig, outputs: Path | str, *, force: bool = False
) -> TokensResult:
    """Encodes `corpus` (an artifact) with any `tokenizer` (a folder with a tokenizer.json)."""
    loaded = Tokenizer.load(tokenizer)

    def make(folder: Path) -> dict[str, Any]:
        verify_files(corpus)
        facts = encode_corpus(corpus, loaded, shards, folder, name=tokenizer.name)
        for line in describe_tokens(facts):
            say(line)
        return facts

    folder = build(
        "tokens",
        Path(outputs) / "artifacts",
        name=shards.name,
        key="shards.name",
        label=re.sub(r"-[0-9a-f]{8}$", "", tokenizer.name),
        config={"shard_tokens": shards.shard_tokens, "held_out_window": shards.held_out_window},
        inputs={"corpus": read_manifest(corpus).digest, "tokenizer": loaded.digest},
        make=make,
        force=force,
        say=say,
    )
    return TokensResult(folder, tokenizer, corpus)


def pretokenized(
    settings: PretokenizedConfig, outputs: Path | str, *, name: str | None = None, force: bool = False
) -> TokensResult:
    """The artifact of tokens that are there already, of which boundaries and checksums are made where they are missing.

    Raises `StageError` for a file that can't be read as what the settings say it is.
    """
    tokenizer = _tokenizer_of(settings, outputs)
    eos = separator(settings, tokenizer)
    files = source_files(settings)

    def make(folder: Path) -> dict[str, Any]:
        facts = index_tokens(files, settings, tokenizer, eos, folder)
        for line in describe_pretokenized(facts, settings, tokenizer.has_text):
            say(line)
        return facts

    folder = build(
        "tokens",
        Path(outputs) / "artifacts",
        name=name,
        key="shards.name",
        label=next(iter(files)),
        config={"dtype": settings.dtype, "eos_token_id": eos, "column": settings.column}
        | {"validation": settings.validation},
        inputs={"tokenizer": tokenizer.digest} | seen_files(files),
        make=make,
        force=force,
        say=say,
    )
    return TokensResult(folder, folder / TOKENIZER, None)


def of_custom_data(node: dict[str, Any], outputs: Path | str, *, seed: int, force: bool = False) -> TokensResult:
    """What a user's LightningDataModule says of itself, as an artifact in the place of tokens.

    Raises `ConfigError` where it does not say what the recipe has to know.
    """
    from maquette.data.custom_data import build_data, facts_of, tokenizer_of

    target = str(node["_target_"])
    data = build_data(node, seed=seed)
    facts = dataclasses.asdict(facts_of(data, target))

    def make(folder: Path) -> dict[str, Any]:
        tokenizer_of(data, target).save(folder / TOKENIZER)
        write_json(folder / "data.json", {"node": node, **facts})
        return facts

    folder = build(
        "data",
        Path(outputs) / "artifacts",
        name=None,
        label=target.rpartition(".")[2].rpartition(":")[2].lower(),
        config={"node": node, **facts},
        inputs=code_digest(target),
        make=make,
        force=force,
        say=say,
    )
    return TokensResult(folder, folder / TOKENIZER, None)


def _tokenizer_of(settings: PretokenizedConfig, outputs: Path | str) -> Tokenizer:
    if settings.tokenizer is None:
        return MissingTokenizer(int(settings.vocab_size or 0), settings.eos_token_id)
    made = Path(outputs) / "artifacts" / "tokenizer" / settings.tokenizer
    if not Path(settings.tokenizer).exists() and not made.exists():
        raise ConfigError(
            f"pretokenized.tokenizer={settings.tokenizer} does not exist.", "Give a folder that has a tokenizer.json."
        )
    return Tokenizer.load(made if made.exists() else settings.tokenizer)
