"""Binary reward against continuous: what PPO loses that is only told whether a completion beats the fine-tuned model's.

    python experiments/binary_reward.py             # seeds=[0,1,2]; settings of maquette alignment may follow

One fine-tuned model (that of make demo-alignment); for each seed labels, a reward model, and PPO with it in two ways:
its score, and 1 or -1 by whether the score is higher than that of a completion of the fine-tuned model to the same
prompt (`reward.baseline`). Both have the same number of completions, penalties and start of the value function. The
table of all seeds that are finished goes to `<outputs>/binary_reward.csv`. Run it again to resume.
"""

import seeds

from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.planning.study import Study

TITLE = "Binary reward"
SETTINGS = [
    "+experiment=alignment_demo", f"title={TITLE}", "figures=[gold]", "prompts=300", "best_of=1",
    "labels.count=4000", "labels.repeats=1", "ppo.objective.num_iterations=25", "ppo.num_validations=2",
    "++ppo.objective.value_init=policy",
]  # fmt: skip


def demo_models(study: Study) -> str:
    """Base and fine-tuned model of make demo-alignment, the same for every seed; returns the second. With `checkpoint=`
    another base."""
    config: AlignmentStage = study.config
    given = config.checkpoint
    base = study.make_demo("base", {"seed": 0}) if given is None else study.given("base", given)
    return study.train(
        "sft", {"objective": "sft", "instructions": "task", "checkpoint": base}, config.sft, {"seed": 0}, policy=True
    )


def binary(study: Study) -> None:
    config: AlignmentStage = study.config
    sft = demo_models(study)
    labels = study.annotate("labels", {"checkpoint": sft}, config.labels)
    learning = {"checkpoint": sft, "preferences.path": labels}
    reward = study.train("reward", {"objective": "reward"}, learning, config.reward, reward=True)
    for penalty in config.kl_coefficients:
        optimize = {"objective": "ppo", "checkpoint": sft, "reward.checkpoint": reward}
        suffix = "" if len(config.kl_coefficients) == 1 else f" kl_coefficient={penalty}"
        for name, against in (("continuous", {}), ("binary", {"reward.baseline": sft})):
            study.train(
                f"{name}{suffix}", optimize, config.ppo, {"objective.kl_coefficient": penalty}, against, policy=True,
                kind=name, kl_coefficient=penalty,
            )  # fmt: skip


if __name__ == "__main__":
    seeds.study(binary, SETTINGS, TITLE, "binary_reward")
