"""Rounds: sample with the current policy, label, train the reward model on all labels so far, optimise again; beside
them one round with as many labels in all.

    python experiments/rounds.py                    # settings of maquette alignment may follow: seed=1 outputs=...

Round k's labels are of new prompts, answered by the policy of round k - 1, which round k goes on with. Half an hour on
one core; run it again to resume.
"""

import sys

from maquette.cli.alignment import run
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.study import Study

ROUNDS = 3
SETTINGS = ["+experiment=alignment", "title=Rounds", "labels.count=8000"]


def rounds(study: Study) -> None:
    """Base and fine-tuned models as `maquette alignment` has them, then the rounds."""
    config: AlignmentStage = study.config
    base = study.train("base", config.base, policy=True)
    sft = study.train("sft", {"objective": "sft", "instructions": "task", "checkpoint": base}, config.sft, policy=True)
    files: list[str] = []
    count, policy = config.labels["count"], sft
    for number in range(1, ROUNDS + 1):
        suffix = "" if number == 1 else f" {number}"
        more = {"first": (number - 1) * count, "add": files}
        labels = study.annotate(f"labels{suffix}", {"checkpoint": policy}, config.labels, more)
        policy = reward_and_policy(study, suffix, sft, labels, policy)
        files = [labels]  # which holds those of the rounds before
    labels = study.annotate("labels at once", {"checkpoint": sft}, config.labels, {"count": ROUNDS * count})
    reward_and_policy(study, " at once", sft, labels, sft)


def reward_and_policy(study: Study, suffix: str, sft: str, labels: str, policy: str) -> str:
    """A reward model on `labels`, and the run that starts from `policy` with it."""
    config: AlignmentStage = study.config
    reward = study.train(
        f"reward{suffix}", {"objective": "reward", "checkpoint": sft, "preferences.path": labels}, config.reward,
        reward=not suffix,
    )  # fmt: skip
    return study.train(
        f"ppo{suffix}", {"objective": "ppo", "checkpoint": policy, "reward.checkpoint": reward}, config.ppo,
        {"objective.kl_coefficient": config.kl_coefficients[0]}, policy=True,
    )  # fmt: skip


if __name__ == "__main__":
    settings = compose(STAGES["alignment"], [*SETTINGS, *sys.argv[1:]])
    assert isinstance(settings, AlignmentStage)
    run(settings, rounds)
