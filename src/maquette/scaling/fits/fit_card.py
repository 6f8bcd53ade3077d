"""The card of a fit: what somebody else must know to repeat it.

It answers what "(Mis)Fitting: A Survey of Scaling Laws" (Li et al. 2025) found missing in most papers: what the
hypothesis is, how the runs were trained and counted, which of them count, and how the law was fitted. Answers come from
what the runs recorded; what they did not record is said to be missing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maquette.reports import quantity
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.fit import CARRIED, STARTS

Answers = list[tuple[str, str]]

UNKNOWN = "not recorded in these runs"


def card(fit: SweepFit, versions: Mapping[str, str]) -> dict[str, Answers]:
    """Questions and answers by section. `versions`: of the packages that fitted."""
    return {
        "Hypothesis": _hypothesis(fit),
        "Training": _training(fit),
        "Runs": _runs(fit),
        "Fitting": _fitting(fit, versions),
    }


def _hypothesis(fit: SweepFit) -> Answers:
    forms = {
        "minima": "ln L = ln L*(C) + k/2 (ln N - ln N*(C))^2, L* and N* power laws in C",
        "additive": "L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022)",
        "kaplan": "L = (A/N^alpha + B/D)^gamma (Kaplan et al. 2020)",
        "general": "L = E + (A/N^alpha + B/D^beta)^gamma",
    }
    forms |= {name: found.custom.form.formula for name, found in fit.comparison.fits.items() if found.custom}
    chosen = (
        "by hand (form=)" if fit.forced else "by predicting the larger budgets from the smaller ones (rolling origin)"
    )
    exact = fit.table.convention == "exact"
    return [
        ("What is predicted?", "loss on held-out text at the end of training, nats per token"),
        ("By which form?", forms[fit.form]),
        ("Which forms were compared?", "; ".join(f"{name}: {forms[name]}" for name in fit.comparison.fits)),
        ("How was the form chosen?", chosen),
        ("What is N?", "parameters of core and head" if exact else "parameters of the core, without the vocabulary's"),
        ("What is D?", "tokens of training, repeated ones counted each time"),
        (
            "What is C?",
            "6 N D" if not exact or _worked_out(fit) else "training FLOPs, counted exactly, forward and backward",
        ),
        ("Over which range?", _range(fit)),
    ]


def _training(fit: SweepFit) -> Answers:
    said = Recorded(fit)
    own = said.has("tags.digest.tokens")
    return [
        ("What architecture?", said.values("model.kind", "model.activation", "model.normalization", "model.positions")),
        ("How are width and depth chosen?", said.values("model.hidden_size", "model.num_hidden_layers")),
        ("Which data?", said.values("source.kind", "tags.digest.corpus", "tags.digest.tokens")),
        ("In which mixture?", _mixture(said)),
        ("Was data repeated?", next((s.words for s in fit.suspects if s.name == "epochs"), UNKNOWN)),
        ("Which tokenizer?", said.values("tokenizer.kind", "tokenizer.vocab_size", "tags.digest.tokenizer")),
        ("Which context?", said.values("data.sequence_length")),
        ("Which optimiser?", said.values("optimizer._target_", "optimizer.weight_decay", "trainer.gradient_clip_val")),
        ("Which learning rate, and how was it tuned?", said.values("optimizer.lr", "recipe.source")),
        ("Which schedule?", said.values("scheduler._target_", "scheduler.warmup")),
        ("Which batch?", said.values("data.batch_size_tokens", unit=" tokens")),
        ("Which precision?", said.values("precision.kind")),
        ("Is there code to repeat it?", "yes: each run's settings are in its folder and in MLflow" if own else UNKNOWN),
    ]


def _mixture(said: "Recorded") -> str:
    weights = said.values("mixture.weights")
    return "in proportion to the text that each domain has" if weights == "{}" else weights


def _runs(fit: SweepFit) -> Answers:
    table = fit.table
    budgets = np.unique(table.budget)
    counts = [int(np.sum(table.budget == budget)) for budget in budgets]
    grid = ", ".join(f"{budget:.2g} FLOPs: {count}" for budget, count in zip(budgets, counts, strict=True))
    left = "; ".join(f"{name}: {why}" for name, why in table.left_out) or "none"
    noise, repeats = fit.comparison.seed_noise, np.isfinite(fit.comparison.seed_noise)
    seeds = f"{len(np.unique(table.seed))} distinct" if table.seed is not None else UNKNOWN
    return [
        ("How many runs?", f"{len(table)}, from {table.source}"),
        ("On which grid?", f"{len(budgets)} budgets ({grid})"),
        (
            "Which checkpoints?",
            "the last of each run, whose schedule has ended; none from the middle of a run"
            if "tags.kind" in table.frame.columns
            else UNKNOWN,
        ),
        ("Which runs were left out, and why?", left),
        ("Were losses smoothed or corrected?", "no"),
        ("What was worked out rather than recorded?", "; ".join(table.notes) or "nothing"),
        ("How many seeds?", seeds),
        ("How large is the noise of the seed?", f"{noise:.2%} of the loss" if repeats else "no run was repeated"),
    ]


def _fitting(fit: SweepFit, versions: Mapping[str, str]) -> Answers:
    return [
        ("Which loss function?", "squared error of the loss (surfaces), of its logarithm (power laws and parabolas)"),
        (
            "Which optimiser?",
            "batched Gauss-Newton with analytic derivatives; the additive form by variable projection. It ends where "
            "no step promises a further 1e-12 of the objective",
        ),
        ("From which starts?", f"{STARTS} over the grid of exponents, the best {CARRIED} carried to the end"),
        ("With which weights?", "all runs alike"),
        (
            "How were intervals made?",
            f"{fit.level:.0%}; {fit.bootstrap} bootstrap resamples of whole runs (surfaces), Student's t (lines); a "
            "prediction adds the runs' scatter, the form's error when it was extrapolated, and that of mixed kinds",
        ),
        ("With which seed?", str(fit.seed)),
        ("Was it tested out of sample?", _tested(fit)),
        ("Which versions?", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]


def _tested(fit: SweepFit) -> str:
    rows = [score for score in fit.comparison.scores if score.form == fit.form]
    if not rows:
        return "no: there was no budget left to predict"
    return "; ".join(
        f"at {row.reach:g} times the compute {row.error:+.1%} mean error over {row.runs} runs, {row.covered:.0%} of "
        "them inside their interval"
        for row in rows
    )


def _range(fit: SweepFit) -> str:
    table = fit.table
    columns = (("N", table.params), ("D", table.tokens), ("C", table.compute))
    return ", ".join(f"{name} {quantity(values.min())} to {quantity(values.max())}" for name, values in columns)


def _worked_out(fit: SweepFit) -> bool:
    return any("6 N D" in note for note in fit.table.notes)


class Recorded:
    """What the runs of a fit say of their settings."""

    def __init__(self, fit: SweepFit) -> None:
        self._frame = fit.table.frame

    def has(self, name: str) -> bool:
        return self._column(name) is not None

    def values(self, *names: str, unit: str = "") -> str:
        """The settings' values over all runs: one, a range, or a list."""
        said = []
        for name in names:
            column = self._column(name)
            if column is None:
                continue
            label = name.removeprefix("tags.").rpartition(".")[2] if len(names) > 1 else ""
            shown = f"{_shown(list(column))}{unit}"
            said.append(f"{label} {shown}".strip())
        return ", ".join(said) or UNKNOWN

    def _column(self, name: str) -> Any:
        for column in (name, f"params.{name}"):
            if column in self._frame.columns and self._frame[column].notna().any():
                return self._frame[column].dropna()
        return None


def _shown(values: list[Any]) -> str:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        only = str(distinct[0])
        return only[:12] if len(only) == 64 else f"{distinct[0]:g}" if isinstance(distinct[0], float) else only
    if all(isinstance(value, int | float) for value in distinct):
        return f"{min(distinct):.3g} to {max(distinct):.3g}"
    return " / ".join(str(value) for value in distinct[:4]) + (" ..." if len(distinct) > 4 else "")
