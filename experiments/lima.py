"""LIMA honestly: does fine-tuning on more examples help at equal epochs, and is it the examples or the steps?

    python experiments/lima.py                      # seeds=[0,1,2]; settings of maquette alignment may follow

Zhou et al. 2023 hold that a base which knows already needs a thousand examples. Here one base has read text alone, and
one has also been taught the task by demonstrators who are always right; both are fine-tuned on 200 to 32,000 examples
of other demonstrators at equal epochs (one) and at equal steps (those of the largest). Judged by gold reward and by
form (does a completion end?), with the loss on held-out text before and after: what is forgotten.
Run it again to resume; the table of all seeds that are finished goes to `<outputs>/lima.csv`.
"""

import json
from pathlib import Path

import pandas as pd
import seeds

from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.planning.study import Study
from maquette.tracking import find_runs

TITLE = "LIMA"
SETTINGS = [
    "+experiment=alignment", f"title={TITLE}", "figures=[gold]", "prompts=300", "best_of=1", "base.size=80k",
    "base.compute=4e11", "base.source.limit=2000", "sft.instructions.demonstrators=harder",
    "evaluate={suite: {embedded: [], documents: 40}, protocol: quick}", "betas=[]", "kl_coefficients=[]",
]  # fmt: skip
EXAMPLES = (200, 2000, 8000, 32000)
TAUGHT = 96_000  # examples by which the second base learns the task
BATCH = 64


def lima(study: Study) -> None:
    """Two bases, and each fine-tuned on every number of examples in two ways; the last of all is the reference."""
    config: AlignmentStage = study.config
    shared = {"seed": 0}
    tuning = {"objective": "sft", "instructions": "task", "objective.batch_size": BATCH}
    text = study.train("base", config.base, shared, policy=True)
    perfect = {"instructions.demonstrators": "perfect", "instructions.count": TAUGHT, "objective.epochs": 1}
    taught = study.train("base taught", tuning, {"checkpoint": text}, perfect, shared, policy=True)
    for base, name in ((text, "text"), (taught, "taught")):
        for count in EXAMPLES:
            examples = {"checkpoint": base, "instructions.count": count, "objective.epochs": 1}
            largest = count == EXAMPLES[-1]  # of whom equal epochs are equal steps, too
            last = largest and name == "taught"
            study.train("sft" if last else f"{name} {count} epochs", tuning, config.sft, examples, policy=True)
            if not largest:
                steps = {"objective.epochs": EXAMPLES[-1] / count}
                study.train(f"{name} {count} steps", tuning, config.sft, examples, steps, policy=True)
    for policy in list(study.policies):
        study.evaluate(policy, config.evaluate)


def forgotten(folder: Path) -> dict[str, float]:
    """Bits per byte of held-out text, by the name of a policy."""
    elsewhere = json.loads((folder / "elsewhere.json").read_text(encoding="utf-8"))
    return {policy: one["bits per byte"][0] for policy, one in elsewhere.items() if "bits per byte" in one}


def with_forgotten(studies: seeds.Studies, table: pd.DataFrame) -> pd.DataFrame:
    """The table of policies, with the bits per byte of held-out text."""
    runs = find_runs(seeds.outputs_of(studies))
    finished = runs[(runs["tags.kind"] == "alignment") & (runs["name"] == TITLE)].drop_duplicates("seed")
    bits = {
        int(seed): forgotten(Path(folder)) for seed, folder in zip(finished["seed"], finished["folder"], strict=True)
    }
    lost: list[float | None] = [bits[row.seed].get(row.policy) for row in table.itertuples()]
    return pd.concat([table, pd.Series(lost, name="bits_per_byte")], axis=1)


if __name__ == "__main__":
    seeds.study(lima, SETTINGS, TITLE, "lima", columns=with_forgotten)
