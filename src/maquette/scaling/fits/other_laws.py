"""The other laws of `maquette fit`: of the learning rate, the batch, repetition, mixtures, size and tokens alone, of
families beside each other, and what a setting does; and how they are kept."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.progress import say
from maquette.recipe.recipe_file import recipe_path, save_recipe
from maquette.reports import write_page
from maquette.scaling.fits.families import compare_by, comparison_facts, comparison_figure
from maquette.scaling.fits.mixture_fit import MixtureFit, fit_mixture, mixture_facts, mixture_figure, verdict
from maquette.scaling.fits.repetition_fit import fit_epochs, repetition_facts, repetition_figure
from maquette.scaling.fits.setting_effect import effect_facts, effect_figure, effect_table, setting_effect
from maquette.scaling.fits.single_laws import fit_single_laws, single_facts, single_figure
from maquette.scaling.fits.stored_fit import LAW, RUNS
from maquette.scaling.fits.table import RunTable
from maquette.scaling.fits.tuned_recipe import tune, tuned_facts, tuned_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FoundLaw:
    """A law with its name, page `template`, `facts` for `law.json`, and what a person is told of it: `words`, and the
    command that uses it. `shown`: what else its page says."""

    label: str
    template: str
    result: Any
    words: str
    facts: Mapping[str, Any]
    figure: "Figure"
    use: str = ""
    shown: Mapping[str, Any] = field(default_factory=dict)

    def write(self, table: RunTable, folder: Path) -> dict[str, Any]:
        """Fills an artifact folder; returns what its manifest is to say."""
        write_text(folder / RUNS, table.csv())
        write_json(folder / LAW, {"source": table.source, **self.facts, "words": self.words, "use": self.use})
        page = {"result": self.result, "source": table.source, "words": self.words, **self.shown}
        write_page(folder, self.template, page, {"law": self.figure})
        return {"law": self.label}


def setting_law(table: RunTable, setting: str, *, level: float, recipe: str, outputs: str) -> FoundLaw:
    """The law of a setting (`learning_rate`, `batch`), which is written as the recipe called so."""
    tuned = tune(table, setting, level)
    path = save_recipe(tuned.rules, recipe_path(recipe, outputs))
    say(f"recipe={recipe} is {path}")
    elsewhere = [] if outputs == "outputs" else [f"outputs={outputs}"]
    line = shlex.join(["maquette", "train", "-m", "+sweep=isoflop", f"recipe={recipe}", *elsewhere])
    return FoundLaw(
        setting, "setting_law.html.j2", tuned, tuned.words, tuned_facts(tuned), tuned_figure(tuned), line,
        {"command": line},
    )  # fmt: skip


def repetition_law(table: RunTable, *, seed: int, level: float) -> FoundLaw:
    """What epochs are worth."""
    epochs = fit_epochs(table, seed=seed, level=level)
    facts, figure = repetition_facts(epochs), repetition_figure(epochs, table)
    return FoundLaw("repetition", "repetition_law.html.j2", epochs, epochs.words, facts, figure)


def mixture_law(
    table: RunTable,
    *,
    max_epochs: float,
    targets: Mapping[str, float],
    train: Callable[[RunTable, MixtureFit], float] | None = None,
) -> FoundLaw:
    """The mixing law and its optimum; with `train`, which gives the loss of the optimum trained, also whether it
    holds."""
    result = fit_mixture(table, max_epochs=max_epochs, targets=dict(targets))
    verified = None if train is None else train(table, result)
    facts, figure = mixture_facts(result, verified), mixture_figure(result, verified)
    shares = ",".join(f"{name}:{share:g}" for name, share in result.mixture.items())
    line = f"maquette train 'mixture.weights={{{shares}}}'"
    return FoundLaw("mixture", "mixing_law.html.j2", result, verdict(result, verified), facts, figure, line)


def families(table: RunTable, column: str, *, level: float) -> FoundLaw:
    """The families that a column makes, beside each other."""
    result = compare_by(table, column, level)
    facts, figure = comparison_facts(result), comparison_figure(result)
    return FoundLaw(f"by-{column}", "families.html.j2", result, result.words, facts, figure)


def size_and_tokens(table: RunTable, *, level: float) -> FoundLaw:
    """L(N) and L(D), each alone."""
    laws = fit_single_laws(table, level)
    return FoundLaw("size-and-tokens", "single_laws.html.j2", laws, laws.words, single_facts(laws), single_figure(laws))


def effect(table: RunTable, column: str, measures: Sequence[str], *, level: float) -> FoundLaw:
    """What the values of a column do at equal compute."""
    result = setting_effect(table, column, measures, level)
    tables = {name: effect_table(result, name) for name in result.points}
    return FoundLaw(
        f"effect-of-{column}", "setting_effect.html.j2", result, result.words, effect_facts(result),
        effect_figure(result), shown={"tables": tables},
    )  # fmt: skip
