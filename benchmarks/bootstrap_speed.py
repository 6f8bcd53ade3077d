"""How long do 1,000 bootstrap resamples of a loss surface take, and how long with a general minimiser?

    python benchmarks/bootstrap_speed.py

The problem is that of Besiroglu et al. 2024: five parameters, Huber's function of log loss with delta 1e-3, 240 runs.
The peers fit one resample after another from the same start: SciPy's BFGS with numeric gradients, as the published
analyses do, and L-BFGS and BFGS with exact ones, on the same objective; and variable projection, which solves for E, A
and B exactly at each (alpha, beta) and so can only do least squares (here of the relative error of the loss, the
nearest to log loss). Contenders take turns in one process on one thread, so what else the machine does falls on all
alike; each is also checked for what it reached.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares, minimize

from maquette.scaling import fit_surface
from maquette.scaling.laws.surface import BESIROGLU_2024
from maquette.statistics import resample_counts

DELTA = 1e-3


def runs(path: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and loss of 240 runs: the published ones from `path`, or as many like them on the published surface."""
    if path:
        table = np.genfromtxt(path, delimiter=",", names=True)
        table = table[table["excluded_outlier"] == 0]
        return table["n_params"], table["n_tokens"], table["loss"]
    generator = np.random.default_rng(0)
    compute = np.repeat(np.geomspace(6e18, 3e21, 10), 24)
    surface = BESIROGLU_2024.surface
    params = surface.optimal(compute).params * np.exp(generator.uniform(-1.5, 1.5, 240))
    tokens = compute / 6 / params
    return params, tokens, surface.loss(params, tokens) * np.exp(0.006 * generator.standard_t(4, 240))


def objective(theta: np.ndarray, x: np.ndarray, z: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple:
    """1,000 times the weighted Huber sum over ln E, ln A, ln B, alpha, beta, and its gradient."""
    e, a, b, alpha, beta = theta
    terms = np.stack([np.full_like(x, e), a - alpha * x, b - beta * z])
    top = terms.max(axis=0)
    log_loss = top + np.log(np.exp(terms - top).sum(axis=0))
    residual = y - log_loss
    size = np.abs(residual)
    inside = np.minimum(size, DELTA)
    pull = -weights * np.clip(residual, -DELTA, DELTA)
    share = np.exp(terms - log_loss)
    gradient = np.array(
        [pull @ share[0], pull @ share[1], pull @ share[2], -pull @ (share[1] * x), -pull @ (share[2] * z)]
    )
    return 1e3 * float(np.sum(weights * inside * (size - inside / 2))), 1e3 * gradient


def minimise_each(columns: tuple, start: np.ndarray, counts: np.ndarray, method: str) -> np.ndarray:
    """BFGS with numeric gradients (`numeric`), or `BFGS` or `L-BFGS-B` with exact ones, on each row of `counts`;
    (resamples, 5)."""
    x, z, y = (np.log(column) for column in columns)
    minima = []
    for weights in counts:
        arguments = (x, z, y, weights)
        if method == "numeric":
            result = minimize(lambda theta, *a: objective(theta, *a)[0], start, arguments, method="BFGS")
        else:
            tight = {"gtol": 1e-6} | ({"ftol": 1e-12, "maxiter": 1000} if method == "L-BFGS-B" else {})
            result = minimize(objective, start, arguments, jac=True, method=method, options=tight)
        minima.append(result.x)
    return np.array(minima)


def project_each(columns: tuple, start: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Variable projection on each row of `counts`: Gauss-Newton over (alpha, beta) of what is left when E, A and B are
    the least-squares solution; (resamples, 5)."""
    params, tokens, loss = columns
    x, z = np.log(params), np.log(tokens)
    minima = []
    for weights in counts:
        scale = np.sqrt(weights) / loss

        def solved(exponents: np.ndarray, scale: np.ndarray = scale) -> tuple[np.ndarray, np.ndarray]:
            terms = np.stack([np.ones_like(x), np.exp(-exponents[0] * x), np.exp(-exponents[1] * z)], axis=1)
            scaled = terms * scale[:, None]
            norms = np.linalg.norm(scaled, axis=0)
            factor, triangle = np.linalg.qr(scaled / norms)
            target = loss * scale
            return np.linalg.solve(triangle, factor.T @ target) / norms, target - factor @ (factor.T @ target)

        result = least_squares(lambda exponents: solved(exponents)[1], start[3:], method="lm")
        coefficients, _ = solved(result.x)
        minima.append([*np.log(np.abs(coefficients)), *result.x])
    return np.array(minima)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="CSV with n_params, n_tokens, loss, excluded_outlier")
    parser.add_argument("--resamples", type=int, default=1000, help="of the batched bootstrap")
    parser.add_argument("--each", type=int, default=25, help="resamples that each peer does per round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    columns = runs(options.runs)
    fit = fit_surface(*columns, method="huber")
    surface = fit.surface
    start = np.array([np.log(surface.E), np.log(surface.A), np.log(surface.B), surface.alpha, surface.beta])
    counts = resample_counts(240, options.each * options.rounds, np.random.default_rng(0))
    single = min(_timed(lambda: fit_surface(*columns, method="huber"))[0] for _ in range(3))

    labels = {
        "batched": "maquette, all at once",
        "projection": "variable projection",
        "L-BFGS-B": "L-BFGS, exact gradients",
        "BFGS": "BFGS, exact gradients",
        "numeric": "BFGS, numeric gradients",
    }
    seconds: dict[str, list[float]] = {name: [] for name in labels}
    alphas: dict[str, list[np.ndarray]] = {name: [] for name in labels}
    for turn in range(options.rounds):
        rows = counts[turn * options.each : (turn + 1) * options.each]
        for name in labels:
            if name == "batched":
                duration, result = _timed(
                    lambda turn=turn: fit_surface(*columns, method="huber", bootstrap=options.resamples, seed=turn)
                )
                seconds[name].append((duration - single) / options.resamples)
                alphas[name].append(result.samples[:, 3])
                continue
            peer = project_each if name == "projection" else minimise_each
            more = () if name == "projection" else (name,)
            duration, minima = _timed(lambda peer=peer, rows=rows, more=more: peer(columns, start, rows, *more))
            seconds[name].append(duration / options.each)
            alphas[name].append(minima[:, 3])

    each = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"one fit: {single * 1e3:.0f} ms")
    print(f"{'':26}{'fits/s':>9}{'1,000 take':>13}{'ratio':>8}{'sd of alpha':>14}")
    for name, label in labels.items():
        spread = np.concatenate(alphas[name]).std()
        ratio = each[name] / each["batched"]
        print(f"{label:26}{1 / each[name]:9,.0f}{1000 * each[name]:11.2f} s{ratio:8.1f}{spread:14.4f}")


def _timed(work: Callable) -> tuple:
    """Seconds of the processor, which other processes disturb less than those of the clock."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
