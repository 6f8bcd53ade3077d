"""The next token's distribution: parity with scoring and sampling, what settings leave, beams that are the best."""

import itertools
import math

import pytest
import torch

from maquette.artifacts import ConfigError
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.generation import generate
from maquette.model.next_token import beam_search, next_token, read_text
from maquette.model.sampling import Sampling
from maquette.model.scoring import score_continuations

IDS = [1, 5, 2, 7, 7, 3]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    shape = TransformerConfig(11, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8)
    model = LanguageModel(shape, seed=1)
    with torch.no_grad():
        model.head_weight.mul_(20)
    return model


def test_surprise_is_what_scoring_says_and_entropy_what_it_is(model: LanguageModel) -> None:
    reading = read_text(model, IDS)
    [score] = score_continuations(model, [(IDS[:1], IDS[1:])])
    assert [-bits * math.log(2) for bits in reading.surprises] == pytest.approx(list(score.log_probs), abs=1e-5)
    probabilities = model(torch.tensor([IDS]))[0].softmax(-1)
    expected = torch.distributions.Categorical(probabilities).entropy() / math.log(2)
    assert list(reading.entropies) == pytest.approx(expected.tolist(), abs=1e-5)
    assert next_token(model, IDS, Sampling()).entropy == pytest.approx(reading.entropies[-1], abs=1e-6)


def test_candidates_are_what_generation_draws_from(model: LanguageModel) -> None:
    sampling = Sampling(temperature=0.7, top_k=4, top_p=0.9)
    seen = next_token(model, IDS, sampling, count=11)
    assert sum(one.probability for one in seen.candidates) == pytest.approx(1) and seen.others < 1e-9
    assert sum(one.drawn for one in seen.candidates) == pytest.approx(1)
    count = 4000
    drawn = generate(model, [IDS] * count, sampling=sampling, max_tokens=1, stop_ids=())
    shares = torch.bincount(torch.tensor([one.tokens[0] for one in drawn]), minlength=11) / count
    for one in seen.candidates:
        assert abs(float(shares[one.token]) - one.drawn) < 0.04
        assert one.drawn > 0 or shares[one.token] == 0


def test_what_each_setting_leaves(model: LanguageModel) -> None:
    seen = next_token(model, IDS, Sampling(temperature=0.5, top_k=3, top_p=0.9), count=2)
    left = {one.setting: one for one in seen.truncations}
    assert list(left) == ["as predicted", "greedy", "temperature=0.5", "top_k=3", "top_p=0.9", "together"]
    assert left["as predicted"].tokens == left["temperature=0.5"].tokens == 11
    assert left["greedy"].tokens == 1 and left["greedy"].entropy == 0
    assert left["greedy"].probability == pytest.approx(seen.candidates[0].probability)
    assert left["top_k=3"].tokens == 3 and left["top_p=0.9"].probability >= 0.9
    assert left["temperature=0.5"].entropy < left["as predicted"].entropy == pytest.approx(seen.entropy)
    only = next_token(model, IDS, Sampling(temperature=0.0, top_p=0.9)).truncations
    assert [one.setting for one in only] == ["as predicted", "greedy"]


def test_many_beams_find_the_best_of_all(model: LanguageModel) -> None:
    searched = beam_search(model, IDS, beams=121, max_tokens=2)
    pairs = list(itertools.product(range(11), repeat=2))
    scores = score_continuations(model, [(IDS, pair) for pair in pairs])
    best = sorted(zip(pairs, (one.log_prob for one in scores), strict=True), key=lambda one: -one[1])
    assert [beam.tokens for beam in searched[:5]] == [pair for pair, _ in best[:5]]
    assert searched[0].log_prob == pytest.approx(best[0][1], abs=1e-5)
    assert [len(beam.tokens) for beam in beam_search(model, IDS, beams=2, max_tokens=9)] == [3, 3]  # the context's end
    first = beam_search(model, IDS, beams=2, max_tokens=1)[0].tokens
    ended = beam_search(model, IDS, beams=2, max_tokens=3, stop_ids=first)
    assert any(beam.tokens == first for beam in ended) or len(ended) == 2


def test_a_text_that_does_not_fit(model: LanguageModel) -> None:
    for ids in ([], [1] * 9):
        with pytest.raises(ConfigError, match="reads from 1 to 8"):
            next_token(model, ids, Sampling())
