"""A study: stages that a recipe in Python names one after the other, each of which finds itself done or resumes.

def recipe(study):
    base = study.train("base", {"size": "200k", "compute": 3e12})
    for beta in (0.1, 0.3):
        study.train(f"dpo {beta}", {"objective": "dpo", "checkpoint": base, "objective.beta": beta}, policy=True)

study = Study(config, recipe)   # composes and checks every stage; outputs, seed and tracking are those of config
study.run()
"""

import dataclasses
import multiprocessing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import flatten
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import RecordedStage
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.command_line.overrides import literal
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps.side_by_side import run_side_by_side, takes_one_thread
from maquette.cli.sweeps.work import FINISHED, Files
from maquette.data.process_group import usable_cores
from maquette.feedback.config import PREFERENCES
from maquette.model.loading import find_checkpoint
from maquette.scaling.predictions.demo_page import DemoPage
from maquette.training.record import RunRecord

Settings = Mapping[str, Any]
"""Of a stage: `{"objective": {"beta": 0.1}}` or `{"objective.beta": 0.1}`; `{"objective": "dpo"}` chooses a file."""


class Study:
    """The `settings` of its stages by name, in order, and once it has run what they `made`: a folder each, and the
    `records` of training. `policies` are compared: the kind of each, and the values in which those of a kind differ;
    `rewards` are the reward models that score them, `curves_by_policy` the policies whose validations are drawn,
    `evaluations` what `maquette evaluate` gave of a policy.

    Raises `ConfigError` for the first stage whose settings are wrong."""

    def __init__(self, config: Any, recipe: "Callable[[Study], Any]") -> None:
        self.config = config
        self.stages: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self.policies: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self.rewards: list[str] = []
        self.curves_by_policy: list[str] = []
        self.made: dict[str, str] = {}
        self.records: dict[str, RunRecord] = {}
        self.evaluations: dict[str, Mapping[str, Any]] = {}
        self.demo: DemoPage | None = None
        self._evaluated: dict[str, str] = {}
        self._needs: dict[str, set[str]] = {}
        self._ended: set[str] = set()
        self._not_again: set[str] = set()
        recipe(self)

    def train(self, name: str, *settings: Settings, policy: bool = False, reward: bool = False,
              curve: bool = False, kind: str | None = None, **values: Any) -> str:  # fmt: skip
        """`maquette train`; of settings the later win. Returns what stands for the run's folder in settings of later
        stages. `kind`: what policies share that differ in `values`."""
        self.rewards += [name] if reward else []
        self.curves_by_policy += [name] if curve else []
        self.policies |= {name: (kind or name, values)} if policy else {}
        return self._add(name, "train", *settings)

    def annotate(self, name: str, *settings: Settings) -> str:
        """`maquette annotate`; returns what stands for the path of its preferences."""
        return f"{self._add(name, 'annotate', *settings)}/{PREFERENCES}"

    def corpus(self, name: str, *settings: Settings) -> str:
        """`maquette corpus`; returns what stands for its folder."""
        return self._add(name, "corpus", *settings)

    def evaluate(self, policy: str, *settings: Settings) -> None:
        """`maquette evaluate` of a policy, whose result is in `evaluations` by the policy's name."""
        name = f"{policy} elsewhere"
        self._evaluated[name] = policy
        self._add(name, "evaluate", {"checkpoint": f"<{policy}>"}, *settings)

    def given(self, name: str, checkpoint: str) -> str:
        """A model that is there already, one of the policies. Raises `ConfigError` where it is not."""
        self.policies[name] = (name, {})
        self.made[name] = str(find_checkpoint(checkpoint, self.config.outputs))
        return f"<{name}>"

    def make_demo(self, name: str, *settings: Settings) -> str:
        """The model of `maquette demo`, one of the policies; the demo is made where it is missing."""
        self.policies[name] = (name, {})
        return self._add(name, "demo", *settings)

    def _add(self, name: str, stage: str, *settings: Settings) -> str:
        given = {"outputs": self.config.outputs, "seed": self.config.seed}
        if "seed" not in {one.name for one in dataclasses.fields(STAGES[stage].config)}:
            del given["seed"]
        overrides = [f"{key}={literal(value)}" for part in (given, *settings) for key, value in flatten(part).items()]
        composed: Any = compose(STAGES[stage], overrides)
        tracked = composed.tracked(self.config.tracking) if isinstance(composed, RecordedStage) else composed
        self._needs[name] = {one for one in self.stages if f"'<{one}>" in repr(tracked)}
        self.stages[name], self.settings[name] = stage, tracked
        return f"<{name}>"

    @property
    def folder(self) -> Path:
        """Where its stages say how they ended, where they run beside each other."""
        title = str(getattr(self.config, "title", "study")).lower().replace(" ", "-").replace(",", "")
        identity = digest({name: dataclasses.asdict(settings) for name, settings in self.settings.items()})
        return Path(self.config.outputs) / "studies" / f"{title}-{identity[:8]}"

    def run(self) -> None:
        """Runs every stage that is not done yet, those that do not need each other side by side where there are cores
        for them. What they make does not depend on that. Raises whatever they raise."""
        titles, workers = list(self.stages), 1 if multiprocessing.parent_process() else usable_cores()
        ended_before = Files(self.folder).outcomes() if workers > 1 else {}
        self._not_again = {titles[number] for number, one in ended_before.items() if one["status"] == FINISHED}
        while waiting := [name for name in titles if name not in self._ended]:
            if workers > 1 and len(self._side_by_side()) > 1:
                run_side_by_side(
                    f"study {self.folder.name}", self.folder, titles, [titles.index(name) for name in self._ended],
                    lambda: [
                        (titles.index(name), STAGES[self.stages[name]], self._with_folders(self.settings[name]))
                        for name in self._side_by_side()
                    ],
                    lambda number, result: self._note(titles[number], result), workers=workers,
                )  # fmt: skip
            else:
                self._run_here(waiting[0])
        # In their order, whichever ended first: the page and its identity go by it.
        order = [name for name in self.made if name not in self.stages] + titles
        self.made = {name: self.made[name] for name in order if name in self.made}
        self.records = {name: self.records[name] for name in order if name in self.records}
        self.evaluations = {name: self.evaluations[name] for name in self._evaluated.values()}

    def _run_here(self, name: str) -> None:
        stage, place = self.stages[name], list(self.stages).index(name) + 1
        say(f"[{place}/{len(self.stages)}] {name}: maquette {stage}")
        settings = self._with_folders(self.settings[name])
        if stage == "demo":
            from maquette.cli import demo

            self.demo = demo.make(settings)
            self._note(name, self.demo.record)
        else:
            self._note(name, STAGES[stage].run(settings))

    def _note(self, name: str, result: Any) -> None:
        """That a stage has ended, and what it has made."""
        self._ended.add(name)
        if isinstance(result, RunRecord):
            self.records[name] = result
        if name in self._evaluated:
            self.evaluations[self._evaluated[name]] = result
        else:
            self.made[name] = str(getattr(result, "folder", result))

    def _side_by_side(self) -> list[str]:
        """The stages that could run now, each in one thread as it would alone. One that could not, or was done when the
        study ran last, is run by itself, and none that comes after it before."""
        able = []
        for name in self.stages:
            if name in self._ended:
                continue
            if self._needs[name] <= self.made.keys():
                if name in self._not_again or not takes_one_thread(self._with_folders(self.settings[name])):
                    break
                able.append(name)
        return able

    def _with_folders(self, value: Any) -> Any:
        """The value with the folders of stages that have run where settings have what stands for them."""
        if isinstance(value, str) and value.startswith("<"):
            name, _, rest = value[1:].partition(">")
            return self.made[name] + rest if name in self.made else value
        if isinstance(value, list):
            return [self._with_folders(one) for one in value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            changed = {key: new for key, old in fields.items() if (new := self._with_folders(old)) is not old}
            return dataclasses.replace(value, **changed) if changed else value
        return value


OTHER_SEED = 1000
"""How far apart the seeds of an ensemble's reward models are: those of studies with other seeds lie between."""


def align(study: Study) -> None:
    """The recipe of `maquette alignment`: fine-tune the base model, label its answers, train a reward model on the
    labels, then every policy that the settings name, each from the same fine-tuned model and labels."""
    config: AlignmentStage = study.config
    if config.checkpoint is not None:
        base = study.given("base", config.checkpoint)
    else:
        base = study.train("base", config.base, policy=True) if config.base else study.make_demo("base")
    sft = study.train("sft", {"objective": "sft", "instructions": "task", "checkpoint": base}, config.sft, policy=True)
    labels = study.annotate("labels", {"checkpoint": sft}, config.labels)
    learning = {"checkpoint": sft, "preferences.path": labels}
    rewards: dict[str, str | None] = {} if config.reward else {"": None}
    watching: dict[str, list[str]] = {}
    for name in (config.reward_limits or [""]) if config.reward else []:
        limited = {"preferences.limit": config.reward_limits[name]} if name else {}
        rewards[name] = study.train(
            f"reward {name}".strip(), {"objective": "reward"}, learning, config.reward, limited, reward=True
        )
        watching[name] = [
            study.train(
                f"reward {name}".strip() + f" {number + 1}", {"objective": "reward"}, learning, config.reward, limited,
                {"seed": config.seed + number * OTHER_SEED},
            )
            for number in range(1, config.ensemble)
        ]  # fmt: skip
    for beta in config.betas:
        name = "dpo" if len(config.betas) == 1 else f"dpo beta={beta}"
        study.train(
            name, {"objective": "dpo"}, learning, config.dpo, {"objective.beta": beta}, policy=True, kind="dpo",
            beta=beta,
        )  # fmt: skip

    optimize = {"objective": "ppo", "checkpoint": sft}
    for reward_name, reward in rewards.items():
        learned: dict[str, Any] = {} if reward is None else {"reward.checkpoint": reward}
        if others := watching.get(reward_name):
            learned["reward.watched_by"] = others
        kind = f"ppo {reward_name}".strip()
        for coefficient in config.kl_coefficients:
            penalty = {"objective.kl_coefficient": coefficient}
            name = kind if len(config.kl_coefficients) == 1 else f"{kind} kl_coefficient={coefficient}"
            study.train(
                name, optimize, learned, config.ppo, penalty, policy=True, curve=True, kind=kind,
                kl_coefficient=coefficient,
            )  # fmt: skip
            if config.group:
                within = {"objective.advantage": "group"}
                study.train(
                    name.replace("ppo", "group"), optimize, learned, config.ppo, penalty, within, policy=True,
                    kind=kind.replace("ppo", "group"),
                )  # fmt: skip
        if config.ppo_free:
            study.train(
                f"ppo free {reward_name}".strip(), optimize, learned, config.ppo_free, {"objective.kl_coefficient": 0},
                policy=True, curve=True,
            )  # fmt: skip
    if config.ppo_gold:
        study.train("gold", optimize, {"reward.kind": "gold"}, config.ppo_gold, policy=True)
    if config.evaluate:
        read = {"corpus": study.corpus("corpus", config.corpus)} if config.corpus else {}
        for name in list(study.policies):
            study.evaluate(name, read, config.evaluate)
