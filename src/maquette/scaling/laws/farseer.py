"""Farseer's form: how fast data help depends on the size (Li et al. 2025, "Predictable Scale: Part II, Farseer").

    L = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^(-exp(a1 N^alpha + b1))

The first term is what no data can mend, the second falls with D by an exponent that itself is a stretched exponential
of N. Nine parameters: it needs a wider table of runs than most, and predicts no better than five on a narrow one.

a N^k + b is written as value + slope ((N / 1e7)^k - 1) / k: value and slope per ln N at 10 million parameters, which
runs determine far better than a and b.
"""

from typing import Any

import numpy as np

from maquette.scaling.laws.runs import Array

_MIDDLE = 1e7


class Farseer:
    """See the top of this file. The bounds hold what was published (Li et al.: floor 1.1 to 2.5 nats, exponent of D .2
    to .6) with room to spare."""

    name = "farseer"
    formula = "L = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^(-exp(a1 N^alpha + b1)) (Li et al. 2025)"
    parameters = {  # noqa: RUF012
        "floor": (-2.0, 2.5), "floor_slope": (-1.0, 0.2), "gamma": (-0.5, 0.5),
        "data": (-1.0, 16.0), "data_slope": (-3.0, 3.0), "beta": (-0.5, 0.5),
        "exponent": (-4.0, 0.5), "exponent_slope": (-0.4, 0.4), "alpha": (-0.5, 0.5),
    }  # fmt: skip

    def loss(self, params: Array, tokens: Array, **of: Any) -> Array:
        """Loss in nats per token."""

        def stretched(name: str, power: str) -> Array:
            k = np.where(np.abs(of[power]) < 1e-6, 1e-6, of[power])
            return np.asarray(of[name] + of[f"{name}_slope"] * np.expm1(k * np.log(params / _MIDDLE)) / k)

        data = stretched("data", "beta") - np.exp(stretched("exponent", "alpha")) * np.log(tokens)
        return np.asarray(np.exp(stretched("floor", "gamma")) + np.exp(data))
