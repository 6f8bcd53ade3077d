"""The policies of a study compared: measured on the same held-out prompts, written into its folder, and recorded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.files import listed
from maquette.artifacts.reading import write_sealed
from maquette.feedback.annotators.simulated import GoldReward
from maquette.feedback.building import open_reward_model
from maquette.feedback.config import PromptsConfig
from maquette.feedback.prompts import open_prompts
from maquette.feedback.study.measurement import PolicyRun, measure_study, read_measurement
from maquette.feedback.study.report import validations_of, write_study
from maquette.feedback.study.tables import CURVES
from maquette.model.loading import load_tokenizer
from maquette.objectives.completions import RewardFunction
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig
from maquette.training import RunRecord, read_history
from maquette.training.devices import threads_for

REFERENCE = "sft"
"""The run that all others are measured against."""


def compare_runs(
    folder: Path,
    made: Mapping[str, str],
    records: Mapping[str, RunRecord],
    policies: Mapping[str, tuple[str, Mapping[str, Any]]],
    reward_models: Sequence[str],
    curves_by_policy: Sequence[str],
    evaluations: Mapping[str, Mapping[str, Any]],
    *,
    outputs: str,
    title: str,
    figures: Sequence[str],
    tasks: Sequence[str],
    prompts: int,
    max_completion_length: int,
    best_of: int,
    seed: int,
) -> dict[str, Any]:
    """Measures the `policies` (name -> kind and values) by gold and by the `reward_models` and writes the study into
    `folder`; returns the manifest's facts. `made`: the folder of each by its name; `records`: of those that are runs;
    `evaluations`: what `maquette evaluate` gave of a policy."""
    reference = records[REFERENCE]
    rewards: dict[str, RewardFunction] = {"gold": GoldReward()}
    tokenizer = load_tokenizer(reference.folder)
    rewards |= {name: open_reward_model(made[name], outputs).of_policy(tokenizer) for name in reward_models}
    source = open_prompts(
        PromptsConfig(tasks=list(tasks), seed=seed + 1), tokenizer,
        longest=max(1, reference.spec.sequence_length - max_completion_length), split="held_out",
    )  # fmt: skip
    runs = []
    for name, (kind, values) in policies.items():
        one = records.get(name)  # none of a model that was there already
        cost = (0.0, 0.0) if one is None else (float(one.spec.compute), one.seconds)
        runs.append(PolicyRun(name, kind, made[name], dict(values), *cost))
    with threads_for(reference.spec.architecture.hidden_size):
        measurement = measure_study(
            runs, REFERENCE, [source[number] for number in range(prompts)], rewards,
            max_completion_length=max_completion_length, best_of=best_of, seed=seed,
        )  # fmt: skip
    histories = {one.name: read_history(Path(one.folder) / "metrics.jsonl") for one in runs if one.name in records}
    validations = {name: rows for name, one in histories.items() if (rows := validations_of(one))}
    write_sealed(folder / CURVES, validations)
    return write_study(
        folder, measurement, figures, title=title, evaluations=evaluations,
        validations={name: validations.get(name, []) for name in curves_by_policy},
        commands={"Look at every run side by side:": f"maquette runs outputs={outputs}"},
    )  # fmt: skip


def record_study(folder: Path, title: str, seed: int, *, outputs: str, tracking: TrackingConfig) -> None:
    """The study in `folder` in the tracker: numbers of every policy, and the figures."""
    measurement = read_measurement(folder / "results.json")
    with start_run(
        tracking, outputs=Path(outputs), name=title, folder=folder,
        params={"reference": measurement.reference, "prompts": measurement.prompts, "seed": seed},
        tags={"kind": "alignment"},
    ) as log:  # fmt: skip
        for one in measurement.policies:
            called = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in one.name)
            values = {"gold": one.scores["gold"].value, "greedy": one.greedy["gold"].value, "kl": one.kl}
            values |= {"win_rate": one.wins["gold"].value, "words": one.words}
            if one.diversity is not None:
                values |= {key: value for key, value in vars(one.diversity).items() if value is not None}
            log.log_metrics({f"policy/{called}/{key}": value for key, value in values.items()}, 0)
        for path in listed(folder / "figures"):
            log.log_artifact(path, "figures")
