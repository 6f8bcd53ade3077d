"""`maquette alignment +experiment=alignment`: a base model, fine-tuned and aligned in several ways, compared on a page.

`align` is the recipe: which stage runs after which; the numbers are in conf/experiment and conf/sweep. A study of one's
own is another such function, given to `run` (experiments/rounds.py is one). Each stage finds itself done, or resumes:
run the command again to resume a study.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import write_json
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.feedback.annotators.simulated import GoldReward
from maquette.feedback.building import open_reward_model
from maquette.feedback.config import PromptsConfig
from maquette.feedback.prompts import open_prompts
from maquette.feedback.study.measurement import Measurement, PolicyRun, measure_study
from maquette.feedback.study.report import CAPTIONS, course_of, validations_of, write_study
from maquette.feedback.study.tables import COURSES
from maquette.model.loading import load_tokenizer
from maquette.objectives.completions import RewardFunction
from maquette.stages import STAGES, demo
from maquette.stages.composition import compose
from maquette.stages.config import AlignmentStage
from maquette.stages.family_settings import literal
from maquette.tracking import start_run
from maquette.training import RunRecord, read_history

Settings = Mapping[str, Any]
"""Of a stage: `{"objective": {"beta": 0.1}}` or `{"objective.beta": 0.1}`; `{"objective": "dpo"}` chooses a file."""


class Study:
    """Runs stages one after the other, and knows their `settings` and what they `made`; `policies` are compared,
    `rewards` score them (names of runs), `courses` are the policies whose validations are drawn. Without a `rehearsal`
    it is one itself: settings are checked, nothing runs, and a folder is only a name."""

    def __init__(self, config: AlignmentStage, rehearsal: "Study | None" = None) -> None:
        self.config, self.rehearsal = config, rehearsal
        self.settings: dict[str, Any] = {}
        self.made: dict[str, str] = {}
        self.records: dict[str, RunRecord] = {}
        self.policies: list[PolicyRun] = []
        self.rewards: list[str] = []
        self.courses: list[str] = []
        self.demo: demo.Demo | None = None

    def base(self) -> str:
        """The base model: trained by the settings, or that of `maquette demo`, which is made where it is missing."""
        return self._run("base", "train" if self.config.base else "demo", self.config.base, policy=True)

    def train(self, name: str, *settings: Settings, policy: bool = False, reward: bool = False,
              course: bool = False, kind: str | None = None, **values: Any) -> str:  # fmt: skip
        """Runs `maquette train` and returns the run's folder. Of settings the later win. `kind`: what policies share
        that differ in `values`. Raises `ConfigError` for settings that can't be."""
        self.rewards += [name] if reward else []
        self.courses += [name] if course else []
        return self._run(name, "train", *settings, policy=policy, kind=kind, values=values)

    def annotate(self, name: str, *settings: Settings) -> str:
        """Runs `maquette annotate` and returns the path of its preferences."""
        return self._run(name, "annotate", *settings) + "/preferences.jsonl"

    def _run(self, name: str, stage: str, *settings: Settings, policy: bool = False, kind: str | None = None,
             values: Settings | None = None) -> str:  # fmt: skip
        given = {"outputs": self.config.outputs, "seed": self.config.seed}
        words = [f"{key}={literal(value)}" for part in (given, *settings) for key, value in _flat(part)]
        composed: Any = compose(STAGES[stage], words)
        composed = dataclasses.replace(composed, tracking=self.config.tracking)
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


def _flat(settings: Settings, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found


def align(study: Study, config: AlignmentStage) -> None:
    """The recipe: fine-tune the base model, label its answers, train a reward model on the labels, then every policy
    that the settings name, each from the same fine-tuned model and labels."""
    base = study.base()
    sft = study.train("sft", {"objective": "sft", "instructions": "task", "checkpoint": base}, config.sft, policy=True)
    labels = study.annotate("labels", {"checkpoint": sft}, config.labels)
    learning = {"checkpoint": sft, "preferences.path": labels}
    rewards = {}
    for name in config.reward_limits or [""]:
        limited = {"preferences.limit": config.reward_limits[name]} if name else {}
        rewards[name] = study.train(
            f"reward {name}".strip(), {"objective": "reward"}, learning, config.reward, limited, reward=True
        )
    for beta in config.betas:
        name = "dpo" if len(config.betas) == 1 else f"dpo beta={beta}"
        study.train(
            name, {"objective": "dpo"}, learning, config.dpo, {"objective.beta": beta}, policy=True, kind="dpo",
            beta=beta,
        )  # fmt: skip

    optimize = {"objective": "ppo", "checkpoint": sft}
    for reward_name, reward in rewards.items():
        learned = {"reward.checkpoint": reward}
        kind = f"ppo {reward_name}".strip()
        for coefficient in config.kl_coefficients:
            penalty = {"objective.kl_coefficient": coefficient}
            name = kind if len(config.kl_coefficients) == 1 else f"{kind} kl_coefficient={coefficient}"
            study.train(
                name, optimize, learned, config.ppo, penalty, policy=True, course=True, kind=kind,
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
                policy=True, course=True,
            )  # fmt: skip
    if config.ppo_gold:
        study.train("gold", optimize, {"reward.kind": "gold"}, config.ppo_gold, policy=True)


def run(config: AlignmentStage, recipe: Callable[[Study, AlignmentStage], None] = align) -> Path:
    """Runs what is not done yet, measures, and returns the folder of the study, with `index.html`.

    `recipe` trains a run "sft", the reference of all others. Raises `ConfigError` for settings that can't be, before
    anything runs, and whatever the stages raise.
    """
    study = Study(config, rehearse(config, recipe))
    recipe(study, config)
    measured: list[Measurement] = []

    def make(folder: Path) -> dict[str, Any]:
        measurement, facts = compare(study, folder)
        measured.append(measurement)
        return facts

    compared = ("title", "figures", "tasks", "prompts", "max_completion_length", "best_of", "seed")
    folder = build(
        "alignment",
        Path(config.outputs) / "artifacts",
        name=None,
        label=config.title.lower().replace(" ", "-"),
        config={key: getattr(config, key) for key in compared}
        | {"names": list(study.made), "rewards": study.rewards, "courses": study.courses},
        inputs={name: record.spec.fingerprint for name, record in study.records.items()},
        make=make,
        force=config.force,
        say=say,
    )
    for measurement in measured:
        _track(config, measurement, folder)
    page = folder / "index.html" if study.demo is None else demo.write_page(study.demo, folder)
    say(f"Open {page.absolute().as_uri()}")
    return folder


def rehearse(config: AlignmentStage, recipe: Callable[[Study, AlignmentStage], None] = align) -> Study:
    """The study without its runs: settings are checked. Raises `ConfigError` for the first that is wrong."""
    for figure in config.figures:
        if figure not in CAPTIONS:
            raise ConfigError(f"there is no figure '{figure}'.", f"Allowed: {', '.join(CAPTIONS)}.")
    if not config.sft:
        raise ConfigError("there is nothing to run.", "Choose a study: maquette alignment +experiment=alignment.")
    study = Study(config)
    recipe(study, config)
    return study


def compare(study: Study, folder: Path) -> tuple[Measurement, dict[str, Any]]:
    """Measures the policies and writes the study into `folder`; returns what it measured and the manifest's facts."""
    config, reference = study.config, study.records["sft"]
    rewards: dict[str, RewardFunction] = {"gold": GoldReward()}
    rewards |= {name: open_reward_model(study.made[name], config.outputs) for name in study.rewards}
    source = open_prompts(
        PromptsConfig(tasks=config.tasks, seed=config.seed + 1), load_tokenizer(reference.folder),
        longest=max(1, reference.spec.sequence_length - config.max_completion_length), split="held_out",
    )  # fmt: skip
    measurement = measure_study(
        study.policies, "sft", [source[number] for number in range(config.prompts)], rewards,
        max_completion_length=config.max_completion_length, best_of=config.best_of, seed=config.seed,
    )  # fmt: skip
    histories = {one.name: read_history(Path(one.folder) / "metrics.jsonl") for one in study.policies}
    write_json(folder / COURSES, {name: rows for name, one in histories.items() if (rows := validations_of(one))})
    facts = write_study(
        folder, measurement, config.figures, title=config.title,
        courses={name: course_of(histories[name]) for name in study.courses},
        commands={"Look at every run side by side:": f"maquette runs outputs={config.outputs}"},
    )  # fmt: skip
    return measurement, facts


def _track(config: AlignmentStage, measurement: Measurement, folder: Path) -> None:
    """The study in the tracker: numbers of every policy, and the figures."""
    with start_run(
        config.tracking, outputs=Path(config.outputs), name=config.title, folder=folder,
        params={"reference": measurement.reference, "prompts": config.prompts, "seed": config.seed},
        tags={"kind": "alignment"},
    ) as log:  # fmt: skip
        for one in measurement.policies:
            name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in one.name)
            values = {"gold": one.scores["gold"].value, "greedy": one.greedy["gold"].value, "kl": one.kl}
            values |= {"win_rate": one.wins["gold"].value, "words": one.words}
            log.log_metrics({f"policy/{name}/{key}": value for key, value in values.items()}, 0)
        for path in sorted((folder / "figures").glob("*")):
            log.log_artifact(path, "figures")
