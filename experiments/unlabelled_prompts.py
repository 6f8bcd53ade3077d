"""A reward model labels prompts that nobody has labelled: what do more of them buy while people's labels stay few?

    python experiments/unlabelled_prompts.py        # seeds=[0,1,2]; settings of maquette alignment may follow

One fine-tuned model (that of make demo-alignment); for each seed 1,000 labels of simulated people. DPO on those labels,
and on completions of other prompts, more and more of them, labelled by the reward model that the 1,000 have trained
(semi-supervised preference learning: Dubois et al. 2023, section 2). Every policy takes as many steps of as many pairs,
so that only the prompts differ. Beside them best-of-n and PPO with the same reward model, which meets a new prompt for
each completion. The table of all seeds that are finished goes to `<outputs>/unlabelled_prompts.csv`.
"""

from typing import Any

import seeds
from binary_reward import demo_models

from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.planning.study import Study

TITLE = "Unlabelled prompts"
PROMPTS = (500, 1000, 4000)
STEPS = 60
SETTINGS = [
    "+experiment=alignment_demo", f"title={TITLE}", "figures=[gold]", "prompts=300", "best_of=4", "labels.count=1000",
    "labels.repeats=1", "ppo.objective.num_iterations=25", "ppo.num_validations=1", "++dpo.num_validations=1",
]  # fmt: skip


def unlabelled(study: Study) -> None:
    config: AlignmentStage = study.config
    sft = demo_models(study)
    labels = study.annotate("labels", {"checkpoint": sft}, config.labels)
    reward = study.train(
        "reward", {"objective": "reward", "checkpoint": sft, "preferences.path": labels}, config.reward, reward=True
    )

    def dpo(name: str, preferences: str) -> None:
        steps: dict[str, Any] = {"trainer.max_steps": STEPS, "objective.beta": config.betas[0]}
        given = {"objective": "dpo", "checkpoint": sft, "preferences.path": preferences}
        study.train(name, given, config.dpo, steps, policy=True)

    dpo("labels alone", labels)
    for count in PROMPTS:
        new = {"count": count, "first": config.labels["count"], "repeats": 1}
        judge = {"feedback": "reward_model", "feedback.checkpoint": reward}
        dpo(f"{count} prompts", study.annotate(f"{count} labelled", {"checkpoint": sft}, judge, new))
    study.train(
        "ppo", {"objective": "ppo", "checkpoint": sft, "reward.checkpoint": reward}, config.ppo,
        {"objective.kl_coefficient": config.kl_coefficients[0]}, policy=True,
    )  # fmt: skip


if __name__ == "__main__":
    seeds.study(unlabelled, SETTINGS, TITLE, "unlabelled_prompts", ("sft", "labels alone"))
