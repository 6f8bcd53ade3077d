"""Settings of a tokenizer."""

from dataclasses import dataclass
from typing import Any

from maquette.artifacts.settings import setting


@dataclass
class TokenizerConfig:
    name: str | None = setting(None, "name of the artifact; by default kind, vocabulary and a digest")
    kind: str = setting("bpe", "how text becomes tokens", choices=("bpe", "unigram", "char", "byte"))
    vocab_size: int = setting(
        1024, "number of tokens, special ones included (byte: fixed; char: the most)", minimum=280, first=True
    )
    pretokenizer: str = setting("gpt4", "how text is cut before merging", choices=("gpt4", "code", "whitespace"))
    digits: int = setting(3, "gpt4, code: longest group of digits that may be one token", minimum=1, maximum=3)
    training_bytes: int = setting(
        16_000_000, "train on at most so many bytes, spread evenly over the corpus (held in memory)", minimum=1
    )


_EFFECTIVE = {
    "bpe": ["kind", "vocab_size", "pretokenizer", "digits", "training_bytes"],
    "unigram": ["kind", "vocab_size", "pretokenizer", "digits", "training_bytes"],
    "char": ["kind", "vocab_size", "training_bytes"],
    "byte": ["kind"],
}
"""What a tokenizer of each kind depends on."""


def effective_settings(config: TokenizerConfig) -> dict[str, Any]:
    """The settings that a tokenizer of this kind depends on: two configs that agree in them give the same tokenizer."""
    settings = {name: getattr(config, name) for name in _EFFECTIVE[config.kind]}
    if settings.get("pretokenizer") == "whitespace":
        del settings["digits"]
    return settings


def idle_settings(config: TokenizerConfig) -> list[str]:
    """Settings that were changed from their defaults but have no effect on a tokenizer of this kind."""
    effective, defaults = effective_settings(config), TokenizerConfig()
    return [
        name for name in _EFFECTIVE["bpe"] if name not in effective and getattr(config, name) != getattr(defaults, name)
    ]
