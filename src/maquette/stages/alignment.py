"""`maquette alignment +experiment=alignment`: several runs from one recipe, their policies compared, with a page.

Every step is a stage that finds itself done, or goes on; typing the line again continues what was stopped.
"""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import write_json
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.feedback.annotators.gold import GoldReward
from maquette.feedback.building import open_reward_model
from maquette.feedback.config import PromptsConfig
from maquette.feedback.prompts import open_prompts
from maquette.feedback.study.measurement import Measurement, PolicyRun, measure_study
from maquette.feedback.study.recipe import Step, read_steps
from maquette.feedback.study.report import CAPTIONS, course_of, validations_of, write_study
from maquette.feedback.study.rounds import with_rounds
from maquette.feedback.study.tables import COURSES
from maquette.model.loading import load_tokenizer
from maquette.objectives.rewards import RewardFunction
from maquette.stages import STAGES, demo
from maquette.stages.config import AlignmentStage
from maquette.tracking import start_run
from maquette.training import RunRecord, read_history, read_record


def run(config: AlignmentStage) -> Path:
    """Runs what is not done yet, measures, and returns the folder of the study, with `index.html`.

    Raises `ConfigError` for a recipe that can't be, and whatever its stages raise.
    """
    steps = plan(config)
    results: dict[str, Any] = {}
    made: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {step.name}: maquette {step.stage}")
        results[step.name] = run_step(config, step, made)
        made[step.name] = _folder_of(results[step.name])
    records = {step.name: _record_of(made[step.name]) for step in steps if step.stage in ("train", "demo")}
    measured: list[Measurement] = []

    def make(folder: Path) -> dict[str, Any]:
        measurement, facts = compare(config, steps, records, folder)
        measured.append(measurement)
        return facts

    folder = build(
        "alignment",
        Path(config.outputs) / "artifacts",
        name=None,
        label=config.title.lower().replace(" ", "-"),
        config={key: value for key, value in dataclasses.asdict(config).items() if key not in ("outputs", "force",
                "tracking", "steps")} | {"names": list(made)},
        inputs={name: record.fingerprint for name, record in records.items()},
        make=make,
        force=config.force,
        say=say,
    )  # fmt: skip
    for measurement in measured:
        _track(config, measurement, folder)
    page = folder / "index.html"
    for result in results.values():
        if isinstance(result, demo.Demo):
            page = demo.write_page(result, folder)
    say(f"Open {page.absolute().as_uri()}")
    return folder


def plan(config: AlignmentStage) -> list[Step]:
    """The steps, checked before the first begins: names, stages, settings of each, figures.

    Raises `ConfigError` for the first that is wrong."""
    from maquette.stages.composition import compose

    steps = read_steps(with_rounds(config.steps, config.rounds))
    names = {step.name for step in steps}
    if not steps:
        raise ConfigError("there are no steps.", "Choose a recipe: maquette alignment +experiment=alignment.")
    for wanted in (config.reference, *config.rewards, *config.courses):
        if wanted not in names:
            raise ConfigError(f"there is no step '{wanted}'.", f"Steps: {', '.join(names)}.")
    for figure in config.figures:
        if figure not in CAPTIONS:
            raise ConfigError(f"there is no figure '{figure}'.", f"Allowed: {', '.join(CAPTIONS)}.")
    for step in steps:
        if step.stage not in STAGES:
            raise ConfigError(f"step {step.name}: there is no stage '{step.stage}'.", f"Stages: {', '.join(STAGES)}.")
        compose(STAGES[step.stage], step.filled({name: f"/{name}" for name in names}))
    return steps


def run_step(config: AlignmentStage, step: Step, made: dict[str, str]) -> RunRecord | demo.Demo | Path:
    """Runs one step, with the folders of those before it, and returns what it made."""
    from maquette.stages.composition import compose

    stage = STAGES[step.stage]
    settings: Any = compose(stage, [f"outputs='{config.outputs}'", f"seed={config.seed}", *step.filled(made)])
    settings = settings.tracked(config.tracking)
    result: RunRecord | demo.Demo | Path = demo.make(settings) if step.stage == "demo" else stage.run(settings)
    return result


def _folder_of(result: RunRecord | demo.Demo | Path) -> str:
    if isinstance(result, demo.Demo):
        result = result.record
    return str(result.folder if isinstance(result, RunRecord) else result)


def compare(
    config: AlignmentStage, steps: list[Step], records: dict[str, RunRecord], folder: Path
) -> tuple[Measurement, dict[str, Any]]:
    """Measures the policies and writes the study into `folder`; returns what it measured and the manifest's facts."""
    rewards: dict[str, RewardFunction] = {"gold": GoldReward()}
    rewards |= {name: open_reward_model(records[name].folder, config.outputs) for name in config.rewards}
    runs = [
        PolicyRun(step.name, step.kind, record.folder, dict(step.values), float(record.compute), record.seconds)
        for step in steps
        if step.policy and (record := records.get(step.name)) is not None
    ]
    if config.reference not in [one.name for one in runs]:
        raise ConfigError(f"the step {config.reference} is no policy.", "Give it policy: true.")
    tokenizer = load_tokenizer(records[config.reference].folder)
    context = records[config.reference].sequence_length
    source = open_prompts(
        PromptsConfig(tasks=config.tasks, seed=config.seed + 1), tokenizer,
        longest=max(1, context - config.max_completion_length), split="held_out",
    )  # fmt: skip
    measurement = measure_study(
        runs, config.reference, [source[number] for number in range(config.prompts)], rewards,
        max_completion_length=config.max_completion_length, best_of=config.best_of, seed=config.seed,
    )  # fmt: skip
    histories = {run.name: read_history(Path(run.folder) / "metrics.jsonl") for run in runs}
    write_json(folder / COURSES, {name: rows for name, one in histories.items() if (rows := validations_of(one))})
    courses = {name: course_of(histories[name]) for name in config.courses}
    facts = write_study(
        folder, measurement, config.figures, title=config.title, courses=courses,
        commands={"Look at every run side by side:": f"maquette runs outputs={config.outputs}"},
    )  # fmt: skip
    return measurement, facts


def _track(config: AlignmentStage, measurement: Measurement, folder: Path) -> None:
    """The study in the tracker: numbers of every policy, and the figures."""
    with start_run(
        config.tracking, outputs=Path(config.outputs), name=config.title, folder=folder,
        params={"reference": config.reference, "prompts": config.prompts, "seed": config.seed},
        tags={"kind": "alignment"},
    ) as log:  # fmt: skip
        for one in measurement.policies:
            name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in one.name)
            values = {"gold": one.scores["gold"].value, "greedy": one.greedy["gold"].value, "kl": one.kl}
            values |= {"win_rate": one.wins["gold"].value, "words": one.words}
            log.log_metrics({f"policy/{name}/{key}": value for key, value in values.items()}, 0)
        for path in sorted((folder / "figures").glob("*")):
            log.log_artifact(path, "figures")


def _record_of(folder: str) -> RunRecord:
    record = read_record(folder)
    assert record is not None  # the stage has just written it
    return record
