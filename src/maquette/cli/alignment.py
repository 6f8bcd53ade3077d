"""`maquette alignment +experiment=alignment`: a base model, fine-tuned and aligned in several ways, compared on a page.

`align` is the recipe: which stage runs after which; the numbers are in conf/experiment and conf/sweep. A comparison of
one's own is another such function, given to `run` (experiments/rounds.py is one). Run the command again to resume.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import listed
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.artifacts.reading import write_sealed
from maquette.cli import demo
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.study import Study, rehearse
from maquette.feedback.annotators.simulated import GoldReward
from maquette.feedback.building import open_reward_model
from maquette.feedback.config import PromptsConfig
from maquette.feedback.prompts import open_prompts
from maquette.feedback.study.measurement import Measurement, measure_study
from maquette.feedback.study.report import CAPTIONS, validation_curve, validations_of, write_study
from maquette.feedback.study.tables import CURVES
from maquette.model.loading import load_tokenizer
from maquette.objectives.completions import RewardFunction
from maquette.tracking import start_run
from maquette.training import read_history


def align(study: Study) -> None:
    """The recipe: fine-tune the base model, label its answers, train a reward model on the labels, then every policy
    that the settings name, each from the same fine-tuned model and labels."""
    config: AlignmentStage = study.config
    if not config.sft:
        raise ConfigError("there is nothing to run.", "Choose a study: maquette alignment +experiment=alignment.")
    base = study.train("base", config.base, policy=True) if config.base else study.run_demo("base")
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


def run(config: AlignmentStage, recipe: Callable[[Study], None] = align) -> Path:
    """Runs what is not done yet, measures, and returns the folder of the study, with `index.html`.

    `recipe` trains a run "sft", the reference of all others. Raises `ConfigError` for settings that can't be, before
    anything runs, and whatever the stages raise.
    """
    for figure in config.figures:
        if figure not in CAPTIONS:
            raise ConfigError(f"there is no figure '{figure}'.", f"Allowed: {', '.join(CAPTIONS)}.")
    study = Study(config, rehearse(config, recipe))
    recipe(study)
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
        | {"names": list(study.made), "rewards": study.rewards, "curves_by_policy": study.curves_by_policy},
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
    write_sealed(folder / CURVES, {name: rows for name, one in histories.items() if (rows := validations_of(one))})
    facts = write_study(
        folder, measurement, config.figures, title=config.title,
        curves_by_policy={name: validation_curve(histories[name]) for name in study.curves_by_policy},
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
        for path in listed(folder / "figures"):
            log.log_artifact(path, "figures")
