"""Hacking seen early: which signals of PPO warn before the gold reward falls, and how often they do so for nothing?

    python experiments/early_warning.py             # seeds=[0,1,2,3,4]; settings of maquette alignment may follow

One fine-tuned model; for each seed labels, an ensemble of reward models, and PPO with a KL penalty and
without one, validated at every iteration. Each seed is a study with a page of its own, whose figure *signals* shows its
runs; the table over seeds goes to `<outputs>/early_warning.csv`. Run it again to resume.
"""

import sys
from typing import Any

import pandas as pd
from rich.console import Console
from seeds import outputs_of, run_seeds, write_table

from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.planning.study import Study, align
from maquette.feedback.early_warning import WarningQuality, warning_quality, watched_runs
from maquette.feedback.study.tables import study_tables
from maquette.reports import terminal_table

TITLE = "Early warning"
SETTINGS = [
    "+experiment=alignment", f"title={TITLE}", "figures=[signals]", "prompts=200", "best_of=1",
    "group=false", "base.size=80k", "base.compute=4e11", "base.source.limit=2000", "sft.instructions.count=96000",
    "labels.count=3000", "labels.repeats=1", "ensemble=3", "betas=[]",
    "kl_coefficients=[0.0,1.0]", "ppo.objective.num_iterations=30", "ppo.num_validations=30",
]  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]


def shared(study: Study) -> None:
    """As `maquette alignment` has it, but base and fine-tuned model are those of seed 0: seeds differ in labels, reward
    models and PPO."""
    config: AlignmentStage = study.config
    for stage in (config.base, config.sft):
        stage["seed"] = 0
    align(study)


def table(qualities: list[WarningQuality]) -> pd.DataFrame:
    """A row for each signal."""
    rows: list[dict[str, Any]] = []
    for one in qualities:
        row: dict[str, Any] = {"signal": one.signal, "falling": one.falling, "calm": one.calm, "lead": one.lead}
        for name, share in (("caught", one.caught), ("false", one.false)):
            if share is not None:
                row |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    outputs = outputs_of(run_seeds(shared, SETTINGS, sys.argv[1:], SEEDS))
    curves = study_tables(outputs, TITLE).curve
    rows: Any = curves.to_dict("records")
    runs = watched_runs(rows)
    results = table(warning_quality(runs))
    write_table(results, outputs, "early_warning")
    write_table(curves, outputs, "early_warning_curves")
    columns = {"signal": "{signal}", "caught before gold falls": "{caught:.0%} of {falling}",
               "warned for nothing": "{false:.0%} of {calm}", "iterations ahead": "{lead}"}  # fmt: skip
    Console().print(terminal_table(columns, results.to_dict("records"), f"{len(runs)} runs"))
    say(f"gold falls in {sum(one.falls is not None for one in runs)} of {len(runs)} runs")
