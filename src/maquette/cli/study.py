"""A study: several stages run one after the other by a recipe in Python, each of which finds itself done or resumes.

def recipe(study):
    base = study.train("base", {"size": "200k", "compute": 3e12})
    for beta in (0.1, 0.3):
        study.train(f"dpo {beta}", {"objective": "dpo", "checkpoint": base, "objective.beta": beta}, policy=True)

study = Study(config, rehearse(config, recipe))   # outputs, seed and tracking of every stage are those of config
recipe(study)
"""

from collections.abc import Callable, Mapping
from typing import Any

from maquette.artifacts.progress import say
from maquette.artifacts.settings import flatten
from maquette.cli import demo
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.overrides import literal
from maquette.cli.command_line.registry import STAGES
from maquette.feedback.study.measurement import PolicyRun
from maquette.scaling.predictions.demo_page import DemoPage
from maquette.training import RunRecord

Settings = Mapping[str, Any]
"""Of a stage: `{"objective": {"beta": 0.1}}` or `{"objective.beta": 0.1}`; `{"objective": "dpo"}` chooses a file."""


class Study:
    """Runs stages one after the other, and knows their `settings` and what they `made`; `policies` are compared,
    `rewards` score them (names of runs), `curves_by_policy` are the policies whose validations are drawn. Without a
    `rehearsal` it is one itself: settings are checked, nothing runs, and a folder is only a name."""

    def __init__(self, config: Any, rehearsal: "Study | None" = None) -> None:
        self.config, self.rehearsal = config, rehearsal
        self.settings: dict[str, Any] = {}
        self.made: dict[str, str] = {}
        self.records: dict[str, RunRecord] = {}
        self.policies: list[PolicyRun] = []
        self.rewards: list[str] = []
        self.curves_by_policy: list[str] = []
        self.demo: DemoPage | None = None

    def train(self, name: str, *settings: Settings, policy: bool = False, reward: bool = False,
              curve: bool = False, kind: str | None = None, **values: Any) -> str:  # fmt: skip
        """Runs `maquette train` and returns the run's folder. Of settings the later win. `kind`: what policies share
        that differ in `values`. Raises `ConfigError` for settings that can't be."""
        self.rewards += [name] if reward else []
        self.curves_by_policy += [name] if curve else []
        return self._run(name, "train", *settings, policy=policy, kind=kind, values=values)

    def annotate(self, name: str, *settings: Settings) -> str:
        """Runs `maquette annotate` and returns the path of its preferences."""
        return self._run(name, "annotate", *settings) + "/preferences.jsonl"

    def run_demo(self, name: str) -> str:
        """The model of `maquette demo`, one of the policies; the demo is made where it is missing."""
        return self._run(name, "demo", policy=True)

    def _run(self, name: str, stage: str, *settings: Settings, policy: bool = False, kind: str | None = None,
             values: Settings | None = None) -> str:  # fmt: skip
        given = {"outputs": self.config.outputs, "seed": self.config.seed}
        overrides = [f"{key}={literal(value)}" for part in (given, *settings) for key, value in flatten(part).items()]
        composed: Any = compose(STAGES[stage], overrides)
        composed = composed.tracked(self.config.tracking)
        self.settings[name] = composed
        if self.rehearsal is None:
            self.made[name] = f"/{name}"
            return self.made[name]
        say(f"[{len(self.made) + 1}/{len(self.rehearsal.made)}] {name}: maquette {stage}")
        result: Any
        if stage == "demo":
            self.demo = demo.make(composed)
            result = self.demo.record
        else:
            result = STAGES[stage].run(composed)
        if isinstance(result, RunRecord):
            self.records[name] = result
        self.made[name] = str(getattr(result, "folder", result))
        if policy:
            record = self.records[name]
            self.policies.append(
                PolicyRun(
                    name, kind or name, record.folder, dict(values or {}), float(record.spec.compute), record.seconds
                )
            )
        return self.made[name]


def rehearse(config: Any, recipe: Callable[[Study], Any]) -> Study:
    """The study without its runs. Raises `ConfigError` for the first stage whose settings are wrong."""
    study = Study(config)
    recipe(study)
    return study
