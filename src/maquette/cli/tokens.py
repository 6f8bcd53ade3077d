"""`maquette tokens`: encode the corpus into checked, memory-mapped shards."""

import dataclasses
from pathlib import Path

from maquette.artifacts import ConfigError
from maquette.cli import corpus as corpus_stage
from maquette.cli import tokenizer as tokenizer_stage
from maquette.cli.command_line.config import TokensStage, TrainStage
from maquette.data.config import CustomDataConfig
from maquette.data.token_artifacts import TokensResult, encoded, of_custom_data, pretokenized
from maquette.model.loading import load_tokenizer, model_folder
from maquette.text import Tokenizer


def run(config: TokensStage) -> TokensResult:
    """Encodes the corpus with the tokenizer of `config`, both made first where they are missing.

    `force` encodes again; it makes neither the corpus nor the tokenizer again.
    """
    if config.pretokenized.path is not None:
        return pretokenized(config.pretokenized, config.outputs, name=config.shards.name, force=config.force)
    upstream = dataclasses.replace(config, force=False)
    corpus = corpus_stage.run(upstream)
    tokenizer = tokenizer_stage.train(upstream, corpus)
    return encoded(corpus, tokenizer, config.shards, config.outputs, force=config.force)


def make_tokens(config: TrainStage) -> TokensResult:
    """Tokens of the corpus: by a tokenizer made for it, or by that of the model to start from."""
    upstream, start = dataclasses.replace(config, force=False), config.starting_folder
    if isinstance(config.data, CustomDataConfig):
        data = of_custom_data(config.data.foreign_node(), config.outputs, seed=config.seed)
        return data if start is None else _same_tokenizer(data, start)
    if start is None:
        return run(upstream)
    if config.pretokenized.path is not None:
        return _same_tokenizer(run(upstream), start)
    return encoded(corpus_stage.run(upstream), model_folder(start), config.shards, config.outputs)


def _same_tokenizer(data: TokensResult, start: Path) -> TokensResult:
    if load_tokenizer(start).digest != Tokenizer.load(data.tokenizer).digest:
        raise ConfigError(
            f"The model to start from ({start}) reads other tokens than these.",
            f"Give its tokenizer, if it is theirs: pretokenized.tokenizer={model_folder(start)}.",
        )
    return data
