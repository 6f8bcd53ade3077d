"""Text and tokens: tokenizers and their training, streaming decoding, the chat template, the tokenizer report."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.text.report import write_report
    from maquette.text.special import CHAT_TOKENS, SPECIAL_TOKENS
    from maquette.text.stream import StreamDecoder
    from maquette.text.tokenizer import Tokenizer
    from maquette.text.training import effective_settings, train_tokenizer

__all__ = [
    "CHAT_TOKENS",
    "SPECIAL_TOKENS",
    "StreamDecoder",
    "Tokenizer",
    "effective_settings",
    "train_tokenizer",
    "write_report",
]

_HOMES = {
    "CHAT_TOKENS": "special",
    "SPECIAL_TOKENS": "special",
    "StreamDecoder": "stream",
    "Tokenizer": "tokenizer",
    "effective_settings": "training",
    "train_tokenizer": "training",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"maquette.text.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
