"""From a sweep over mixtures to the best one: a mixing law of each domain's held-out loss, and its optimum.

    maquette train -m +sweep=mixture; maquette fit laws=mixture verify=true

The optimum minimises the mean of the domains' held-out losses, weighted by what they are worth to whoever asks
(`targets`), within bounds: no domain is read more than `max_epochs` times. The law's form is the one that is the
better at runs left out in turn, which tells its error too. Seeds of a mixture are averaged; runs of a larger size
check that the order of the mixtures holds there (`mixture_checks.py`).
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import brentq

from maquette.artifacts.errors import ConfigError
from maquette.reports.figures import COLORS, new_figure
from maquette.scaling.fits.mixture_checks import (
    SAME,
    SizeCheck,
    average_seeds,
    check_size,
    noise_words,
    sizes_of,
)
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.mixing_law import MixingLaw, MixtureLaw, TransferLaw, fit_mixing_law, fit_transfer_law
from maquette.scaling.laws.runs import Array, LawError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WEIGHT = re.compile(r"(?:params\.)?mixture\.weights\.(.+)")


@dataclass(frozen=True)
class MixtureFit:
    """`weights` (runs, domains), `losses` (runs, domains) held out, a row for each mixture of the smallest size;
    `optimum` (domains,) and what the law says of it.

    `targets` (domains,): shares of the domains in the mean loss that counts. `measured`: that mean (runs,). `errors`:
    by the law's form, what it misses a run's mean by that it has not seen, root mean square in nats. `uniform` and
    `proportional` are rows, None where the sweep has none. `noise`: of a seed, in a sentence; `checks`: larger sizes.
    """

    domains: tuple[str, ...]
    names: tuple[str, ...]
    weights: Array
    losses: Array
    law: MixtureLaw
    targets: Array
    optimum: Array
    upper: Array
    errors: Mapping[str, float]
    uniform: int | None
    proportional: int | None
    noise: str
    checks: tuple[SizeCheck, ...]
    warnings: tuple[str, ...]

    @property
    def measured(self) -> Array:
        mean: Array = self.losses @ self.targets
        return mean

    @property
    def left_out_error(self) -> float:
        """Of the form that was chosen; nan where no run could be left out."""
        return self.errors[self.law.form]

    @property
    def predicted(self) -> float:
        """Mean held-out loss that the law expects under the optimum."""
        return float(self.law.losses(self.optimum) @ self.targets)

    @property
    def transfers(self) -> Array:
        """(domains, domains): by what a domain's held-out loss (row) moves for each hundredth of the tokens that a
        domain (column) gets from all others alike, at the optimum, in nats."""
        slopes = self.law.slopes(self.optimum)
        moved: Array = (slopes - (slopes @ self.optimum)[:, None]) / 100
        return moved

    @property
    def mixture(self) -> dict[str, float]:
        """The optimum, by domain, to four decimals."""
        return {name: round(float(share), 4) for name, share in zip(self.domains, self.optimum, strict=True)}


_FITS = {MixingLaw.form: fit_mixing_law, TransferLaw.form: fit_transfer_law}


def fit_mixture(table: RunTable, *, max_epochs: float = 4.0, targets: Mapping[str, float] | None = None) -> MixtureFit:
    """Fits the law and solves for its optimum. `targets`: what each domain's held-out loss counts; by default the same.

    Raises `ConfigError` for targets that are no domains of the runs, and `LawError` where the runs have no weights, no
    losses by domain, are too few, or differ in size or tokens without having mixtures in common.
    """
    import pandas as pd

    columns = {match[1]: name for name in map(str, table.frame.columns) if (match := _WEIGHT.fullmatch(name))}
    domains = tuple(name for name in sorted(columns) if f"validation/{name}/loss" in table.frame.columns)
    if len(domains) < 2:
        raise LawError(
            f"{table.source} has no mixture.weights of two domains with a held-out loss each.",
            "Train a sweep over mixtures: maquette train -m +sweep=mixture.",
        )
    frame = table.frame
    weights = np.column_stack([pd.to_numeric(frame[columns[name]]).fillna(0.0).to_numpy(float) for name in domains])
    losses = np.column_stack([pd.to_numeric(frame[f"validation/{name}/loss"]).to_numpy(float) for name in domains])
    weights = weights / weights.sum(axis=1, keepdims=True)
    shares = _shares(domains, targets, table.source)
    smallest, *larger = sizes_of(table)
    mixtures = average_seeds(weights[smallest], losses[smallest], shares)
    checks = tuple(
        check_size(
            mixtures, average_seeds(weights[rows], losses[rows], shares), shares,
            float(table.params[rows[0]]), float(table.tokens[rows[0]]), table.source,
        )
        for rows in larger
    )  # fmt: skip
    first = smallest[mixtures.first]
    frame, weights, losses = frame.iloc[first], mixtures.weights, mixtures.losses
    upper = _upper(frame, domains, weights, max_epochs)
    errors = {form: _left_out_error(form, weights, losses, shares) for form in _FITS}
    known = {form: error for form, error in errors.items() if np.isfinite(error)}
    form = min(known, key=known.__getitem__) if known else MixingLaw.form
    law: MixtureLaw = _FITS[form](weights, losses)
    optimum = law.optimum(shares, np.zeros(len(domains)), upper)
    uniform = _row(weights, np.full(len(domains), 1 / len(domains)))
    warnings = []
    if len(weights) < 3 * (len(domains) + 1):
        warnings.append(
            f"{len(weights)} mixtures for a law of {len(domains) + 1} numbers for each domain: more make it surer."
        )
    names = tuple(table.names[row] for row in first)
    return MixtureFit(
        domains, names, weights, losses, law, shares, optimum, upper, errors, uniform,
        _proportional(frame, domains, weights), noise_words(mixtures), checks, tuple(warnings),
    )  # fmt: skip


def _epochs(frame: Any, domains: tuple[str, ...], weights: Array) -> Array:
    """Tokens of a run over each domain's tokens (domains,), from how often runs read it; nan where no run says."""
    import pandas as pd

    ratio = np.full(len(domains), np.nan)
    for place, name in enumerate(domains):
        if (column := f"epochs/{name}") in frame.columns:
            read = pd.to_numeric(frame[column]).to_numpy(float)
            known = (weights[:, place] > 0.02) & np.isfinite(read)
            if known.any():
                ratio[place] = float(np.median(read[known] / weights[known, place]))
    return ratio


def _upper(frame: Any, domains: tuple[str, ...], weights: Array, max_epochs: float) -> Array:
    """The largest weight of each domain: what `max_epochs` allow, or what the runs have tried.

    Raises `ConfigError` where so many epochs of all domains together are shorter than the runs.
    """
    ratio = _epochs(frame, domains, weights)
    largest = np.maximum(weights.max(axis=0), 1 / len(domains))  # no further than the law has seen

    def bounds(epochs: float) -> Array:
        return np.where(np.isfinite(ratio), np.minimum(largest, epochs / np.maximum(ratio, 1e-12)), largest)

    upper = bounds(max_epochs)
    if upper.sum() < 1:
        needed = brentq(lambda epochs: bounds(epochs).sum() - 1, max_epochs, float(np.nanmax(ratio)))
        raise ConfigError(
            f"max_epochs={max_epochs:g} leaves no mixture: runs of this length need {np.ceil(10 * needed) / 10:g}.",
            "Allow as many, or fit a sweep of shorter runs or more text.",
        )
    return upper


def _row(weights: Array, wanted: Array) -> int | None:
    distance = np.abs(weights - wanted).max(axis=1)
    return int(distance.argmin()) if distance.min() <= SAME else None


def _proportional(frame: Any, domains: tuple[str, ...], weights: Array) -> int | None:
    ratio = _epochs(frame, domains, weights)
    if not np.isfinite(ratio).all():
        return None
    share = 1 / ratio
    distance = np.abs(weights - share / share.sum()).max(axis=1)
    return int(distance.argmin()) if distance.min() <= 0.02 else None


def _shares(domains: tuple[str, ...], targets: Mapping[str, float] | None, source: str) -> Array:
    if not targets:
        return np.full(len(domains), 1 / len(domains))
    for name, value in targets.items():
        if name not in domains:
            raise ConfigError(f"targets.{name} is no domain of {source}.", f"Domains: {', '.join(domains)}.")
        if not value >= 0:
            raise ConfigError(f"targets.{name}={value} is negative.", "A domain counts 0 or more.")
    shares = np.array([float(targets.get(name, 0.0)) for name in domains])
    if shares.sum() <= 0:
        raise ConfigError("targets are all 0.", f"Give one of them more: {', '.join(domains)}.")
    return shares / shares.sum()


def _left_out_error(form: str, weights: Array, losses: Array, targets: Array) -> float:
    """Root mean square of a run's mean loss less what the law of the others says; nan where too few are left."""
    errors = []
    for row in range(len(weights)):
        others = np.arange(len(weights)) != row
        try:
            law = _FITS[form](weights[others], losses[others], starts=4)
        except LawError:
            return float("nan")
        errors.append(float((law.losses(weights[row]) - losses[row]) @ targets))
    return float(np.sqrt(np.mean(np.square(errors))))


def verdict(fit: MixtureFit, verified: float | None) -> str:
    """What the law says, and where the optimum was trained, whether it held."""
    best = int(fit.measured.argmin())
    words = (
        f"The best mixture by the {fit.law.form} law: {_in_words(fit.mixture)}; expected mean held-out loss"
        f"{_counted(fit)} {fit.predicted:.4f} "
        f"nats per token (best of {len(fit.names)} tried: {fit.measured[best]:.4f}; the law misses a run that it "
        f"has not seen by {fit.left_out_error:.4f})."
    )
    for name, row in (("uniform", fit.uniform), ("size-proportional", fit.proportional)):
        if row is not None:
            words += f" The {name} mixture: {fit.measured[row]:.4f}."
    words = " ".join([words, fit.noise, *(check.words for check in fit.checks)])
    if verified is None:
        return words
    rivals = {"uniform": fit.uniform, "size-proportional": fit.proportional}
    beaten = [name for name, row in rivals.items() if row is not None and verified < fit.measured[row]]
    lost = [name for name, row in rivals.items() if row is not None and verified >= fit.measured[row]]
    words += f" Trained, it came to {verified:.4f}"
    words += f": better than the {' and the '.join(beaten)} one" if beaten else ""
    words += f"; not better than the {' and the '.join(lost)} one" if lost else ""
    return words + "."


def _counted(fit: MixtureFit) -> str:
    if np.ptp(fit.targets) < 1e-9:
        return ""
    named = [f"{name} {share:.0%}" for name, share in zip(fit.domains, fit.targets, strict=True) if share]
    return f" ({', '.join(named)})"


def _in_words(mixture: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in mixture.items())


def mixture_facts(fit: MixtureFit, verified: float | None) -> dict[str, Any]:
    """The law, its optimum and the runs as plain values."""
    return {
        "domains": list(fit.domains),
        "runs": {
            name: {"weights": row.tolist(), "losses": losses.tolist()}
            for name, row, losses in zip(fit.names, fit.weights, fit.losses, strict=True)
        },
        "targets": dict(zip(fit.domains, fit.targets.tolist(), strict=True)),
        "law": {"form": fit.law.form}
        | {
            field.name: getattr(fit.law, field.name).tolist()
            for field in dataclasses.fields(fit.law)  # type: ignore[arg-type]
            if field.name != "residuals"
        },
        "errors": dict(fit.errors),
        "upper": fit.upper.tolist(),
        "optimum": fit.mixture,
        "predicted": fit.predicted,
        "left_out_error": fit.left_out_error,
        "uniform": None if fit.uniform is None else float(fit.measured[fit.uniform]),
        "proportional": None if fit.proportional is None else float(fit.measured[fit.proportional]),
        "verified": verified,
        "noise": fit.noise,
        "checks": [check._asdict() for check in fit.checks],
        "warnings": list(fit.warnings),
    }


def mixture_figure(fit: MixtureFit, verified: float | None) -> "Figure":
    """Left: measured against fitted mean loss; right: the optimum beside the mixtures to beat."""
    figure, (left, right) = new_figure(1, 2, width=5.2, height=4.0)
    fitted = fit.law.losses(fit.weights) @ fit.targets
    left.plot(fitted, fit.measured, "o", color=COLORS[0], alpha=0.7, label="mixtures tried")
    for name, row, color in (("uniform", fit.uniform, COLORS[1]), ("proportional", fit.proportional, COLORS[2])):
        if row is not None:
            left.plot(fitted[row], fit.measured[row], "s", color=color, label=name)
    if verified is not None:
        left.plot(fit.predicted, verified, "k*", ms=13, mfc="white", label="optimum, trained")
    else:
        left.axvline(fit.predicted, color="k", lw=1, ls=":", label="optimum, expected")
    ends = [min(fitted.min(), fit.predicted), fitted.max()]
    left.plot(ends, ends, color="0.6", lw=1)
    left.set(xlabel="mean held-out loss by the law (nats per token)", ylabel="measured", title="The law and the runs")
    left.legend(fontsize=8)
    place = np.arange(len(fit.domains))
    bars = [("optimum", fit.optimum, "0.2")]
    for name, row, color in (("uniform", fit.uniform, COLORS[1]), ("proportional", fit.proportional, COLORS[2])):
        if row is not None:
            bars.append((name, fit.weights[row], color))
    for number, (name, shares, color) in enumerate(bars):
        right.bar(place + 0.27 * (number - (len(bars) - 1) / 2), shares, 0.25, color=color, label=name)
    right.set(xticks=place, ylabel="share of training tokens", title="Mixtures")
    right.set_xticklabels(fit.domains, rotation=30, ha="right")
    right.legend(fontsize=8)
    return figure
