"""No number is taken from a model that gives NaN or infinite ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from maquette.artifacts import StageError
from maquette.evaluation.likelihood import measure
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.model import LanguageModel, ScalarModel, TransformerConfig
from maquette.model.generation import generate
from maquette.model.sampling import Sampling
from maquette.model.scoring import score_continuations, score_sentences
from maquette.objectives.completions import Completion
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

TOKENIZER = train_tokenizer([], TokenizerConfig(kind="byte"))
SHAPE = TransformerConfig(
    TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32
)
COMPLETION = Completion((), "b", (0, 70), (71,), False)

USES: dict[str, Callable[[Any], Any]] = {
    "greedy": lambda model: generate(model, [[0, 65]], max_tokens=2),
    "sampled": lambda model: generate(model, [[0, 65]], sampling=Sampling(temperature=1.0), max_tokens=2),
    "top-p": lambda model: generate(model, [[0, 65]], sampling=Sampling(1.0, top_p=0.9), max_tokens=2),
    "continuations": lambda model: score_continuations(model, [([0, 65], [66])]),
    "sentences": lambda model: score_sentences(model, TOKENIZER, ["the mouse"]),
    "held-out text": lambda model: measure(model, TOKENIZER, [("a", "web", "the mouse")]),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("use", USES)
def test_a_broken_language_model_is_refused(use: str, value: float) -> None:
    model = LanguageModel(SHAPE, seed=0).eval()
    USES[use](model)
    with torch.no_grad():
        model.core.norm.weight.fill_(value)
    with pytest.raises(StageError, match="NaN or infinite"):
        USES[use](model)


def test_a_broken_reward_model_is_refused() -> None:
    model = ScalarModel(SHAPE, seed=0).eval()
    assert len(LearnedReward(model, TOKENIZER)([COMPLETION])) == 1
    with torch.no_grad():
        model.core.norm.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="rewards that are NaN"):
        LearnedReward(model, TOKENIZER)([COMPLETION])
