"""Policy optimisation as a workload: prompts and a reward from above, rollouts and steps from the objective.

What is optimised for comes through a `FeedbackSource`, which the stage injects: this room does not know whether a
reward model or a task with a gold reward stands behind it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.artifacts.figure import COLORS, new_figure, save_figure
from maquette.data.prompts import Prompt, PromptSource
from maquette.model import LanguageModel, ScalarModel, hf
from maquette.model.loading import load_checkpoint
from maquette.objectives.environment import World as PolicyWorld
from maquette.objectives.iterations import Plan as Iterations
from maquette.objectives.policy_config import PolicyConfig
from maquette.objectives.ppo import ProximalPolicyOptimization
from maquette.objectives.rewards import RewardFunction
from maquette.objectives.rollouts import sample_answers
from maquette.training.assembly import module_weights, prepare_optimization, prepare_speed
from maquette.training.processes import World
from maquette.training.workload import Row, Workload

if TYPE_CHECKING:
    from maquette.text import Tokenizer
    from maquette.training.job import Job
    from maquette.training.record import RunRecord

_SAMPLES = 4
"""Held-out prompts that are answered at each validation, for people to read."""


@dataclass(frozen=True)
class PolicyFeedback:
    """What a policy learns from, opened in one process. `measure(model, reference)` gives values of a policy on
    held-out prompts, by their names without `validation/`; `held_out` are a few such prompts."""

    prompts: PromptSource
    reward: RewardFunction
    value: ScalarModel | None
    measure: Callable[[LanguageModel, LanguageModel], Mapping[str, float]]
    held_out: tuple[Prompt, ...]


class FeedbackSource(Protocol):
    """Plain values that can go to another process, and there become a `PolicyFeedback`."""

    def open(self, tokenizer: "Tokenizer", context: int, max_completion_length: int) -> PolicyFeedback:
        """Raises `StageError` where a file is missing or a reward model reads other tokens."""
        ...


@dataclass(frozen=True)
class PolicyPlan:
    """How a policy is optimised, and for what. `micro_batches`: forward passes of a process in a step."""

    config: PolicyConfig
    feedback: FeedbackSource
    micro_batches: int = 1
    kind: str = "ppo"

    def iterations(self, processes: int) -> Iterations:
        """An iteration of one of so many processes. Raises `ConfigError` where its answers can't be shared out."""
        config = self.config
        size = config.group_size if config.advantage == "group" else 1
        if config.rollout_batch_size % (processes * size):
            groups = f" in groups of {size}" if size > 1 else ""
            raise ConfigError(
                f"objective.rollout_batch_size={config.rollout_batch_size} can't be shared by {processes} "
                f"processes{groups}.",
                f"Use a multiple of {processes * size}.",
            )
        return Iterations(
            config.rollout_batch_size // processes, config.ppo_epochs, config.num_minibatches, self.micro_batches
        )

    def open(self, job: "Job", tokenizer: "Tokenizer", world: World) -> "PolicyWorkload":
        return PolicyWorkload(self, job, tokenizer, world)


class PolicyWorkload(Workload):
    """A policy, its value function, and the prompts that it is judged on."""

    watches_spikes = False
    judges_start = True
    objective: ProximalPolicyOptimization

    def __init__(self, plan: PolicyPlan, job: "Job", tokenizer: "Tokenizer", world: World) -> None:
        assert job.checkpoint is not None  # the stage asks for one
        self._plan, self._job, self._tokenizer = plan, job, tokenizer
        iterations = plan.iterations(world.size)
        model, _ = load_checkpoint(job.checkpoint)
        reference, _ = load_checkpoint(job.checkpoint)
        prepare_speed(job, model.core)
        self.core = model.core
        self._feedback = plan.feedback.open(
            tokenizer, model.config.max_position_embeddings, plan.config.max_completion_length
        )
        judge = getattr(self._feedback.reward, "model", None)
        if isinstance(judge, nn.Module):  # a learned reward computes where the policy does
            judge.to(job.hardware.device)
        self.objective = ProximalPolicyOptimization(
            model,
            prepare_optimization(job),
            plan.config,
            tokenizer=tokenizer,
            prompts=self._feedback.prompts,
            reward=self._feedback.reward,
            reference=reference,
            value=self._feedback.value,
            seed=job.seed,
            world=PolicyWorld(world.rank, world.size),
        )
        self.batches = self.objective.loader(iterations)
        self.micro_batches_per_step = iterations.micro_batches
        self.steps_per_epoch = iterations.steps

    def judge(self, trainer: Trainer, step: int) -> dict[str, float]:
        values = self._feedback.measure(self.objective.model, self.objective.reference)
        return {f"validation/{name}": value for name, value in values.items()}

    def describe(self, step: int) -> str:
        assert self.steps_per_epoch is not None
        return f"answers of iteration {(step - 1) // self.steps_per_epoch + 1}"

    def write_samples(self, step: int) -> list[Row]:
        prompts = self._feedback.held_out[:_SAMPLES]
        answers = sample_answers(
            self.objective.model, self._tokenizer, prompts, max_tokens=self._plan.config.max_completion_length,
            temperature=0.0,
        )  # fmt: skip
        return [
            {"step": step, "prompt": prompt.messages[-1]["content"], "text": answer.answer}
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def results(self, last: Row, step: int) -> dict[str, Any]:
        return {"facts": {"policy": dataclasses.asdict(self._plan.config)}}

    def export(self, state: dict[str, Tensor], folder: Path, record: "RunRecord", *, finished: bool) -> None:
        """The policy alone, as a Hugging Face folder."""
        with torch.device("meta"):
            model = LanguageModel(self.objective.model.config)
        model.load_state_dict(module_weights(state, "model."), assign=True)
        hf.save(model, self._tokenizer, folder, card=policy_card(record) if finished else None)

    def draw(self, history: list[Row], folder: Path, title: str) -> list[Path]:
        return [draw_policy(history, folder / "policy", title=title)]


def policy_card(record: "RunRecord") -> str:
    """The model card: where the policy comes from and what it reached."""
    shown = ("validation/gold", "validation/reward", "validation/kl", "validation/words", "completions/eos_rate")
    rows = [(name, record.metrics[name]) for name in shown if name in record.metrics]
    table = "\n".join(f"| {name} | {value:.4f} |" for name, value in rows)
    return (
        f"# {record.name}\n\nA policy optimised by PPO from `{record.checkpoint}`, {record.step:,} steps.\n\n"
        f"| measured on held-out prompts | |\n|---|---:|\n{table}\n"
    )


def draw_policy(history: list[Row], path: Path, *, title: str) -> Path:
    """Reward, divergence, length and the value function's grip over a run, as PNG and SVG; returns the PNG's path."""
    panels = (
        ("reward per answer", ("objective/scores", "validation/reward", "validation/gold")),
        ("divergence (nats per answer)", ("objective/kl", "validation/kl")),
        ("tokens or words per answer", ("completions/mean_length", "validation/words")),
        ("explained variance, share", ("val/explained_variance", "completions/eos_rate", "policy/clipfrac_avg")),
    )
    figure, axes = new_figure(2, 2, width=4.6, height=3.2)
    for panel, (label, names) in zip(axes.flat, panels, strict=True):
        for color, name in zip(COLORS, names, strict=False):
            points = [(row["step"], row[name]) for row in history if name in row]
            if points:
                style = "o-" if name.startswith("validation/") else "-"
                panel.plot(*zip(*points, strict=True), style, color=color, markersize=3, linewidth=1.2, label=name)
        panel.set_xlabel("optimiser steps")
        panel.set_ylabel(label)
        if panel.lines:
            panel.legend(fontsize=7)
    figure.suptitle(title)
    return save_figure(figure, path)
