"""Whose preferences? Policies trained on the labels of people of one taste, judged by people of another.

    python experiments/tastes.py                    # seeds=[0,1,2]; settings of maquette alignment may follow

Two groups see the same gold reward; beside it one likes few words and the other many (`feedback.groups`). Both label
the same pairs of one fine-tuned model (that of make demo-alignment), alone and by turns. Each DPO policy is then judged
against the fine-tuned model by each group, by people who have labelled nothing: `maquette compare`. Of whom the
annotators are, a policy is the mirror (Santurkar et al. 2023, "Whose Opinions Do Language Models Reflect?").
The table goes to `<outputs>/tastes.csv`. Run it again to resume.
"""

from typing import Any

import pandas as pd
import seeds
from binary_reward import demo_models
from rich.console import Console

from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.overrides import literal
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.study import Study
from maquette.reports import terminal_table
from maquette.statistics import mean_over_seeds

TITLE = "Tastes"
GROUPS = {"terse": {"people": 8, "length_bias": -0.15}, "wordy": {"people": 8, "length_bias": 0.15}}
SETTINGS = [
    "+experiment=alignment_demo", f"title={TITLE}", "figures=[gold]", "prompts=300", "best_of=1", "labels.count=4000",
    "labels.repeats=1", "++dpo.num_validations=1",
]  # fmt: skip
JUDGES_SEED = 1000
"""Of the people who judge: others than those who label."""


def tastes(study: Study) -> None:
    config: AlignmentStage = study.config
    sft = demo_models(study)
    given: dict[str, Any] = {"checkpoint": sft}
    for name, groups in [*((one, {one: GROUPS[one]}) for one in GROUPS), ("both", GROUPS)]:
        labels = study.annotate(f"labels {name}", config.labels, given, {"feedback": {"groups": groups}})
        given = {"given": labels}  # the others label the same pairs
        learning = {"objective": "dpo", "checkpoint": sft, "preferences.path": labels}
        study.train(f"dpo {name}", learning, config.dpo, {"objective.beta": config.betas[0]}, policy=True)


def judged(studies: seeds.Studies, table: pd.DataFrame) -> pd.DataFrame:
    """A row for each seed, policy and group of judges: the win rate against the fine-tuned model, and its words."""
    rows = []
    for seed, (config, study) in studies.items():
        folders = {study.made[name]: name for name in study.policies if name != "base"}
        for judge, group in GROUPS.items():
            settings = {
                "outputs": config.outputs, "models": list(folders), "baseline": study.made["sft"], "level": 0.95,
                "count": config.prompts, "feedback.groups": {judge: group}, "feedback.seed": JUDGES_SEED, "seed": seed,
            }  # fmt: skip
            composed: Any = compose(STAGES["compare"], [f"{key}={literal(value)}" for key, value in settings.items()])
            result = STAGES["compare"].run(composed.tracked(config.tracking))
            rows += [
                {"seed": seed, "policy": folders[one["model"]], "judge": judge, "wins": one["win_rate"],
                 "wins_low": one["low"], "wins_high": one["high"]}
                for one in result["models"]
            ]  # fmt: skip
    return pd.DataFrame(rows).merge(table[["seed", "policy", "gold", "kl", "words"]])


def show(table: pd.DataFrame) -> None:
    """Prints each policy's win rate by each group, over seeds."""
    rows = [
        {"policy": policy, "judge": judge, **vars(mean_over_seeds(part.wins - 50))}
        for (policy, judge), part in table.groupby(["policy", "judge"], sort=False)
    ]
    columns = {"policy": "{policy}", "judged by": "{judge}", "wins less 50%": "{value:+.1f}",
               "95% over seeds": "{low:+.1f} to {high:+.1f}", "seen with 80% from": "{detectable:.1f}"}  # fmt: skip
    Console().print(terminal_table(columns, rows, "wins against the fine-tuned model, in points"))


if __name__ == "__main__":
    show(seeds.study(tastes, SETTINGS, TITLE, "tastes", columns=judged))
