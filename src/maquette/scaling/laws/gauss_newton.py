"""Many small nonlinear least-squares problems at once: damped Gauss-Newton (Levenberg-Marquardt) over a batch.

A law is fitted a thousand times: from twenty starts, then to a thousand bootstrap resamples. Each problem has
tens of points and three to six parameters, so one call of a general minimiser spends its time in Python. Here all
problems step together: prediction and Jacobian of the whole batch, one batched matrix product for the normal
equations, one batched solve. A step that does not lower a problem's objective is taken back and that problem's
damping is raised (Marquardt 1963); problems that have converged leave the batch.

The objective is sum_i w_i rho(y_i - f_i(theta)), with rho the square (divided by two) or Huber's function
(quadratic within `delta`, linear outside; Huber 1964). Huber's curvature is that of the points within `delta`
alone, which can be fewer than there are parameters. Reweighting (each outlying point counts delta/|r|) always
descends, but slowly; so steps begin as reweighted ones and turn into Newton's as they succeed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maquette.scaling.laws.runs import Array


class Curves(Protocol):
    """A family of curves over fixed points: parameters (batch, p) -> predictions and their derivatives."""

    @property
    def lower(self) -> Array:
        """Lower bounds of the parameters, (p,)."""
        ...

    @property
    def upper(self) -> Array:
        """Upper bounds of the parameters, (p,)."""
        ...

    def predict(self, theta: Array) -> tuple[Array, Array]:
        """`theta` (batch, p) -> prediction (batch, n) and Jacobian (batch, p, n)."""
        ...


PRIOR_WIDTH = 10.0
"""A parameter that the points do not determine at all is known to this: in E's nats, or in logarithms."""

Projection = Callable[[Array, Array, Array], Array]
"""(theta, target, weights) -> theta with its linear parameters replaced by the best ones: variable projection."""


@dataclass(frozen=True)
class Minima:
    """What the batch reached: `theta` (batch, p), `objective` (batch,), and which problems `converged` (batch,)."""

    theta: Array
    objective: Array
    converged: NDArray[np.bool_]


def covariance(jacobian: Array, noise: float) -> Array:
    """Of the parameters (p, p), from the derivatives (p, n) at the points and their noise: Laplace's approximation."""
    # A fit without scatter (noise-free data) still ranks points: only ratios matter then.
    precision = jacobian @ jacobian.T / (noise**2 or 1e-12)
    return np.asarray(np.linalg.inv(precision + np.eye(len(jacobian)) / PRIOR_WIDTH**2))


def huber(residual: Array, delta: float) -> Array:
    """Huber's function, elementwise; half the square where `delta` is infinite."""
    if np.isinf(delta):
        return 0.5 * residual * residual
    inside = np.minimum(np.abs(residual), delta)
    return inside * (np.abs(residual) - 0.5 * inside)


def minimise(
    model: Curves,
    theta: Array,
    target: Array,
    weights: Array | None = None,
    *,
    delta: float = np.inf,
    project: Projection | None = None,
    iterations: int = 300,
    tolerance: float = 1e-12,
) -> Minima:
    """Minimises every problem of the batch from its own start.

    `theta` (batch, p): starts. `target`, `weights`: (n,) for all problems, or (batch, n). `tolerance`: a problem
    has converged when the decrease that the local model promises is below this share of its objective.
    With `project`, the linear parameters are solved for after each step, which makes this the variable projection
    of Golub and Pereyra (1973): the step of the others is then Kaufman's (1975).
    """
    batch, points = theta.shape[0], target.shape[-1]
    goal: Array = np.ascontiguousarray(np.broadcast_to(target, (batch, points)))
    counts: Array = np.ascontiguousarray(np.broadcast_to(np.ones(1) if weights is None else weights, (batch, points)))
    # Below this an objective is rounding error: residuals of 1e-14 of the target.
    floor = 0.5e-28 * np.sum(counts * goal**2, axis=1) + 1e-300
    bounds = model.lower, model.upper

    def place(theta: Array) -> Array:
        theta = np.clip(theta, *bounds)
        return theta if project is None else project(theta, goal, counts)

    def evaluate(theta: Array) -> tuple[Array, Array, Array]:
        prediction, jacobian = model.predict(theta)
        residual = goal - prediction
        objective = np.sum(counts * huber(residual, delta), axis=1)
        return residual, jacobian, np.where(np.isfinite(objective), objective, np.inf)

    rows = np.arange(batch)
    current = place(theta)
    residual, jacobian, objective = evaluate(current)
    damping = np.full(batch, 1e-2)
    result = Minima(current.copy(), objective.copy(), np.zeros(batch, bool))
    for _ in range(iterations):
        step, promised = _step(bounds, current, residual, jacobian, counts, damping, delta)
        trial = place(current + step)
        trial_residual, trial_jacobian, trial_objective = evaluate(trial)
        better = trial_objective <= objective
        settled = (promised <= tolerance * objective + floor) & (damping <= 1) | (damping > 1e10)
        current[better], residual[better] = trial[better], trial_residual[better]
        jacobian[better], objective[better] = trial_jacobian[better], trial_objective[better]
        damping = np.where(better, np.maximum(damping * 0.2, 1e-12), damping * 8)
        result.theta[rows], result.objective[rows], result.converged[rows] = current, objective, settled
        if settled.any():
            going = ~settled
            rows, current, damping, objective = rows[going], current[going], damping[going], objective[going]
            residual, jacobian = residual[going], jacobian[going]
            goal, counts, floor = goal[going], counts[going], floor[going]
            if not len(rows):
                break
    return result


def _step(
    bounds: tuple[Array, Array], theta: Array, residual: Array, jacobian: Array, weights: Array, damping: Array,
    delta: float,
) -> tuple[Array, Array]:  # fmt: skip
    """The damped step (batch, p), and the decrease of the objective (batch,) that its quadratic model promises."""
    lower, upper = bounds
    quadratic = np.isinf(delta)
    limited = residual if quadratic else np.clip(residual, -delta, delta)
    gradient = np.einsum("bpn,bn->bp", jacobian, weights * limited)
    if quadratic:
        curvature = weights
    else:
        size = np.abs(residual)
        inside = size <= delta
        # From reweighting (damping 1e-2 and above) to Newton as the damping falls.
        share = np.minimum(1.0, damping * 1e2)[:, None]
        curvature = weights * np.where(inside, 1.0, share * delta / np.maximum(size, delta))
    hessian = np.matmul(jacobian * curvature[:, None, :], jacobian.transpose(0, 2, 1))
    # A parameter that stands at its bound and is pushed outward stays there.
    held = (theta <= lower) & (gradient < 0) | (theta >= upper) & (gradient > 0)
    gradient = np.where(held, 0.0, gradient)
    free = ~held
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    scale = 1 / np.sqrt(np.where(free & (diagonal > 0), diagonal, 1.0))
    scaled = hessian * scale[:, :, None] * scale[:, None, :] * (free[:, :, None] & free[:, None, :])
    np.einsum("bpp->bp", scaled)[...] += damping[:, None] + held
    step = scale * np.linalg.solve(scaled, (scale * gradient)[:, :, None])[:, :, 0]
    return step, 0.5 * np.einsum("bp,bp->b", gradient, step)
