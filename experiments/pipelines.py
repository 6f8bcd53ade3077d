"""Two ways to spend the same compute, carried out for real: guess settings and keep the best, or small models, their
law and one big run.

    python experiments/pipelines.py compute=1e12 trials=5 source.limit=5000 data.sequence_length=128

The other settings are those of `maquette train`. The old way trains `trials` models with settings that somebody might
guess (size and learning rate), all at an equal share of the compute, and keeps the best. The new way spends a tenth on
small models, reads the best learning rate and the line of best sizes off them, and gives all the rest to one run.
A last run, which belongs to neither, has that run's compute and the rule of thumb's settings: what it is ahead of the
old way is owed to the size of the last run alone, what the new way is ahead of it to the tuning.
`maquette plan pipeline=compare` shows the same on a law. Run it again to resume.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, write_json
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.artifacts.targets import with_values
from maquette.cli import train
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.pretraining import resolve_recipe
from maquette.cli.tokens import make_tokens
from maquette.data.token_artifacts import TokensResult
from maquette.reports import quantity, terminal_table, write_page
from maquette.reports.figures import COLORS, new_figure
from maquette.scaling.laws.isoflop import fit_isoflop
from maquette.scaling.laws.runs import LawError
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN
from maquette.tracking import start_parent_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPUTE = "6e12"
"""FLOPs of each way where none are given: minutes on two cores."""

SMALL_SHARE = 0.1
"""Of the compute, for the new way's small models: three days of thirty."""

GUESS = 4.0
"""The old way guesses size and learning rate within this factor of the rule of thumb, either way."""

TOKENS_PER_PARAMETER = 20
"""The rule of thumb that both ways start from (Hoffmann et al. 2022)."""

_STEP = 4.0  # between the two small budgets
_SIZES = (0.5, 1.0, 2.0)
_FACTORS = (0.5, 2.0)  # of the learning rate, beside 1


@dataclasses.dataclass(frozen=True)
class Trial:
    """A run to train: `size` in parameters, `compute` in FLOPs, the recipe's learning rate times `rate_factor`."""

    size: float
    compute: float
    rate_factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a trial became, as counted: N, D, FLOPs, loss in nats per token."""

    trial: Trial
    name: str
    params: float
    tokens: float
    compute: float
    loss: float


@dataclasses.dataclass(frozen=True)
class FinalRun:
    """The new way's big run, and how it was chosen, in words."""

    trial: Trial
    words: str


def thumb_size(compute: float) -> float:
    """The size that spends `compute` at twenty tokens a parameter."""
    return float(np.sqrt(compute / (FLOPS_PER_PARAMETER_AND_TOKEN * TOKENS_PER_PARAMETER)))


def tuning_trials(compute: float, trials: int, seed: int, buildable: Callable[[float], bool]) -> list[Trial]:
    """`trials` guesses that share `compute`, log-uniform about the rule of thumb; guesses of a size that no model has
    are drawn again."""
    generator, each = np.random.default_rng(seed), compute / trials
    drawn: list[Trial] = []
    for _ in range(100 * trials):
        size, factor = np.exp(np.log(GUESS) * generator.uniform(-1, 1, 2)) * (thumb_size(each), 1.0)
        if buildable(float(size)):
            drawn.append(Trial(float(size), each, float(factor)))
        if len(drawn) == trials:
            return drawn
    raise LawError(f"{each:.2g} FLOPs are too few for any model of this family.", "Give more compute, or fewer trials.")


def small_trials(compute: float, buildable: Callable[[float], bool]) -> list[Trial]:
    """Three sizes at two budgets, and two more learning rates at the smaller: a tenth of `compute` in all."""
    shares = len(_SIZES) * (1 + 1 / _STEP) + len(_FACTORS) / _STEP
    large = SMALL_SHARE * compute / shares
    trials = [
        Trial(thumb_size(budget) * ratio, budget)
        for budget in (large / _STEP, large)
        for ratio in _SIZES
        if buildable(thumb_size(budget) * ratio)
    ]
    if not trials:
        raise LawError(f"{large:.2g} FLOPs are too few for any model of this family.", "Give more compute.")
    centre = min((trial for trial in trials), key=lambda trial: abs(np.log(trial.size / thumb_size(trial.compute))))
    return trials + [Trial(centre.size, centre.compute, factor) for factor in _FACTORS]


def final_run(small: Sequence[Trained], compute: float) -> FinalRun:
    """The one run that gets the rest, `compute` FLOPs: size by the line through the small budgets' minima, or where
    they have none by the best small run's tokens per parameter; learning rate by the best of the factors."""
    tuned = [run for run in small if run.trial.rate_factor != 1]
    beside = [run for run in small if run.trial == Trial(tuned[0].trial.size, tuned[0].trial.compute)] if tuned else []
    best = min([*tuned, *beside], key=lambda run: run.loss) if tuned else small[0]
    factor = best.trial.rate_factor
    grid = [run for run in small if run.trial.rate_factor == 1]
    columns = np.array([(run.params, run.tokens, run.loss, run.trial.compute) for run in grid]).T
    try:
        line = fit_isoflop(*columns)
        size = float(line.params_law.law.value(compute))
        words = f"N* ~ C^{line.exponent:.2f} through the minima of two small budgets"
    except LawError:
        largest = max(run.trial.compute for run in grid)
        nearest = min((run for run in grid if run.trial.compute == largest), key=lambda run: run.loss)
        size = float(nearest.params * np.sqrt(compute / nearest.compute))
        ratio = nearest.tokens / nearest.params
        words = f"the small budgets show no minimum: {ratio:.0f} tokens a parameter, as the best had"
    return FinalRun(Trial(size, compute, factor), f"{words}; learning rate {factor:g} times the recipe's")


def both_ways(
    train: Callable[[Sequence[Trial]], list[Trained]],
    buildable: Callable[[float], bool],
    compute: float,
    *,
    trials: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[list[Trained], list[Trained], Trained, Trained, str]:
    """Both ways with `train`: the old way's runs, the new way's small ones, its final run, the one of the same compute
    that nobody tuned, and how the final one was chosen.

    The new way gets what the old way really spent."""
    say(f"old way: {trials} runs of {compute / trials:.2g} FLOPs with settings that somebody might guess")
    old = train(tuning_trials(compute, trials, seed, buildable))
    spent = sum(run.compute for run in old)
    say("new way: small models")
    small = train(small_trials(spent, buildable))
    final = final_run(small, spent - sum(run.compute for run in small))
    say(f"new way: {final.words}; one run of {quantity(final.trial.size)} parameters")
    (trained,) = train([final.trial])
    say("beside them: a run of the same compute by the rule of thumb")
    (untuned,) = train([Trial(thumb_size(final.trial.compute), final.trial.compute)])
    return old, small, trained, untuned, final.words


def pipeline_facts(
    old: Sequence[Trained], small: Sequence[Trained], big: Trained, untuned: Trained, words: str
) -> dict[str, Any]:
    """The verdict as plain values. `compute` of each way is what was really spent; `of_size` and `of_tuning`, in nats,
    add up to how far the new way is ahead (below 0: behind)."""
    best = min(old, key=lambda run: run.loss)
    ahead = best.loss - big.loss
    spent = [sum(run.compute for run in runs) for runs in (old, [*small, big])]
    winner = "new" if ahead > 0 else "old"
    text = (
        f"At {spent[0]:.2g} FLOPs each, the best of {len(old)} guesses reached {best.loss:.4f} nats a token, the new "
        f"way {big.loss:.4f} ({len(small)} small runs, then one of {quantity(big.params)} parameters): the {winner} "
        f"way is {abs(ahead):.4f} nats ahead ({abs(ahead) / best.loss:.1%}). A run of the new way's last compute by "
        f"the rule of thumb alone reached {untuned.loss:.4f}: the size of the last run is worth "
        f"{best.loss - untuned.loss:+.4f} nats, the tuning {untuned.loss - big.loss:+.4f}."
    )
    return {
        "verdict": text,
        "winner": winner,
        "ahead_nats": abs(ahead),
        "of_size": best.loss - untuned.loss,
        "of_tuning": untuned.loss - big.loss,
        "untuned": dataclasses.asdict(untuned),
        "compute_old": spent[0],
        "compute_new": spent[1],
        "chosen_by": words,
        "best_old": dataclasses.asdict(best),
        "big": dataclasses.asdict(big),
        "old": [dataclasses.asdict(run) for run in old],
        "small": [dataclasses.asdict(run) for run in small],
    }


def pipeline_figure(old: Sequence[Trained], small: Sequence[Trained], big: Trained) -> "Figure":
    """Every run of both ways, loss over compute."""
    figure, axes = new_figure(width=6.6, height=4.2)
    for runs, color, label in ((old, COLORS[1], "old way: guesses"), (small, COLORS[0], "new way: small models")):
        axes.plot([run.compute for run in runs], [run.loss for run in runs], "o", color=color, alpha=0.6, label=label)
    best = min(old, key=lambda run: run.loss)
    axes.plot(best.compute, best.loss, "*", ms=14, color=COLORS[1], mec="black", label="old way: the best is kept")
    axes.plot(big.compute, big.loss, "*", ms=14, color=COLORS[0], mec="black", label="new way: the big run")
    axes.set(xscale="log", xlabel="compute of one run (FLOPs)", ylabel="loss (nats per token)")
    axes.set_title("Two ways to spend the same compute")
    axes.legend(fontsize=8)
    return figure


def run(config: TrainStage, trials: int = 10) -> Path:
    """Trains both ways, prints the verdict, and returns the artifact's folder with the page."""
    data = make_tokens(config)
    compute = float(parse_quantity(config.compute or COMPUTE, "compute"))
    settings = dataclasses.asdict(config) | {"trials": trials}
    settings_left = {
        key: value for key, value in settings.items() if key not in ("outputs", "force", "logger", "trainer")
    }
    name = f"pipelines-{digest(settings_left)[:8]}"

    def buildable(size: float) -> bool:
        try:
            resolve_recipe(settings_of(config, Trial(size, compute)), data)
        except ConfigError:
            return False
        return True

    def make(folder: Path) -> dict[str, Any]:
        with start_parent_run(
            config.tracking, outputs=config.outputs, name=name, folder=Path(config.outputs) / "pipelines" / name,
            params={"trials": trials},
        ) as log:  # fmt: skip
            below = config
            if config.tracking.enabled:
                below = config.tracked(dataclasses.replace(config.tracking, parent=log.run_id))
            old, small, big, untuned, words = both_ways(
                lambda some: train_all(below, data, some), buildable, compute, trials=trials, seed=config.seed, say=say
            )
        facts = pipeline_facts(old, small, big, untuned, words)
        write_json(folder / "verdict.json", facts)
        write_page(folder, "pipelines.html.j2", facts, {"pipelines": pipeline_figure(old, small, big)})
        return {"verdict": facts["verdict"], "winner": facts["winner"]}

    folder = build(
        "pipelines", Path(config.outputs), name=None, label=f"{compute:.0e}".replace("+", ""),
        config=settings_left, inputs={"tokens": digest(str(data.folder.name))}, make=make, force=config.force, say=say,
    )  # fmt: skip
    show(json.loads((folder / "verdict.json").read_text(encoding="utf-8")))
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return folder


def train_all(config: TrainStage, data: TokensResult, trials: Sequence[Trial]) -> list[Trained]:
    """Each trial as an ordinary run, by the recipe's learning rate times its factor."""
    records = []
    for trial in trials:
        settings = settings_of(config, trial)
        rate = trial.rate_factor * resolve_recipe(settings, data).learning_rate
        settings = dataclasses.replace(settings, optimizer=with_values(config.optimizer, lr=rate))
        record = train.run(settings, data)
        if record.validation_loss is None:
            raise ConfigError("There is no text to validate on: nothing can be compared.", "Set corpus.validation.")
        counts = (float(record.spec.size), float(record.spec.tokens), float(record.spec.compute))
        records.append(Trained(trial, record.name, *counts, record.validation_loss))
    return records


def settings_of(config: TrainStage, trial: Trial) -> TrainStage:
    return dataclasses.replace(
        config, size=f"{trial.size:.0f}", compute=f"{trial.compute:.0f}", tokens=None, force=False
    )


def show(facts: dict[str, Any]) -> None:
    """Both ways side by side at the terminal."""
    rows = [
        ("guess, keep the best", len(facts["old"]), facts["compute_old"], facts["best_old"]),
        ("small models, law, one big run", len(facts["small"]) + 1, facts["compute_new"], facts["big"]),
    ]
    columns = {
        "way": "{0}", "runs": "{1}", "FLOPs in all": "{2:.3g}",
        "final model": "{3.params:quantity} on {3.tokens:quantity} tokens", "loss": "{3.loss:.4f}",
    }  # fmt: skip
    console = Console()
    console.print(terminal_table(columns, rows, "old and new way at equal compute"))
    console.print(facts["verdict"], markup=False, highlight=False)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("trials=")]
    trials = [int(word.partition("=")[2]) for word in sys.argv[1:] if word.startswith("trials=")]
    chosen = compose(STAGES["train"], words)
    assert isinstance(chosen, TrainStage)
    run(chosen, *trials[-1:])
