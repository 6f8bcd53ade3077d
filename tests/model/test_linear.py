"""Both libraries that multiply matrices give the same layers, and the choice between them is kept."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.artifacts import ConfigError
from maquette.model import LanguageModel, LSTMConfig, next_token_loss
from maquette.model.linear import (
    BACKENDS,
    Linear,
    current_backend,
    fastest_backend,
    input_gradient,
    linear,
    matmul,
    use_backend,
    weight_gradient,
)
from support.model_variants import PLAIN, VARIANTS, some_tokens

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def torch_afterwards() -> Iterator[None]:
    yield
    use_backend("torch")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 7), (5, 33), (2, 3, 16)])
def test_each_backend_is_f_linear(backend: str, shape: tuple[int, ...]) -> None:
    use_backend(backend)
    assert current_backend() == backend
    x, weight, bias = (
        torch.randn(shape, requires_grad=True),
        torch.randn(11, shape[-1], requires_grad=True),
        torch.randn(11),
    )
    ours, theirs = linear(x, weight, bias), F.linear(x, weight, bias)
    assert torch.allclose(ours, theirs, atol=1e-5)
    grad = torch.randn(ours.shape)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), grad), torch.autograd.grad(theirs, (x, weight), grad), strict=True
    ):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-5)
    rows, grads = x.detach().flatten(0, -2), grad.flatten(0, -2)
    assert torch.allclose(matmul(rows, weight.detach()), rows @ weight.T, atol=1e-5)
    assert torch.allclose(input_gradient(grads, weight.detach()), grads @ weight, atol=1e-5)
    onto = torch.ones_like(rows)
    assert input_gradient(grads, weight.detach(), onto=onto) is onto
    assert torch.allclose(onto, 1 + grads @ weight, atol=1e-5)
    assert torch.allclose(weight_gradient(grads, rows), grads.T @ rows, atol=1e-5)


def gradients(model: LanguageModel, tokens: Tensor) -> list[Tensor]:
    loss, _ = next_token_loss(model.core(tokens[:, :-1]), model.head_weight, tokens[:, 1:], logits_limit=100)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
def test_a_model_with_each_backend(name: str) -> None:
    """The same losses and gradients to float32, and bit for bit the same when done again."""
    model, tokens = LanguageModel(VARIANTS[name]), some_tokens(3, 9)
    expected = gradients(model, tokens)
    use_backend("onednn")
    ours, again = gradients(model, tokens), gradients(model, tokens)
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    for a, b in zip(expected, ours, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_it_is_for_full_precision_alone() -> None:
    use_backend("onednn")
    x, weight = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x.float(), weight.float()).dtype == torch.bfloat16


@pytest.mark.slow(reason="compiles")
def test_compiled_blocks_compute_the_same() -> None:
    torch._dynamo.reset()
    model, tokens = LanguageModel(dataclasses.replace(PLAIN, num_hidden_layers=1)), some_tokens(3, 9)
    expected = gradients(model, tokens)
    use_backend("onednn")
    for layer in model.core.layers:
        layer.compile(dynamic=False)
    ours, again = gradients(model, tokens), gradients(model, tokens)
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    for a, b in zip(expected, ours, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_kind_of_processor_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that is measured: a busy machine chose otherwise for a run that was killed and begun again."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    assert fastest_backend(PLAIN, "AMD EPYC 9J14 96-Core Processor") == "onednn"
    assert fastest_backend(PLAIN, "Intel(R) Xeon(R) Processor") == "torch"
    assert fastest_backend(LSTMConfig(10, 8, 1), "AMD EPYC 9J14") == "torch"
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert fastest_backend(PLAIN, "AMD EPYC 7763") == "torch"


def test_an_unknown_backend() -> None:
    with pytest.raises(ConfigError, match="openblas is not known"):
        use_backend("openblas")


def test_building_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    layer = Linear(4, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(layer, torch.nn.Linear)
