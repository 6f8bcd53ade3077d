"""The linear layer of every model here: `torch.nn.Linear` without an initialisation of its own.

Weights are filled by `initialization.py`, from a seed, so that building a model neither wastes time nor touches the
global random numbers.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`weight (outputs, inputs)`, `bias (outputs,)` or None; `forward(x (..., inputs)) -> (..., outputs)`."""

    def reset_parameters(self) -> None:
        """Leaves the weights as they are: `initialization.initialize` fills them."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)
