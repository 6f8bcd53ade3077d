"""`maquette tokens`: encode the corpus into checked, memory-mapped shards."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from maquette.artifacts import manifest
from maquette.artifacts.progress import say
from maquette.data import describe_tokens, encode_corpus
from maquette.stages import corpus as corpus_stage
from maquette.stages import tokenizer as tokenizer_stage
from maquette.stages.config import TokensStage
from maquette.text import Tokenizer


@dataclasses.dataclass(frozen=True)
class TokensResult:
    """The folders of the tokens, of the tokenizer that made them and of the corpus they were made from."""

    folder: Path
    tokenizer: Path
    corpus: Path


def run(config: TokensStage) -> TokensResult:
    """Encodes the corpus with the tokenizer of `config`, both made first where they are missing.

    `force` encodes again; it makes neither the corpus nor the tokenizer again.
    """
    upstream = dataclasses.replace(config, force=False)
    corpus = corpus_stage.run(upstream)
    return encode(config, corpus, tokenizer_stage.train(upstream, corpus))


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
        label=re.sub(r"-[0-9a-f]{8}$", "", tokenizer.name),
        config={"shard_tokens": config.shards.shard_tokens, "held_out_window": config.shards.held_out_window},
        inputs={"corpus": manifest.read_manifest(corpus).digest, "tokenizer": loaded.digest},
        make=make,
        force=config.force,
        say=say,
    )
    return TokensResult(folder, tokenizer, corpus)
