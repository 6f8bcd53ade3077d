"""What a model writes: fixed prompts, continued at each validation, so that one can read how it learns."""

from collections.abc import Sequence
from typing import Any

import torch

from maquette.model import LanguageModel
from maquette.model.generation import document_prompt, generate
from maquette.model.sampling import Sampling
from maquette.text import Tokenizer

_TOKENS = 48
_SAMPLING = Sampling(temperature=0.8, top_p=0.95)


def continue_prompts(model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Continues each prompt from the start of a document: rows with `prompt` and `text`. The seed is fixed and random
    state elsewhere is untouched."""
    if not prompts or not tokenizer.has_text:
        return []
    encoded = [document_prompt(tokenizer, prompt) for prompt in prompts]
    with torch.compiler.set_stance("force_eager"):
        made = generate(model, encoded, tokenizer=tokenizer, sampling=_SAMPLING, max_tokens=_TOKENS, seed=0)
    return [{"prompt": prompt, "text": generation.text} for prompt, generation in zip(prompts, made, strict=True)]
