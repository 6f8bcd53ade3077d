"""The core against a plain reference; what it must not see; packed documents, caches and padding."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.artifacts import ConfigError
from maquette.model import LanguageModel, LSTMConfig, TransformerConfig
from support.model_variants import EVERY, PLAIN, RECURRENT, VARIANTS, lively, some_tokens
from support.plain_transformer import reference_logits

ANGLES = 1e-5  # rotary angles are float32


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_the_reference_s(name: str) -> None:
    model, tokens = lively(VARIANTS[name]), some_tokens(2, 6)
    expected = torch.stack([reference_logits(model, row.tolist()) for row in tokens])
    tolerance = ANGLES if VARIANTS[name].positions == "rotary" else 1e-10
    assert torch.allclose(model(tokens), expected, rtol=tolerance, atol=tolerance)
    with torch.no_grad():  # another way through the same numbers
        assert torch.allclose(model(tokens), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["llama", "gpt2", "token_shift"])
def test_given_positions_and_segments_are_the_reference_s(name: str) -> None:
    model, tokens = lively(VARIANTS[name]), some_tokens(2, 6)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 0, 1, 2, 3]])
    segments = torch.tensor([[7, 7, 7, 8, 8, 8], [0, 0, 1, 1, 1, 1]])
    expected = torch.stack(
        [reference_logits(model, *(values.tolist() for values in row)) for row in zip(tokens, positions, segments)]  # noqa: B905
    )
    assert torch.allclose(model(tokens, positions=positions, segments=segments), expected, rtol=ANGLES, atol=ANGLES)


def test_more_than_one_initial_weight_matters() -> None:
    """Fresh models, as training starts from them, give different logits for different tokens."""
    logits = LanguageModel(PLAIN)(some_tokens(1, 8))
    assert logits.std(dim=1).min() > 1e-4


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(sorted(EVERY)), place=st.integers(1, 8), seed=st.integers(0, 99))
def test_the_future_does_not_change_the_past(name: str, place: int, seed: int) -> None:
    model, tokens = lively(EVERY[name]), some_tokens(2, 9, seed)
    changed = torch.cat([tokens[:, :place], (tokens[:, place:] + 1) % 23], dim=1)
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :place], after[:, :place], atol=1e-12)
    assert not torch.allclose(before[:, place:], after[:, place:], atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(sorted(EVERY)), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_packed_documents_do_not_see_each_other(name: str, lengths: list[int]) -> None:
    model = lively(EVERY[name])
    documents = [some_tokens(1, length, seed) for seed, length in enumerate(lengths)]
    packed = torch.cat(documents, dim=1)
    segments = torch.cat([torch.full((1, length), number) for number, length in enumerate(lengths)], dim=1)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    apart = torch.cat([model(document) for document in documents], dim=1)
    # Two rows, so that one row's last document does not run into the next row's first.
    together = model(packed.repeat(2, 1), segments=segments.repeat(2, 1), positions=positions.repeat(2, 1))
    assert torch.allclose(together, apart.repeat(2, 1, 1), rtol=ANGLES, atol=ANGLES)


@pytest.mark.parametrize("name", EVERY)
def test_a_cache_changes_nothing(name: str) -> None:
    model, tokens = lively(EVERY[name]), some_tokens(3, 10)
    for train in (True, False):
        with torch.set_grad_enabled(train):
            whole = model(tokens)
            cache = model.new_cache(3, 10)
            parts = [model(part, cache=cache) for part in tokens.split([4, 1, 3, 1, 1], dim=1)]
        assert torch.allclose(torch.cat(parts, dim=1), whole, rtol=ANGLES, atol=ANGLES)


@pytest.mark.parametrize("name", EVERY)
def test_left_padding_changes_nothing(name: str) -> None:
    model, tokens = lively(EVERY[name]), some_tokens(1, 5)
    more = some_tokens(1, 3, seed=1)
    alone = model(torch.cat([tokens, more], dim=1))[0]
    padded = torch.cat([torch.cat([torch.full((1, 3), 9), tokens], dim=1), some_tokens(1, 8, seed=2)])
    starts = torch.tensor([3, 0])

    cache = model.new_cache(2, 11, starts=starts)
    first = model(padded, cache=cache)[0, 3:]
    rest = [model(more[:, t : t + 1].expand(2, 1), cache=cache)[0] for t in range(3)]
    assert torch.allclose(torch.cat([first, *rest]), alone, rtol=ANGLES, atol=ANGLES)

    columns = torch.arange(8)
    positions = (columns - starts[:, None]).clamp(min=0)
    without_cache = model(padded, positions=positions, segments=(columns >= starts[:, None]).long())
    assert torch.allclose(without_cache[0, 3:], alone[:5], rtol=ANGLES, atol=ANGLES)
    assert without_cache.isfinite().all()


def test_a_full_cache_says_so() -> None:
    model = lively(PLAIN)
    cache = model.new_cache(1, 4)
    with pytest.raises(ValueError, match=r"holds 4 tokens; 0 \+ 5"):
        model(some_tokens(1, 5), cache=cache)


@pytest.mark.parametrize("config", [PLAIN, RECURRENT["lstm"]])
def test_segments_and_a_cache_do_not_go_together(config: TransformerConfig | LSTMConfig) -> None:
    model, tokens = lively(config), some_tokens(1, 4)
    with pytest.raises(ValueError, match="one document a row"):
        model(tokens, segments=torch.zeros_like(tokens), cache=model.new_cache(1, 4))


def test_probabilities_chain() -> None:
    """All continuations of two tokens share out the whole probability: the model is a distribution over texts."""
    model, vocabulary = lively(dataclasses.replace(PLAIN, vocab_size=5)), 5
    pairs = torch.cartesian_prod(torch.arange(vocabulary), torch.arange(vocabulary))
    tokens = torch.cat([torch.full((len(pairs), 1), 3), pairs], dim=1)
    log_probs = model(tokens[:, :-1]).log_softmax(dim=-1)
    of_pairs = log_probs.gather(2, tokens[:, 1:, None]).sum(dim=(1, 2))
    assert torch.allclose(of_pairs.exp().sum(), torch.ones((), dtype=torch.float64))


def test_learned_positions_end() -> None:
    with pytest.raises(ConfigError, match="17 tokens long; the model knows 16 positions"):
        lively(VARIANTS["gpt2"])(some_tokens(1, 17))


def test_rotary_positions_go_on_and_change_base() -> None:
    model = lively(PLAIN)
    other = lively(dataclasses.replace(PLAIN, rope_theta=500.0))
    tokens = some_tokens(1, 20)
    assert not torch.allclose(model(tokens), other(tokens), atol=1e-3)
    model.core.change_context(rope_theta=500.0, max_position_embeddings=20)
    assert torch.equal(model(tokens), other(tokens))
    assert model.config == dataclasses.replace(PLAIN, rope_theta=500.0, max_position_embeddings=20)
    with pytest.raises(ConfigError, match="learned positions is fixed"):
        lively(VARIANTS["gpt2"]).core.change_context(max_position_embeddings=20)


def test_rotary_scores_depend_on_distance_alone() -> None:
    model, tokens = lively(PLAIN), some_tokens(1, 6)
    moved = model(tokens, positions=torch.arange(100, 106)[None])
    assert torch.allclose(model(tokens), moved, atol=1e-4)


def test_dropout_is_for_training() -> None:
    config = dataclasses.replace(PLAIN, dropout=0.5)
    model, tokens = lively(config), some_tokens(1, 6)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
    assert torch.equal(model(tokens), lively(PLAIN).eval()(tokens))


def test_rotary_angles_stay_exact_in_half_precision() -> None:
    """In bfloat16 the angle of position 1000 would be that of 1004; queries and keys come back in their precision."""
    from maquette.model.rotary import rotary_table, rotate

    vectors = torch.ones(1, 2, 1, 8, dtype=torch.bfloat16)
    positions = torch.tensor([1000, 1001])
    rotation = rotary_table(positions, 8, 10_000.0, torch.bfloat16)
    assert all(part.dtype == torch.float32 for part in rotation)
    exact = rotate(vectors.double(), rotary_table(positions, 8, 10_000.0, torch.float64))
    turned = rotate(vectors, rotation)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.double(), exact, rtol=2**-8, atol=1e-4)


def test_with_a_cache_compiled_blocks_run_as_they_are() -> None:
    """Compiled for each layer's number and each length, they would reach the compiler's limit of variants."""
    model, tokens, graphs = LanguageModel(PLAIN), some_tokens(2, 6), []
    expected = model(tokens)

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    for layer in model.core.layers:
        layer.compile(dynamic=False, backend=backend)
    cache = model.new_cache(2, 6)
    parts = [model(part, cache=cache) for part in tokens.split([3, 2, 1], dim=1)]
    assert not graphs and torch.allclose(torch.cat(parts, dim=1), expected, atol=1e-6)
    assert torch.allclose(model(tokens), expected, atol=1e-6)
    assert len(graphs) == 1, "one for all layers"
