"""From a sweep over a hyperparameter to the recipe's constants: the learning rate's law in width, the batch's in D.

Curves are read where only the setting differs: of each width (for the batch, of each token budget) the group of runs
with the most values of the setting counts. A fitted law replaces the recipe's constants, and keeps the others.
"""

import dataclasses
import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.recipe.rules import HyperparameterRules
from maquette.reports.figures import COLORS, draw_law, new_figure, size_colors
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.runs import Array, LawError
from maquette.scaling.laws.setting_law import SettingLaw, fit_setting_law

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "learning_rate": ("optimizer.lr", "learning_rate", "lr", "rate"),
    "batch": ("data.batch_size_tokens", "batch_size_tokens", "batch"),
    "width": ("model.hidden_size", "hidden_size", "d_model", "width"),
}
"""Under which names a table may have each, the store's own first."""


@dataclass(frozen=True)
class TunedRecipe:
    """The law of a setting and the recipe that follows. `scale` and `setting` (n,) are the runs' that count.

    `scale_name`: width or D. `setting` of the learning rate is what it would be at the recipe's base batch.
    """

    name: str
    scale_name: str
    scale: Array
    setting: Array
    loss: Array
    law: SettingLaw
    rules: HyperparameterRules
    warnings: tuple[str, ...]

    @property
    def words(self) -> str:
        """The law in a sentence."""
        law = self.law.law
        low, high = law.interval["exponent"]
        sure = f"90%: {low:.3f} to {high:.3f}" if np.isfinite(low) else f"{len(self.law.optima)} points, no interval"
        name = self.name.replace("_", " ")
        return f"Best {name} = {law.coefficient:.4g} x {self.scale_name}^{law.exponent:.3f} ({sure})."


def tune(table: RunTable, name: str, level: float = 0.9, *, fitted: str | None = None) -> TunedRecipe:
    """The recipe with the law of `name` (learning_rate or batch) fitted to `table`.

    `fitted`: the time to write into its provenance (default: now). Raises `LawError` where a column is missing or fewer
    than two scales have a best value inside of what was tried.
    """
    base = recorded_rules(table)
    setting = column(table, name)
    if name == "learning_rate":
        scale, scale_name = column(table, "width"), "width"
        batch = column(table, "batch", missing=np.full(len(table), float(base.base_batch_size_tokens)))
        # One curve needs one batch: what the recipe's own law says of it is taken out.
        setting = setting / (batch / base.base_batch_size_tokens) ** base.lr_batch_exponent
    else:
        scale, scale_name = table.tokens, "D"
    rows, warnings = _comparable(table, scale, setting)
    law = fit_setting_law(scale[rows], setting[rows], table.loss[rows], name=name.replace("_", " "), level=level)
    rules = _with_rate(base, law) if name == "learning_rate" else _with_batch(base, law)
    exponent = law.law.interval["exponent"]
    provenance = {
        "runs": [table.names[row] for row in rows],
        "intervals": {"exponent": [float(end) for end in exponent]} if np.all(np.isfinite(exponent)) else {},
        "fitted": fitted or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    source = f"{name} of {table.source}: {len(rows)} runs, best at {len(law.optima)} values of {scale_name}"
    rules = dataclasses.replace(rules, source=source, provenance=provenance)
    return TunedRecipe(
        name, scale_name, scale[rows], setting[rows], table.loss[rows], law, rules, (*warnings, *law.warnings)
    )


def recorded_rules(table: RunTable) -> HyperparameterRules:
    """The recipe that the runs were trained by, as far as all of them recorded the same constants."""
    known: dict[str, Any] = {}
    for field in dataclasses.fields(HyperparameterRules):
        values = table.frame.get(f"recipe.{field.name}")
        if values is not None and values.notna().all() and values.nunique() == 1 and field.name != "source":
            only = values.iloc[0]
            known[field.name] = type(getattr(HyperparameterRules(), field.name))(only)
    return HyperparameterRules(**known)


def column(table: RunTable, name: str, *, missing: Array | None = None) -> Array:
    """A column (n,) of `COLUMNS`; `missing` where the table has none. Raises `LawError` saying how to call it."""
    import pandas as pd

    names = [f"{prefix}{alias}" for alias in COLUMNS[name] for prefix in ("", "params.")]
    lowered = {str(known).lower(): known for known in table.frame.columns}
    for alias in names:
        if alias in lowered:
            values = pd.to_numeric(table.frame[lowered[alias]], errors="coerce").to_numpy(dtype=float)
            if not np.isnan(values).any():
                return values
    if missing is not None:
        return missing
    raise LawError(f"{table.source} has no column for the {name.replace('_', ' ')}.", f"Name it {COLUMNS[name][-1]}.")


def _comparable(table: RunTable, scale: Array, setting: Array) -> tuple[Array, list[str]]:
    """Rows that belong to one curve for each scale, and a word on those that do not."""
    comparable: list[int] = []
    left = 0
    for at in np.unique(scale):
        rows = np.flatnonzero(scale == at)
        groups: dict[tuple[float, float], list[int]] = {}
        for row in rows.tolist():
            groups.setdefault((round(np.log(table.params[row]), 3), round(np.log(table.tokens[row]), 2)), []).append(
                row
            )
        best = max(groups.values(), key=lambda group: (len(np.unique(setting[group])), table.tokens[group[0]]))
        comparable += best
        left += len(rows) - len(best)
    messages = [f"{left} runs of another size or token budget than their curve's are left out."] if left else []
    return np.array(sorted(comparable)), messages


def _with_rate(base: HyperparameterRules, law: SettingLaw) -> HyperparameterRules:
    if base.kind == "mup":  # the parametrisation carries the rate: one number for all widths
        middle = float(np.exp(np.mean([np.log(optimum.setting) for optimum in law.optima])))
        return dataclasses.replace(base, learning_rate=middle)
    return dataclasses.replace(base, learning_rate=float(law.coefficient), lr_width_exponent=float(law.exponent))


def _with_batch(base: HyperparameterRules, law: SettingLaw) -> HyperparameterRules:
    """batch = c D^b is base_batch (D / base_tokens)^b with base_tokens = (base_batch / c)^(1/b)."""
    if law.exponent <= 0:
        raise LawError(
            f"The best batch falls with the tokens (exponent {law.exponent:.2f}): no recipe follows from that.",
            "Look at the curves: the loss may hardly depend on the batch in this range.",
        )
    base_tokens = (base.base_batch_size_tokens / law.coefficient) ** (1 / law.exponent)
    return dataclasses.replace(base, base_tokens=float(base_tokens), batch_tokens_exponent=float(law.exponent))


def tuned_facts(tuned: TunedRecipe) -> dict[str, Any]:
    """The law and the recipe as plain values."""
    law = tuned.law.law
    return {
        "setting": tuned.name,
        "scale": tuned.scale_name,
        "coefficient": law.coefficient,
        "exponent": law.exponent,
        "interval": {
            name: [float(end) if np.isfinite(end) else None for end in ends] for name, ends in law.interval.items()
        },
        "optima": [optimum._asdict() for optimum in tuned.law.optima],
        "recipe": dataclasses.asdict(tuned.rules),
        "warnings": list(tuned.warnings),
    }


def tuned_figure(tuned: TunedRecipe) -> "Figure":
    """Left the curves with their minima, right the line through these, with its interval."""
    from matplotlib.ticker import NullFormatter

    figure, (left, right) = new_figure(1, 2, width=5.2, height=4.0)
    scales = np.unique(tuned.scale)
    colors = size_colors(len(scales))
    label = tuned.name.replace("_", " ") + (" (tokens)" if tuned.name == "batch" else "")
    for at, color in zip(scales, colors, strict=True):
        rows = np.flatnonzero(tuned.scale == at)
        rows = rows[np.argsort(tuned.setting[rows])]
        left.plot(
            tuned.setting[rows], tuned.loss[rows], "o-", ms=4, lw=1, color=color, label=f"{tuned.scale_name} {at:g}"
        )
    for optimum in tuned.law.optima:
        left.plot(optimum.setting, optimum.loss, "k*", ms=11, mfc="white")
    left.set(xscale="log", xlabel=label, ylabel="loss (nats per token)", title="Loss over the setting")
    left.xaxis.set_minor_formatter(NullFormatter())  # labels of the minor ticks run into each other
    left.legend(fontsize=8)
    law = tuned.law.law
    fine = np.geomspace(scales.min() / 1.5, scales.max() * 8, 60)
    right.plot([o.scale for o in tuned.law.optima], [o.setting for o in tuned.law.optima], "k*", ms=11, mfc="white")
    draw_law(right, fine, law, COLORS[0], f"{law.coefficient:.3g} x {tuned.scale_name}^{law.exponent:.2f}", band="90%")
    right.set(xscale="log", yscale="log", xlabel=tuned.scale_name, ylabel=label, title="Best setting")
    right.legend(fontsize=8)
    return figure
