"""The ways of attention against a dense mask: packed documents, windows, prompts of some lengths, grouped queries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maquette.model import LanguageModel, attention
from maquette.model.attention import (
    PackedSequences,
    Seen,
    attend,
    dense_mask,
    packed_sequences,
    takes_packed_sequences,
    what_is_seen,
)
from support.model_variants import PLAIN, VARIANTS, lively, some_tokens

SEGMENTS = torch.tensor([[0] * 5 + [1] + [2] * 7 + [3] * 3, [4] * 9 + [5] * 4 + [-1] * 3, [6] * 16])
"""Rows of documents; the second ends in padding, the third is one document."""

CASES = {
    "documents": {"segments": SEGMENTS},
    "window": {"window": 4},
    "documents and a window": {"segments": SEGMENTS, "window": 3},
    "a window of one": {"segments": SEGMENTS, "window": 1},
    "a window wider than the row": {"segments": SEGMENTS, "window": 40},
    "whole rows": {"segments": torch.zeros_like(SEGMENTS)},
}
HEADS = {"heads": (4, 4), "grouped": (4, 2), "multi-query": (3, 1)}


def heads_of(heads: tuple[int, int], length: int = 16, keys: int = 16, seed: int = 0) -> tuple[Tensor, ...]:
    """Queries `(3, H, T, 8)`, keys and values `(3, K, S, 8)`."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((heads[0], length), (heads[1], keys), (heads[1], keys))
    return tuple(
        torch.randn(3, size, many, 8, generator=generator, dtype=torch.float64).requires_grad_() for size, many in sizes
    )


def both(
    parts: tuple[Tensor, ...], seen: Seen, window: int | None, device: str = "cpu", dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """What attention gives, and the gradients of queries, keys and values."""
    moved = [part.detach().to(device, dtype).requires_grad_() for part in parts]
    given = attend(*moved, None if seen is None else seen.to(device), window=window)
    weights = torch.randn(given.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    (given * weights.to(given)).sum().backward()
    return [given.detach(), *(part.grad for part in moved if part.grad is not None)]


def laid_end_to_end(segments: Tensor | None = None, window: int | None = None) -> Seen:
    packed = None if segments is None else packed_sequences(segments)
    device = torch.device("cpu")
    return what_is_seen(3, 16, device, window=window, segments=segments, packed=packed, apart=True)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("case", CASES)
def test_sequences_laid_end_to_end_are_what_the_dense_mask_shows(case: str, heads: str) -> None:
    settings, parts = CASES[case], heads_of(HEADS[heads])
    seen = laid_end_to_end(**settings)
    assert isinstance(seen, PackedSequences)
    dense = dense_mask(16, torch.device("cpu"), **settings)
    assert not dense.all()
    window = settings.get("window")
    for packed, masked in zip(both(parts, seen, window), both(parts, dense, window), strict=True):
        assert torch.allclose(packed, masked, rtol=0, atol=1e-12)
    half = [part.float() for part in both(parts, seen, window, dtype=torch.float32)]
    for packed, masked in zip(half, both(parts, dense, window), strict=True):
        assert torch.allclose(packed.double(), masked, rtol=0, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_they_are_too(case: str, heads: str, width: int) -> None:
    """FlashAttention in bfloat16 against the dense mask in float32, forward and backward."""
    settings = CASES[case]
    parts = tuple(part.repeat_interleave(width // 8, dim=-1) for part in heads_of(HEADS[heads]))
    window, dense = settings.get("window"), dense_mask(16, torch.device("cpu"), **settings)
    packed = both(parts, laid_end_to_end(**settings), window, "cuda", torch.bfloat16)
    for given, masked in zip(packed, both(parts, dense, window, "cuda", torch.float32), strict=True):
        assert torch.allclose(given.float(), masked, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_the_kernel_is_asked_for_what_its_reference_gives(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments of FlashAttention, which a CPU has not, as its documentation reads them."""

    def documented(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
        *, window_size: tuple[int, int], enable_gqa: bool,
    ) -> Tensor:  # fmt: skip
        given = torch.empty_like(query)
        for (first, end), (first_key, end_key) in zip(cu_seq_q.unfold(0, 2, 1), cu_seq_k.unfold(0, 2, 1), strict=True):
            queries, keys = int(end - first), int(end_key - first_key)
            assert queries <= max_q and keys <= max_k
            distance = torch.arange(keys) - (torch.arange(queries)[:, None] + keys - queries)
            allowed = (distance <= window_size[1]) & ((window_size[0] < 0) | (distance >= -window_size[0]))
            one, *others = (
                part.transpose(0, 1) for part in (query[first:end], key[first_key:end_key], value[first_key:end_key])
            )
            given[first:end] = torch.nn.functional.scaled_dot_product_attention(
                one[None], *(other[None] for other in others), attn_mask=allowed, enable_gqa=enable_gqa
            )[0].transpose(0, 1)
        return given

    seen = packed_sequences(SEGMENTS)
    laid = [part.detach().transpose(1, 2).flatten(0, 1) for part in heads_of((4, 2))]
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", documented)
    given = attention._varlen(*laid, seen, window)
    assert torch.allclose(given, attention.attend_apart(*laid, seen, window), atol=1e-12)
    monkeypatch.undo()
    shapes = [part.to("meta", torch.bfloat16) for part in laid]
    assert attention._varlen(*shapes, seen.to("meta"), window).shape == given.shape  # PyTorch's own check of them


@pytest.mark.parametrize("window", [None, 3, 1])
@pytest.mark.parametrize("used", [0, 2, 6])
def test_prompts_of_different_lengths(used: int, window: int | None) -> None:
    """New columns after those in a cache whose rows begin at different ones; what padding attends to is nobody's."""
    starts, length = torch.tensor([0, 5, used + 3]), 4
    parts = heads_of((4, 2), length, used + length)
    packed = attention._padded_rows(starts, used, length)
    dense = dense_mask(length, torch.device("cpu"), window=window, used=used, starts=starts)
    given, masked = attend(*parts, packed, window=window), attend(*parts, dense)
    text = torch.arange(used, used + length) >= starts[:, None]
    assert given.isfinite().all()
    assert torch.allclose(given.transpose(1, 2)[text], masked.transpose(1, 2)[text], atol=1e-12)


@pytest.mark.parametrize(("masked", "dtype"), [(True, torch.bfloat16), (True, torch.float32), (False, torch.float32)])
def test_grouped_queries_get_copies_where_a_gpu_would_write_all_scores(
    masked: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def kernel(query: Tensor, key: Tensor, value: Tensor, **options: object) -> Tensor:
        given.update(options, heads=(key.size(1), value.size(1)))
        return query

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", kernel)
    parts = [part.to("meta", dtype) for part in heads_of((4, 2))]
    attend(*parts, dense_mask(16, torch.device("meta"), window=3) if masked else None)
    assert given["heads"] == (4, 4) and given["enable_gqa"] is False and given["is_causal"] is not masked
    attend(*(part.bfloat16() for part in parts), None)  # FlashAttention takes groups
    assert given["heads"] == (2, 2) and given["enable_gqa"] is True


def test_bounds_cover_the_longest_and_are_few() -> None:
    bounds = set()
    for longest in range(1, 65):
        segments = torch.cat([torch.zeros(longest), torch.arange(1, 65 - longest)])[None].long()
        packed = packed_sequences(segments)
        assert int(packed.cu_seq_q.diff().max()) == longest <= packed.max_q == packed.max_k
        assert packed.cu_seq_q.dtype == torch.int32 and packed.cu_seq_q[-1] == 64
        bounds.add(packed.max_q)
    assert bounds == {8, 16, 32, 64}


def test_who_is_laid_end_to_end() -> None:
    short, long = attention.LONG_ON_CPU - 1, attention.LONG_ON_CPU
    values = torch.zeros(1)
    assert takes_packed_sequences(values, long, 64, 0.0, cached=False)
    assert not takes_packed_sequences(values, short, 64, 0.0, cached=False)  # bits of short sequences stay
    assert not takes_packed_sequences(values, long, 64, 0.1, cached=False)
    assert not takes_packed_sequences(values, long, 64, 0.0, cached=True)
    plain = what_is_seen(3, 16, torch.device("cpu"), window=16, apart=True)
    assert plain is None  # a window as wide as the row hides nothing


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Sets whether short rows are laid end to end on a CPU."""
    return lambda on: monkeypatch.setattr(attention, "LONG_ON_CPU", 2 if on else 10**9)


@pytest.mark.parametrize("name", ["llama", "grouped", "qwen3", "window", "local_and_global", "token_shift"])
def test_a_model_with_packed_documents(name: str, apart: Callable[[bool], None]) -> None:
    tokens, results = some_tokens(3, 16), []
    for on in (True, False):
        apart(on)
        model = lively(VARIANTS[name])
        logits = model(tokens, segments=SEGMENTS)
        logits.square().mean().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for packed, dense in zip(*results, strict=True):
        assert torch.allclose(packed, dense, rtol=1e-9, atol=1e-9)


def test_a_window_without_documents(apart: Callable[[bool], None]) -> None:
    model, tokens = lively(VARIANTS["window"]), some_tokens(3, 16)
    apart(True)
    packed = model(tokens)
    apart(False)
    assert torch.allclose(packed, model(tokens), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(packed, lively(PLAIN)(tokens), atol=1e-3)


def test_a_window_needs_no_values(apart: Callable[[bool], None]) -> None:
    """Memory is predicted with fake tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    apart(True)
    with FakeTensorMode():
        logits = LanguageModel(VARIANTS["local_and_global"])(torch.zeros(3, 16, dtype=torch.int64))
        logits.sum().backward()
    assert logits.shape == (3, 16, 23)


def test_compiled_layers_are_compiled_once_for_any_number_of_documents(apart: Callable[[bool], None]) -> None:
    apart(True)
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model, tokens = LanguageModel(PLAIN), some_tokens(3, 16)
    for block in model.core.layers:
        block.compile(dynamic=False, backend=backend)
    counts = []
    for documents in (5, 4, 6):
        segments = (torch.arange(16) * documents // 16).repeat(3, 1)
        compiled = model(tokens, segments=segments)
        with torch.compiler.set_stance("force_eager"):
            assert torch.allclose(compiled, model(tokens, segments=segments), atol=1e-6)
        counts.append(len(graphs))
    assert counts[0] == counts[1] == counts[2] > 0
