"""What the model writes: fixed prompts, continued at each validation, so that one can read how it learns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from maquette.model import LanguageModel
from maquette.model.generation import document_prompt, generate
from maquette.model.sampling import Sampling
from maquette.text import Tokenizer

_TOKENS = 48
_SAMPLING = Sampling(temperature=0.8, top_p=0.95)


@dataclass(frozen=True)
class Sample:
    """A prompt and what became of it at `step`."""

    step: int
    prompt: str
    text: str

    def describe(self) -> dict[str, int | str]:
        return asdict(self)


def write_samples(model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], step: int) -> list[Sample]:
    """Continues each prompt from the start of a document. The seed is fixed and random state elsewhere is untouched."""
    if not prompts or not tokenizer.has_text:
        return []
    encoded = [document_prompt(tokenizer, prompt) for prompt in prompts]
    with torch.compiler.set_stance("force_eager"):
        made = generate(model, encoded, tokenizer=tokenizer, sampling=_SAMPLING, max_tokens=_TOKENS, seed=0)
    return [Sample(step, prompt, generation.text) for prompt, generation in zip(prompts, made, strict=True)]
