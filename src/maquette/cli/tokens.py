"""`maquette tokens`: encode the corpus into checked, memory-mapped shards."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError, manifest
from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.files import write_json
from maquette.artifacts.progress import say
from maquette.cli import corpus as corpus_stage
from maquette.cli import tokenizer as tokenizer_stage
from maquette.cli.command_line.config import TokensStage, TrainStage
from maquette.data import describe_tokens, encode_corpus
from maquette.data.config import CustomDataConfig
from maquette.data.pretokenized import (
    TOKENIZER,
    describe_pretokenized,
    index_tokens,
    seen_files,
    separator,
    source_files,
)
from maquette.model.loading import load_tokenizer, model_folder
from maquette.text import Tokenizer
from maquette.text.tokenizer import MissingTokenizer


@dataclasses.dataclass(frozen=True)
class TokensResult:
    """The folders of the tokens, of the tokenizer that made them and of the corpus they were made from."""

    folder: Path
    tokenizer: Path
    corpus: Path | None  # None where the tokens were there already


def run(config: TokensStage) -> TokensResult:
    """Encodes the corpus with the tokenizer of `config`, both made first where they are missing.

    `force` encodes again; it makes neither the corpus nor the tokenizer again.
    """
    if config.pretokenized.path is not None:
        return pretokenized(config)
    upstream = dataclasses.replace(config, force=False)
    corpus = corpus_stage.run(upstream)
    return encode(config, corpus, tokenizer_stage.train(upstream, corpus))


def make_tokens(config: TrainStage) -> TokensResult:
    """Tokens of the corpus: by a tokenizer made for it, or by that of the model to start from."""
    upstream, start = dataclasses.replace(config, force=False), config.starting_folder
    if isinstance(config.data, CustomDataConfig):
        data = of_custom_data(upstream, config.data.foreign_node(), config.seed)
        return data if start is None else _same_tokenizer(data, start)
    if start is None:
        return run(upstream)
    if config.pretokenized.path is not None:
        return _same_tokenizer(run(upstream), start)
    return encode(upstream, corpus_stage.run(upstream), model_folder(start))


def _same_tokenizer(data: TokensResult, start: Path) -> TokensResult:
    if load_tokenizer(start).digest != Tokenizer.load(data.tokenizer).digest:
        raise ConfigError(
            f"The model to start from ({start}) reads other tokens than these.",
            f"Give its tokenizer, if it is theirs: pretokenized.tokenizer={model_folder(start)}.",
        )
    return data


def pretokenized(config: TokensStage) -> TokensResult:
    """The artifact of tokens that are there already, of which boundaries and checksums are made where they are missing.

    Raises `StageError` for a file that can't be read as what the settings say it is.
    """
    settings = config.pretokenized
    tokenizer = _tokenizer_of(config)
    eos = separator(settings, tokenizer)
    files = source_files(settings)

    def make(folder: Path) -> dict[str, Any]:
        facts = index_tokens(files, settings, tokenizer, eos, folder)
        for line in describe_pretokenized(facts, settings, tokenizer.has_text):
            say(line)
        return facts

    folder = manifest.build(
        "tokens",
        Path(config.outputs) / "artifacts",
        name=config.shards.name,
        key="shards.name",
        label=next(iter(files)),
        config={"dtype": settings.dtype, "eos_token_id": eos, "column": settings.column}
        | {"validation": settings.validation},
        inputs={"tokenizer": tokenizer.digest} | seen_files(files),
        make=make,
        force=config.force,
        say=say,
    )
    return TokensResult(folder, folder / TOKENIZER, None)


def of_custom_data(config: TokensStage, node: dict[str, Any], seed: int) -> TokensResult:
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

    folder = manifest.build(
        "data",
        Path(config.outputs) / "artifacts",
        name=None,
        label=target.rpartition(".")[2].rpartition(":")[2].lower(),
        config={"node": node, **facts},
        inputs=code_digest(target),
        make=make,
        force=config.force,
        say=say,
    )
    return TokensResult(folder, folder / TOKENIZER, None)


def _tokenizer_of(config: TokensStage) -> Tokenizer:
    settings = config.pretokenized
    if settings.tokenizer is None:
        return MissingTokenizer(int(settings.vocab_size or 0), settings.eos_token_id)
    made = Path(config.outputs) / "artifacts" / "tokenizer" / settings.tokenizer
    if not Path(settings.tokenizer).exists() and not made.exists():
        raise ConfigError(
            f"pretokenized.tokenizer={settings.tokenizer} does not exist.", "Give a folder that has a tokenizer.json."
        )
    return Tokenizer.load(made if made.exists() else settings.tokenizer)


def encode(config: TokensStage, corpus: Path, tokenizer: Path) -> TokensResult:
    """Encodes `corpus` (an artifact) with any `tokenizer` (a folder with a tokenizer.json)."""
    loaded = Tokenizer.load(tokenizer)

    def make(folder: Path) -> dict[str, Any]:
        facts = encode_corpus(corpus, loaded, config.shards, folder, name=tokenizer.name)
        for line in describe_tokens(facts):
            say(line)
        return facts

    folder = manifest.build(
        "tokens",
        Path(config.outputs) / "artifacts",
        name=config.shards.name,
        key="shards.name",
        label=re.sub(r"-[0-9a-f]{8}$", "", tokenizer.name),
        config={"shard_tokens": config.shards.shard_tokens, "held_out_window": config.shards.held_out_window},
        inputs={"corpus": manifest.read_manifest(corpus).digest, "tokenizer": loaded.digest},
        make=make,
        force=config.force,
        say=say,
    )
    return TokensResult(folder, tokenizer, corpus)
