"""Chunked, plain and PyTorch's own cross-entropy agree, with gradients; and the chunks keep memory small."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maquette.model import next_token_loss, token_log_probs
from maquette.model.likelihoods import ACCELERATOR_BYTES, _logits_at_once, token_statistics
from maquette.model.linear import use_backend

TIGHT = {torch.float32: 1e-5, torch.float64: 1e-10}


def example(
    dtype: torch.dtype = torch.float64, rows: int = 21, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states (3, rows / 3, 8), a head (50, 8), targets and a mask."""
    generator = torch.Generator().manual_seed(0)
    hidden = (
        torch.randn(3, rows // 3, 8, generator=generator, dtype=torch.float64).mul(scale).to(dtype).requires_grad_()
    )
    head = torch.randn(50, 8, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(50, (3, rows // 3), generator=generator)
    return hidden, head, targets, torch.rand(3, rows // 3, generator=generator) > 0.3


def with_gradients(loss: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, head: Tensor) -> tuple[Tensor, ...]:
    value = loss(hidden, head)
    return value.detach(), *torch.autograd.grad(value, (hidden, head))


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(sorted(TIGHT, key=str)),
    softcap=st.sampled_from([None, 2.0, 30.0]),
    z_loss=st.sampled_from([0.0, 0.1]),
    masked=st.booleans(),
    limit=st.sampled_from([1, 50, 170, 400, 1049]),
    divisor=st.sampled_from([None, 3.0]),
)
def test_chunks_change_nothing(
    dtype: torch.dtype, softcap: float | None, z_loss: float, masked: bool, limit: int, divisor: float | None
) -> None:
    hidden, head, targets, mask = example(dtype)
    results, singles = [], []
    for logits_limit in (10**9, limit):

        def loss(hidden: Tensor, head: Tensor, logits_limit: int = logits_limit) -> Tensor:
            total, single = next_token_loss(
                hidden, head, targets, mask if masked else None,
                logit_softcap=softcap, z_loss=z_loss, logits_limit=logits_limit, divisor=divisor,
            )  # fmt: skip
            singles.append(single)
            assert not single.requires_grad
            return total * 1.7

        results.append(with_gradients(loss, hidden, head))
    for plain, chunked in zip(*results, strict=True):
        assert torch.allclose(plain, chunked, rtol=TIGHT[dtype], atol=TIGHT[dtype])
    assert torch.allclose(*singles, rtol=TIGHT[dtype], atol=TIGHT[dtype])


@pytest.mark.parametrize("limit", [10**9, 200])
def test_it_is_pytorch_s_own_cross_entropy(limit: int) -> None:
    hidden, head, targets, mask = example()
    ours = with_gradients(lambda x, w: next_token_loss(x, w, targets, logits_limit=limit)[0], hidden, head)
    theirs = with_gradients(lambda x, w: F.linear_cross_entropy(x.flatten(0, 1), w, targets.flatten()), hidden, head)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    ignored = targets.masked_fill(~mask, -100).flatten()
    ours = with_gradients(lambda x, w: next_token_loss(x, w, targets, mask, logits_limit=limit)[0], hidden, head)
    theirs = with_gradients(lambda x, w: F.linear_cross_entropy(x.flatten(0, 1), w, ignored), hidden, head)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_an_accelerator_gets_chunks_of_some_bytes() -> None:
    for dtype, bytes_each in ((torch.bfloat16, 4), (torch.float32, 4), (torch.float64, 8)):
        logits = _logits_at_once(torch.zeros(1, dtype=dtype, device="meta"), 7)
        assert logits * bytes_each == ACCELERATOR_BYTES
    assert _logits_at_once(torch.zeros(1), 7) == 7


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_by_onednn(masked: bool) -> None:
    hidden, head, targets, mask = example(torch.float32)

    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        return next_token_loss(hidden, head, targets, mask if masked else None, z_loss=0.1, logits_limit=200)[0]

    plain = with_gradients(loss, hidden, head)
    use_backend("onednn")
    try:
        for a, b in zip(plain, with_gradients(loss, hidden, head), strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
    finally:
        use_backend("torch")


def test_by_hand() -> None:
    """Logits 1 and 3: p = 1 / (1 + e^2) for the first; the normaliser is ln(e + e^3)."""
    hidden, head = torch.tensor([[[1.0], [1.0]]]), torch.tensor([[1.0], [3.0]])
    targets, mask = torch.tensor([[0, 1]]), torch.tensor([[True, False]])
    for limit in (1, 100):
        loss, single = next_token_loss(hidden, head, targets, logits_limit=limit)
        assert torch.allclose(single, torch.tensor([[2.126928, 0.126928]]))
        assert loss.item() == pytest.approx((2.126928 + 0.126928) / 2)
        loss, _ = next_token_loss(hidden, head, targets, mask, z_loss=0.5, logits_limit=limit)
        assert loss.item() == pytest.approx(2.126928 + 0.5 * 3.126928**2)
        loss, _ = next_token_loss(hidden, head, targets, logit_softcap=2.0, logits_limit=limit)
        assert loss.item() == pytest.approx((1.231265 + 0.345202) / 2)  # of 2 tanh(1/2) and 2 tanh(3/2)


def test_a_mask_without_tokens_gives_zero() -> None:
    hidden, head, targets, mask = example()
    for limit in (100, 10**9):
        value = with_gradients(
            lambda x, w, limit=limit: next_token_loss(x, w, targets, mask & False, logits_limit=limit)[0], hidden, head
        )
        assert all((part == 0).all() for part in value)


@pytest.mark.parametrize("scale", [1e-4, 100.0])
def test_certain_and_hopeless_tokens(scale: float) -> None:
    """Probabilities that underflow still have their logarithm."""
    hidden, head, targets, _ = example(torch.float32, scale=scale)
    exact = F.cross_entropy((hidden.double() @ head.double().T).flatten(0, 1), targets.flatten(), reduction="none")
    for limit in (200, 10**9):
        _, single = next_token_loss(hidden, head, targets, logits_limit=limit)
        assert torch.allclose(single.flatten().double(), exact, rtol=1e-5, atol=1e-4)


def test_parts_of_a_batch_add_up() -> None:
    hidden, head, targets, mask = example()
    whole = with_gradients(lambda x, w: next_token_loss(x, w, targets, mask, logits_limit=100)[0], hidden, head)
    divisor = mask.sum()

    def in_parts(hidden: Tensor, head: Tensor) -> Tensor:
        losses = [
            next_token_loss(
                hidden[i : i + 1], head, targets[i : i + 1], mask[i : i + 1], logits_limit=100, divisor=divisor
            )[0]
            for i in range(3)
        ]
        return torch.stack(losses).sum()

    for a, b in zip(whole, with_gradients(in_parts, hidden, head), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("frozen", ["hidden", "head", "both"])
def test_frozen_parts_get_no_gradient(frozen: str) -> None:
    hidden, head, targets, _ = example()
    hidden.requires_grad_(frozen == "head")
    head.requires_grad_(frozen == "hidden")
    loss, _ = next_token_loss(hidden, head, targets, logits_limit=100)
    assert loss.requires_grad == (frozen != "both")
    if frozen != "both":
        loss.backward()
        assert (hidden.grad is None, head.grad is None) == (frozen == "hidden", frozen == "head")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Under autocast, and with weights in half precision throughout: as exact as the inputs, sums in float32."""
    hidden, head, targets, _ = example(torch.float32, rows=300)
    exact = with_gradients(lambda x, w: next_token_loss(x, w, targets, logits_limit=10**9)[0], hidden, head)
    with torch.autocast("cpu", dtype):
        cast = with_gradients(lambda x, w: next_token_loss(x, w, targets, logits_limit=1000)[0], hidden, head)
    half_hidden, half_head = (x.detach().to(dtype).requires_grad_() for x in (hidden, head))
    half = with_gradients(lambda x, w: next_token_loss(x, w, targets, logits_limit=1000)[0], half_hidden, half_head)
    assert cast[0].dtype == half[0].dtype == torch.float32
    assert (cast[1].dtype, half[1].dtype, half[2].dtype) == (torch.float32, dtype, dtype)
    for a, b, c in zip(exact, cast, half, strict=True):
        assert torch.allclose(a, b, rtol=2e-2, atol=1e-3)
        assert torch.allclose(a, c.float(), rtol=2e-2, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    softcap=st.sampled_from([None, 2.0]),
    temperature=st.sampled_from([1.0, 0.7]),
    entropy=st.booleans(),
    limit=st.sampled_from([1, 50, 170, 1049]),
)
def test_statistics_of_tokens_are_those_of_all_logits(
    softcap: float | None, temperature: float, entropy: bool, limit: int
) -> None:
    """Log-probabilities and entropies of the whole matrix of logits, with the gradients of any function of them."""
    hidden, head, targets, _ = example()
    weights = torch.linspace(-1.0, 2.0, targets.numel(), dtype=torch.float64)

    def chunked(hidden: Tensor, head: Tensor) -> Tensor:
        log_probs, spread = token_statistics(
            hidden.flatten(0, 1), head, targets.flatten(), logit_softcap=softcap, temperature=temperature,
            entropy=entropy, logits_limit=limit,
        )  # fmt: skip
        assert (spread is not None) == entropy
        return (weights * log_probs.exp()).sum() + (0.0 if spread is None else (weights * spread).sum())

    def plain(hidden: Tensor, head: Tensor) -> Tensor:
        logits = hidden.flatten(0, 1) @ head.T
        logits = (logits if softcap is None else softcap * torch.tanh(logits / softcap)) / temperature
        spread = torch.distributions.Categorical(logits=logits).entropy()
        chosen = logits.softmax(-1)[torch.arange(len(logits)), targets.flatten()]
        return (weights * chosen).sum() + (weights * spread * entropy).sum()

    for a, b in zip(with_gradients(plain, hidden, head), with_gradients(chunked, hidden, head), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


class Largest(TorchDispatchMode):
    """Numbers of the largest tensor that anything makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("statistics", [False, True], ids=["loss", "statistics"])
def test_chunks_never_hold_all_logits(statistics: bool) -> None:
    hidden, head, targets, mask = example(torch.float32, rows=3000)

    def backward(limit: int) -> int:
        with Largest() as largest:
            if statistics:
                flat = hidden.flatten(0, 1), head, targets.flatten()
                sum(token_statistics(*flat, entropy=True, logits_limit=limit)).sum().backward()  # type: ignore[union-attr,arg-type]
            else:
                next_token_loss(hidden, head, targets, mask, logit_softcap=30.0, z_loss=0.1, logits_limit=limit)[
                    0
                ].backward()
        return largest.numbers

    assert backward(10**9) == 3000 * 50
    assert backward(5000) == hidden.numel()  # more than 5000: the gradient of the hidden states themselves


def test_log_probs_of_tokens() -> None:
    hidden, head, targets, _ = example()
    logits = hidden @ head.T
    expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    assert torch.allclose(token_log_probs(logits, targets), expected)
    assert token_log_probs(logits.bfloat16(), targets).dtype == torch.float32
    assert torch.autograd.gradcheck(
        lambda x: token_log_probs(x, targets[:1, :2]), logits[:1, :2].detach().requires_grad_()
    )
