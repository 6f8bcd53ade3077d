"""Losses: every loss of preferences and every form of PPO, from one fine-tuned model, its labels and its reward model.

    python experiments/losses.py                    # seeds=[0,1,2]; settings of maquette alignment may follow

Each has the numbers of its option of `objective=`, but for what stands here. Seeds share the fine-tuned model, and have
labels, a reward model, orders and samples of their own. Run it again to resume. The table of all seeds that are
finished goes to `<outputs>/losses.csv`.
"""

from typing import Any

import seeds

from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.planning.study import Study

TITLE = "Losses"
SETTINGS = [
    "+experiment=alignment", f"title={TITLE}", "figures=[gold]", "prompts=300", "best_of=1", "base.size=40k",
    "base.compute=1.5e11", "base.source.limit=2000", "sft.instructions.count=96000", "labels.count=2000",
    "dpo.objective.epochs=1", "ppo.objective.num_iterations=8", "ppo.num_validations=1",
]  # fmt: skip
"""A hundredth of what `maquette alignment +experiment=alignment` takes: a look, no ranking."""

OFFLINE: dict[str, dict[str, Any]] = {
    "dpo": {"objective.beta": 0.5},
    "ipo": {"objective": "dpo", "objective.loss_type": "ipo", "objective.beta": 0.5},
    "hinge": {"objective": "dpo", "objective.loss_type": "hinge", "objective.beta": 0.5},
    "robust": {
        "objective": "dpo", "objective.loss_type": "robust", "objective.beta": 0.5, "objective.label_smoothing": 0.1,
    },
    "dpo_norm": {},
    "simpo": {},
    "orpo": {},
    "kto": {"objective.beta": 0.5},
}  # fmt: skip
SAMPLING: dict[str, dict[str, Any]] = {
    "ppo": {"objective.kl_coefficient": 0.3},
    "grpo": {"objective.kl_coefficient": 0.3},
    "rloo": {"objective.kl_coefficient": 0.3},
    "dr_grpo": {},
    "dapo": {},
    "online_dpo": {"objective.beta": 0.5},
}


def losses(study: Study) -> None:
    """Base and fine-tuned models, labels and reward model as `maquette alignment` has them, then the policies."""
    config: AlignmentStage = study.config
    shared = {"seed": 0}
    base = study.train("base", config.base, shared)
    sft = study.train(
        "sft", {"objective": "sft", "instructions": "task", "checkpoint": base}, config.sft, shared, policy=True
    )
    labels = study.annotate("labels", {"checkpoint": sft}, config.labels)
    learning = {"checkpoint": sft, "preferences.path": labels}
    reward = study.train("reward", {"objective": "reward"}, learning, config.reward, reward=True)
    for name, settings in OFFLINE.items():
        study.train(name, {"objective": name} | settings, learning, config.dpo, policy=True)
    optimize = {"checkpoint": sft, "reward.checkpoint": reward}
    for name, settings in SAMPLING.items():
        study.train(name, {"objective": name}, optimize, config.ppo, settings, policy=True)


if __name__ == "__main__":
    seeds.study(losses, SETTINGS, TITLE, "losses")
