"""The weights a model starts from: a pure function of the seed, each parameter's name and the configuration.

Every parameter has random numbers of its own, so the same seed gives the same core under any head, whatever else is
built before, after or around it, and leaves the global random numbers alone.

| parameter | start | source |
|---|---|---|
| matrices, embeddings | N(0, 0.02) | Radford et al. 2019 (GPT-2) |
| attention output, feed-forward down | N(0, 0.02 / sqrt(2 layers)) | Radford et al. 2019, section 2.3 |
| norms | 1 | |
| biases | 0 | |
| token shift | 0.3 | measured for this project's small models |
| score of a scalar model | N(0, 1 / sqrt(width + 1)) | Stiennon et al. 2020, appendix B.1 |
| LSTM matrices | U(-1/sqrt(width), 1/sqrt(width)) | Hochreiter and Schmidhuber's gates as PyTorch starts them |
| LSTM forget gate's bias | 1 | Jozefowicz et al. 2015, section 2.2 |

`recipe=mup` lets deviations follow the width: parametrization.py.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from maquette.model.core_config import CoreConfig
from maquette.model.parametrization import STANDARD, Parametrization
from maquette.model.tensor_parallel import Embedding

STANDARD_DEVIATION = 0.02
TOKEN_SHIFT = 0.3


@torch.no_grad()
def initialize(
    model: nn.Module,
    config: CoreConfig,
    seed: int,
    prefix: str = "",
    *,
    parametrization: Parametrization = STANDARD,
) -> None:
    """Fills every parameter of a model or a core in place. `prefix`: what comes before its names in the whole model.

    Numbers are drawn on the CPU in float32 and then converted, so they do not depend on device or precision.
    Parameters on the meta device are left there.
    """
    preserved = _preserved(model)
    own = {name: one for name, one in model.named_parameters() if not one.is_meta and name not in preserved}
    for name, value in initial_values(own, config, seed, prefix, parametrization=parametrization):
        own[name].copy_(value)


def initial_values(
    parameters: Mapping[str, Tensor],
    config: CoreConfig,
    seed: int,
    prefix: str = "",
    *,
    parametrization: Parametrization = STANDARD,
) -> Iterator[tuple[str, Tensor]]:
    """What `initialize` fills them with, one after another: one of them alone is in memory."""
    for name, parameter in parameters.items():
        short = (prefix + name).removeprefix("core.")
        factor = parametrization.deviation_factor(short, config)
        yield name, initial_value(short, parameter.shape, config, seed).mul_(factor)


_STARTED_HERE = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.LSTM)


def _preserved(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that a user's own classes have started with values of theirs: all of a core of theirs
    (`keeps_initialization`), and of activations and attention layers what is not a linear layer or an embedding."""
    names: set[str] = set()
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if getattr(module, "keeps_initialization", False):
            names |= {prefix + below for below, _ in module.named_parameters()}
        elif not isinstance(module, _STARTED_HERE) and type(module).__module__.partition(".")[0] != "maquette":
            names |= {prefix + own for own, _ in module.named_parameters(recurse=False)}
    return frozenset(names)


def initial_value(name: str, shape: torch.Size, config: CoreConfig, seed: int) -> Tensor:
    """The start of the parameter `name` (without a leading `core.`), float32 on the CPU."""
    leaf = name.rsplit(".", 1)[-1]
    if name.startswith("lstm."):
        return _lstm_value(name, leaf, shape, config.hidden_size, seed)
    if leaf == "bias":
        return torch.zeros(shape)
    if name == "token_shift":
        return torch.full(shape, TOKEN_SHIFT)
    if len(shape) == 1:
        return torch.ones(shape)
    deviation = STANDARD_DEVIATION
    if name == "score.weight":
        deviation = 1 / math.sqrt(config.hidden_size + 1)
    elif name.endswith(("attention.output.weight", "feed_forward.down.weight")):
        deviation /= math.sqrt(2 * config.num_hidden_layers)
    return torch.empty(shape).normal_(0.0, deviation, generator=_numbers_of(name, seed))


def _lstm_value(name: str, leaf: str, shape: torch.Size, width: int, seed: int) -> Tensor:
    if leaf.startswith("weight"):
        bound = 1 / math.sqrt(width)
        return torch.empty(shape).uniform_(-bound, bound, generator=_numbers_of(name, seed))
    bias = torch.zeros(shape)
    if leaf.startswith("bias_ih"):  # one of PyTorch's two biases; its gates are input, forget, cell, output
        bias[width : 2 * width] = 1.0
    return bias


def _numbers_of(name: str, seed: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def unfilled_embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding whose weights `initialize` fills: it draws no random numbers of its own."""
    return Embedding(rows, width, _weight=torch.empty(rows, width), _freeze=False)
