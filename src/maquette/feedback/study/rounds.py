"""Rounds: sample with the current policy, annotate, refit the reward model on all labels so far, optimise again; beside
them one round with as many labels in all.
"""

from collections.abc import Mapping
from typing import Any

from maquette.artifacts.errors import ConfigError

LABELS, REWARD, POLICY = "labels", "reward", "ppo"
"""The steps of a recipe that its rounds repeat."""


def with_rounds(steps: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """The steps with `rounds` rounds of labels, reward model and PPO, the first of which are the recipe's own.

    Round k's labels are of new prompts, answered by round k - 1's policy, which round k goes on with; its reward model
    learns from all labels so far. "labels at once", "reward at once" and "ppo at once" are one round with the labels
    of all. Raises `ConfigError` where the recipe lacks one of the three steps or the number of its prompts.
    """
    if rounds <= 1:
        return dict(steps)
    for name in (LABELS, REWARD, POLICY):
        if not isinstance(steps.get(name), Mapping) or steps[name].get("each"):
            raise ConfigError(
                f"rounds={rounds} repeats the steps labels, reward and ppo, and there is no plain {name}.",
                "Use a recipe with these three, such as +experiment=alignment.",
            )
    count = _count(steps[LABELS])
    found = dict(steps)
    files = ["'{labels}/preferences.jsonl'"]
    for number in range(2, rounds + 1):
        before = POLICY if number == 2 else f"{POLICY} {number - 1}"
        labels, reward = f"{LABELS} {number}", f"{REWARD} {number}"
        found[labels] = _with(
            steps[LABELS], f"first={(number - 1) * count}", f"checkpoint='{{{before}}}'", f"add=[{','.join(files)}]"
        )
        files = [f"'{{{labels}}}/preferences.jsonl'"]  # which holds those of the rounds before
        found[reward] = _with(steps[REWARD], f"preferences.path='{{{labels}}}/preferences.jsonl'")
        found[f"{POLICY} {number}"] = _with(
            steps[POLICY], f"checkpoint='{{{before}}}'", f"reward.checkpoint='{{{reward}}}'"
        )
    found[f"{LABELS} at once"] = _with(steps[LABELS], f"count={rounds * count}")
    found[f"{REWARD} at once"] = _with(steps[REWARD], f"preferences.path='{{{LABELS} at once}}/preferences.jsonl'")
    found[f"{POLICY} at once"] = _with(steps[POLICY], f"reward.checkpoint='{{{REWARD} at once}}'")
    return found


def _with(step: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """The step with more settings, which win over those before them."""
    keys = {setting.partition("=")[0] for setting in more}
    kept = [one for one in step["settings"] if str(one).partition("=")[0] not in keys]
    return {**step, "settings": [*kept, *more]}


def _count(step: Mapping[str, Any]) -> int:
    for setting in step["settings"]:
        key, _, value = str(setting).partition("=")
        if key == "count":
            return int(value)
    raise ConfigError("rounds repeats the step labels, which does not say count=.", "Give it a number of prompts.")
