"""Text and tokens: tokenizers and their training, streaming decoding, the chat template, the tokenizer report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
