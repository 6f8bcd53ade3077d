"""Linear layers, and which library multiplies their matrices.

On AMD processors with AVX-512 PyTorch's own path for float32 (MKL) keeps to AVX2 and leaves half of the machine unused
that oneDNN would use. Elsewhere the two are alike, or MKL is ahead. The two differ in the last bits, so the kind of
processor alone decides (`fastest_backend`), never a measurement: two runs of the same settings are equal bit for bit,
however busy the machine is, and a run that is resumed keeps the backend it began with.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maquette.artifacts import ConfigError
from maquette.model.architecture import TransformerConfig
from maquette.model.core_config import CoreConfig
from maquette.model.tensor_parallel import group_of, leave, own

BACKENDS = ("torch", "onednn")
_backend = "torch"


def use_backend(name: str) -> None:
    """Sets what multiplies float32 matrices on a CPU in this process from now on: `torch` or `onednn`.

    Call it before anything is compiled. Raises `ConfigError` where this build of PyTorch does not have it.
    """
    if name not in BACKENDS:
        raise ConfigError(f"Linear backend {name} is not known.", f"Allowed: {', '.join(BACKENDS)}.")
    if name == "onednn" and not torch.backends.mkldnn.is_available():
        raise ConfigError("This build of PyTorch has no oneDNN.", "Start the run again on this machine.")
    global _backend
    _backend = name


def current_backend() -> str:
    """`torch` or `onednn`."""
    return _backend


class Linear(nn.Linear):
    """`weight (outputs, inputs)`, `bias (outputs,)` or None; `forward(x (..., inputs)) -> (..., outputs)`.

    Building one neither fills its weights (`initialization.initialize` does) nor draws random numbers.
    """

    def reset_parameters(self) -> None:
        """Leaves the weights as they are."""

    def forward(self, input: Tensor) -> Tensor:
        if group_of(self.weight) is None:
            return linear(input, self.weight, self.bias)
        if self.weight.placements[0].is_shard(0):  # type: ignore[attr-defined]
            return linear(input, own(self.weight), None if self.bias is None else own(self.bias))
        result = leave(linear(input, own(self.weight)), self.weight)
        return result if self.bias is None else result + self.bias


def are_plain(*layers: nn.Module) -> bool:
    """Whether each layer is a `Linear` and nothing else: no adapter around it, no hook, no other number format. Only
    then may its weight be used without calling it."""
    return all(
        type(layer) is Linear
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        for layer in layers
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x (..., inputs)`, `weight (outputs, inputs)` -> `x weight^T + bias (..., outputs)`, with the chosen backend."""
    if not uses_onednn(x):
        return F.linear(x, weight, bias)
    result: Tensor = _OneDNNLinear.apply(x, weight)
    return result if bias is None else result + bias


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """`x (N, inputs)`, `weight (outputs, inputs)` -> `x weight^T (N, outputs)`; not differentiable."""
    return _onednn(x, weight) if uses_onednn(x) else x @ weight.t()


def input_gradient(grad: Tensor, weight: Tensor, *, onto: Tensor | None = None) -> Tensor:
    """`grad (N, outputs)`, `weight (outputs, inputs)` -> `grad weight (N, inputs)`, added to `onto` in place."""
    if uses_onednn(grad):
        result = _onednn(grad, weight.t().contiguous())
        return result if onto is None else onto.add_(result)
    # Not addmm_, which PyTorch's FLOP counter does not know.
    return grad @ weight if onto is None else torch.addmm(onto, grad, weight, out=onto)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """`grad (N, outputs)`, `x (N, inputs)` -> `grad^T x (outputs, inputs)`."""
    if uses_onednn(grad):
        return _onednn(grad.t().contiguous(), x.t().contiguous())  # several times faster than on strided memory
    return grad.t() @ x


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, weight)
        return matmul(rows, weight).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        grad_rows = grad.flatten(0, -2)
        grad_x = input_gradient(grad_rows, weight).view(*grad.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        return grad_x, weight_gradient(grad_rows, rows) if ctx.needs_input_grad[1] else None


def uses_onednn(x: Tensor) -> bool:
    """Whether products with `x` are oneDNN's."""
    return (
        _backend == "onednn"
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


@torch.library.custom_op("maquette::onednn_product", mutates_args=())
def _opaque_onednn(x: Tensor, weight: Tensor) -> Tensor:
    """oneDNN's `x weight^T` as one operation that the compiler does not look into."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@_opaque_onednn.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.size(0), weight.size(0))


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return _opaque_onednn(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def fastest_backend(config: CoreConfig, processor: str) -> str:
    """The backend for a model on a processor of that name: `onednn` for Transformers on AMD's with AVX-512."""
    return "onednn" if isinstance(config, TransformerConfig) and "AMD" in processor and may_be_faster() else "torch"


def may_be_faster() -> bool:
    """Whether oneDNN is there, and the processor is of a kind on which it can be ahead."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
