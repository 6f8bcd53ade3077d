"""What studies over seeds share: a study for each seed, a table with a row for each policy of each seed, and how far
policies are from a reference with seeds as the units: prompts of one seed share its labels and its weights.

    python experiments/SCRIPT.py                    # seeds=[0,1,2]; settings of maquette alignment may follow

Every seed has a page of its own. Run the command again to resume: what is finished is not made again.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from rich.console import Console

from maquette.artifacts.files import write_text
from maquette.artifacts.progress import say
from maquette.cli.alignment import run
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.study import Study
from maquette.feedback.study.tables import study_tables
from maquette.reports import terminal_table
from maquette.statistics import mean_over_seeds
from maquette.tracking.environment import git_commit, processor_name

Studies = dict[int, tuple[AlignmentStage, Study]]
"""By seed: the settings, and what was made."""


def study(
    recipe: Callable[[Study], None],
    settings: Sequence[str],
    title: str,
    name: str,
    references: Sequence[str] = ("sft",),
    columns: Callable[[Studies, pd.DataFrame], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """All that a script does: runs the recipe for each seed, writes the table of all seeds that are finished to
    `<outputs>/<name>.csv`, and prints how far each policy is from each reference.

    `columns` makes what is written out of the studies of this call and the table of policies; it is returned.
    """
    studies = run_seeds(recipe, settings, sys.argv[1:])
    outputs = outputs_of(studies)
    table = policies(outputs, title)
    written = table if columns is None else columns(studies, table)
    write_table(written, outputs, name)
    for reference in references:
        show_differences(table, title, reference)
    return written


def run_seeds(
    recipe: Callable[[Study], None], settings: Sequence[str], words: Sequence[str], seeds: Sequence[int] = (0, 1, 2)
) -> Studies:
    """Runs `recipe` with the settings, and those of the command line, `words`, for each seed: `seeds=[0,1]` or `seed=1`
    among them, or the `seeds` given here."""
    chosen = [word for word in words if word.startswith(("seeds=", "seed="))]
    if chosen:
        named = OmegaConf.from_dotlist(chosen)
        seeds = named.seeds if "seeds" in named else [named.seed]
    studies: Studies = {}
    for seed in seeds:
        config = compose(STAGES["alignment"], [*settings, *(one for one in words if one not in chosen), f"seed={seed}"])
        assert isinstance(config, AlignmentStage)

        def made(study: Study, seed: int = seed, config: AlignmentStage = config) -> None:
            studies[seed] = (config, study)
            recipe(study)

        run(config, made)
    return studies


def outputs_of(studies: Studies) -> str:
    """The folder of results, the same for all seeds."""
    config, _ = next(iter(studies.values()))
    return config.outputs


def policies(outputs: str, title: str) -> pd.DataFrame:
    """A row for each policy of each finished seed of the studies of a title."""
    return study_tables(outputs, title).policies


def write_table(table: pd.DataFrame, outputs: str, name: str) -> None:
    """Writes `<outputs>/<name>.csv`, with the commit and the kind of machine in each row."""
    table = table.assign(commit=(git_commit() or "")[:7], cpu=processor_name())
    path = Path(outputs) / f"{name}.csv"
    write_text(path, table.to_csv(index=False, float_format="%.4g"))
    say(str(path))


COLUMNS = {
    "policy": "{policy}", "seeds": "{seeds}", "KL": "{kl:.2f}", "difference in gold": "{value:+.3f}",
    "95% over seeds": "{interval}", "seen with 80% from": "{seen}",
}  # fmt: skip


def differences(table: pd.DataFrame, reference: str = "sft", column: str = "gold") -> list[dict[str, Any]]:
    """For each policy the mean difference of `column` from the reference of the same seed, with what was detectable."""
    wide = table.pivot(index="seed", columns="policy", values=column)
    rows: list[dict[str, Any]] = []
    for policy in dict.fromkeys(table.policy):
        change = (wide[policy] - wide[reference]).dropna().to_numpy()
        if policy != reference and len(change):
            of_policy: Mapping[str, Any] = table[table.policy == policy].mean(numeric_only=True)
            kl = of_policy.get("kl", np.nan)
            mean = mean_over_seeds(change)
            several = len(change) > 1
            interval = f"{mean.low:+.3f} to {mean.high:+.3f}" if several else "needs seeds"
            seen = f"{mean.detectable:.3f}" if several else ""
            rows.append(
                {"policy": policy, "seeds": len(change), "kl": kl, "interval": interval, "seen": seen} | vars(mean)
            )
    return rows


def show_differences(table: pd.DataFrame, title: str, reference: str = "sft") -> None:
    """Prints them."""
    Console().print(terminal_table(COLUMNS, differences(table, reference), f"{title}: gold reward less {reference}'s"))
