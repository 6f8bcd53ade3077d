"""Settings of a tokenizer."""

from dataclasses import dataclass

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
