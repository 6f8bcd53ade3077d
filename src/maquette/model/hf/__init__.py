"""Hugging Face folders: Llama, Mistral, Qwen2, Qwen3, Mixtral, Qwen3-MoE, GPT-2; other options with modelling code
beside them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
