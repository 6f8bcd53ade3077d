"""Continuations of contexts: the same numbers as scoring each text by itself, whatever they are batched with."""

import numpy as np
import pytest
import torch

from maquette.model import LanguageModel, TransformerConfig
from maquette.model.likelihoods import token_log_probs
from maquette.model.scoring import score_continuations


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel(
        TransformerConfig(50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=24),
        seed=1,
    )


def pairs(count: int = 40) -> list[tuple[list[int], list[int]]]:
    generator = np.random.default_rng(0)
    result = []
    for _ in range(count):
        context, continuation = int(generator.integers(1, 15)), int(generator.integers(1, 8))
        tokens = generator.integers(0, 50, context + continuation).tolist()
        result.append((tokens[:context], tokens[context:]))
    shared = result[0][0]
    return [*result, *((shared, [letter]) for letter in range(8)), result[3], (shared, [1, 2, 3])]


@pytest.mark.parametrize("batch_size_tokens", [1, 40, 10_000])
def test_equals_scoring_one_by_one(model: LanguageModel, batch_size_tokens: int) -> None:
    asked = pairs()
    done: list[float] = []
    scores = score_continuations(model, asked, batch_size_tokens=batch_size_tokens, advance=done.append)
    assert sum(done) == len(asked)
    for (context, continuation), score in zip(asked, scores, strict=True):
        whole = torch.tensor([[*context, *continuation]])
        with torch.no_grad():
            expected = token_log_probs(model(whole[:, :-1]), whole[:, 1:])[0].tolist()
        assert score.log_probs == pytest.approx(expected[len(context) - 1 :], abs=1e-5)
        assert score.log_prob == pytest.approx(sum(expected[len(context) - 1 :]), abs=1e-4)


def test_greedy(model: LanguageModel) -> None:
    context = [3, 1, 4]
    with torch.no_grad():
        best = int(model(torch.tensor([context]))[0, -1].argmax())
    right, wrong = score_continuations(model, [(context, [best]), (context, [(best + 1) % 50])])
    assert right.greedy and not wrong.greedy
    assert right.best_log_probs == pytest.approx(wrong.best_log_probs)


def test_longest_and_mistakes(model: LanguageModel) -> None:
    (score,) = score_continuations(model, [([1] * 20, [2] * 5)])
    assert len(score.log_probs) == 5
    assert score_continuations(model, []) == []
    for wrong in (([1] * 20, [2] * 6), ([], [1]), ([1], [])):
        with pytest.raises(ValueError, match="pair 0"):
            score_continuations(model, [wrong])
