"""`conf/`: every group file of ours shows its numbers, each with a comment, and they are what they have always been."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import walk
from maquette.artifacts.targets import import_target
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.help import config_folders
from maquette.cli.command_line.registry import STAGES
from maquette.corpus.config import CurationConfig, ExecutorConfig, SourceConfig
from maquette.data.config import DataConfig, InstructionFilesConfig, MixtureConfig, PhaseConfig, PreferenceFilesConfig
from maquette.evaluation.config import ProtocolConfig, SuiteConfig, no_suite
from maquette.feedback.config import FeedbackConfig, TaskInstructionsConfig
from maquette.model.config import ModelConfig
from maquette.objectives.config import OBJECTIVES, CustomObjectiveConfig, PolicyConfig, PreferenceConfig
from maquette.optimization.config import (
    AdafactorConfig,
    AdamWConfig,
    ConstantSchedulerConfig,
    CosineSchedulerConfig,
    LinearSchedulerConfig,
    MuonConfig,
    WSDSchedulerConfig,
)
from maquette.recipe.rules import HyperparameterRules
from maquette.text.config import TokenizerConfig
from maquette.tracking.config import MLflowLoggerConfig, TrackingConfig
from maquette.training.config import CALLBACKS, PrecisionConfig, TrainerConfig

CONF = config_folders()[0]

QUICK = ProtocolConfig(protocols=["likelihood", "per_byte"], orders=1)
MMLU = ProtocolConfig(protocols=["letter"], shots=[5], orders=1)
MMLU.question = dataclasses.replace(
    MMLU.question,
    description="The following are multiple choice questions (with answers).\n\n", question="{context}",
)  # fmt: skip
LLAMA = ModelConfig(token_shift=False)
UNFILTERED = CurationConfig(label="filtered")
UNFILTERED.near_duplicates.bands = 0
PUBLISHED = CurationConfig()
PUBLISHED.c4 = dataclasses.replace(PUBLISHED.c4, curly_brackets=True, punctuated_lines_only=True)
GPT2 = ModelConfig(
    normalization="layernorm", positions="learned", activation="gelu", bias=True, tie_word_embeddings=True,
    token_shift=False,
)  # fmt: skip
STANDARD = HyperparameterRules(source="runs of 20k to 180k parameters")

FILES: dict[str, dict[str, Any]] = {
    "objective": {
        **{name: kind() for name, kind in OBJECTIVES.items()},
        "simpo": PreferenceConfig(loss_type="simpo", beta=2.0, simpo_gamma=1.0),
        "orpo": PreferenceConfig(loss_type="orpo"),
        "dpo_norm": PreferenceConfig(length_normalized=True, beta=5.0),
        "grpo": PolicyConfig(advantage="group", normalizer="completions"),
        "dr_grpo": PolicyConfig(advantage="centered", normalizer="constant", kl_coefficient=0.0),
        "dapo": PolicyConfig(
            advantage="group", clip_range_high=0.28, resample_groups=3, mask_truncated=True, overlong_buffer=4,
            missing_eos_penalty=0.0, kl_coefficient=0.0,
        ),
        "rloo": PolicyConfig(advantage="rloo", ratio="completion", normalizer="completions", ppo_epochs=1),
    },
    "model": {
        "transformer": ModelConfig(), "llama": LLAMA, "gelu": dataclasses.replace(LLAMA, activation="gelu"),
        "qwen3": dataclasses.replace(LLAMA, qk_norm=True), "gpt2": GPT2, "lstm": ModelConfig(kind="lstm"),
        "moe": dataclasses.replace(
            LLAMA, kind="moe", num_experts=8, num_experts_per_tok=2, n_shared_experts=0, norm_topk_prob=True,
            router_aux_loss_coef=0.01, router_z_loss_coef=0.001, router_bias_update_rate=0.0,
        ),
    },
    "data": {"pretrain": DataConfig()},
    "mixture": {
        "proportional": MixtureConfig(), "uniform": MixtureConfig(temperature=float("inf")),
        "temperature": MixtureConfig(temperature=1 / 0.3), "unimax": MixtureConfig(max_epochs=4.0),
        "code": MixtureConfig(weights={"code": 0.7, "docs": 0.3}),
        "docs": MixtureConfig(weights={"docs": 0.8, "reference": 0.1, "readme": 0.1}),
        "annealed": MixtureConfig(
            phases=[PhaseConfig(start=0.9, weights={"docs": 0.7, "reference": 0.15, "code": 0.15})]
        ),
        "long_context": MixtureConfig(phases=[PhaseConfig(start=0.9, context_multiple=2, rope_theta=40_000.0)]),
    },
    "optimizer": {"adamw": AdamWConfig(), "adafactor": AdafactorConfig(), "muon": MuonConfig()},
    "scheduler": {
        "linear": LinearSchedulerConfig(), "cosine": CosineSchedulerConfig(), "wsd": WSDSchedulerConfig(),
        "constant": ConstantSchedulerConfig(),
    },
    "precision": {
        "auto": PrecisionConfig(),
        **{kind: PrecisionConfig(kind) for kind in ("fp32", "tf32", "bf16-mixed", "bf16-true", "16-mixed")},
    },
    "trainer": {
        "default": TrainerConfig(), "cpu": TrainerConfig(), "gpu": TrainerConfig(accelerator="gpu"),
        "ddp": TrainerConfig(accelerator="auto", devices=2, strategy="ddp"),
        "fsdp": TrainerConfig(accelerator="gpu", devices=8, strategy="fsdp"),
    },
    "recipe": {
        "standard": STANDARD,
        "mup": dataclasses.replace(
            STANDARD, kind="mup", learning_rate=0.0084, lr_width_exponent=0.0,
            source="the standard recipe at width 32",
        ),
    },
    "tokenizer": {
        "code": TokenizerConfig(pretokenizer="code"),
        **{kind: TokenizerConfig(kind=kind) for kind in ("bpe", "unigram", "char", "byte")},
    },
    "source": {
        "installed": SourceConfig(), "synthetic_web": SourceConfig(kind="synthetic_web"),
        **{kind: SourceConfig(kind=kind, path="there")
           for kind in ("jsonl", "parquet", "text", "huggingface", "warc")},
    },
    "curation": {
        "web": CurationConfig(), "none": CurationConfig(enabled=False), "published": PUBLISHED,
        "raw": CurationConfig(enabled=False, label="raw"), "filtered": UNFILTERED,
        "deduplicated": CurationConfig(label="deduplicated"),
    },
    "executor": {kind: ExecutorConfig(kind=kind) for kind in ("local", "datatrove", "slurm")},
    "instructions": {
        "file": InstructionFilesConfig(), "task": TaskInstructionsConfig(),
        "huggingface": InstructionFilesConfig(kind="huggingface", split="train"),
    },
    "preferences": {
        "file": PreferenceFilesConfig(), "huggingface": PreferenceFilesConfig(kind="huggingface", split="train"),
    },
    "suite": {
        "none": no_suite(), "embedded": SuiteConfig(), "likelihood": SuiteConfig(name="likelihood", embedded=[]),
        "files": SuiteConfig(name="files", embedded=[], likelihood=False),
        "preferences": SuiteConfig(name="preferences", embedded=[], likelihood=False),
    },
    "protocol": {"all": ProtocolConfig(), "quick": QUICK, "few_shot": ProtocolConfig(shots=[0, 5]), "mmlu": MMLU},
    "tracking": {"mlflow": TrackingConfig(), "none": TrackingConfig(enabled=False)},
    "feedback": {
        "simulated": FeedbackConfig(), "gold": FeedbackConfig(kind="gold"),
        "alpacafarm": FeedbackConfig(agreement=0.66, people=16, length_bias=0.05),
        "population": FeedbackConfig(
            groups={"terse": {"people": 8, "length_bias": -0.15}, "wordy": {"people": 8, "length_bias": 0.15}}
        ),
        "length_biased": FeedbackConfig(length_bias=0.1),
        "reward_model": FeedbackConfig(kind="reward_model", checkpoint="latest"),
        "language_model": FeedbackConfig(kind="language_model", url="http://localhost:8000/v1"),
        "callable": FeedbackConfig(kind="callable", callable="json:loads"),
    },
}  # fmt: skip
"""What each file comes to: the dataclasses' own defaults, but for what is written here."""

NEEDED = {"source": "source.path=there", "feedback": "feedback.callable=json:loads"}
"""What some files do not work without."""

ELSEWHERE = {"linear": {"branches"}, "cosine": {"branches"}, "constant": {"branches"}}
"""Settings that mean nothing to the file's class: only WSD has branches."""

CASES = [(group, name) for group, files in FILES.items() for name in files]


def stage_of(group: str) -> str:
    return "annotate" if group in ("feedback", "tracking") else "train"


@pytest.mark.parametrize(("stage", "number"), [
    (stage, number)
    for stage in ("train", "annotate")
    for number in range(max(len(files) for group, files in FILES.items() if stage_of(group) == stage))
])  # fmt: skip
def test_they_come_to_the_same_settings(stage: str, number: int) -> None:
    """One file of each group at once, as composing takes a third of a second."""
    chosen = {
        group: list(files)[number] for group, files in FILES.items() if stage_of(group) == stage and number < len(files)
    }
    overrides = []
    for group, name in chosen.items():
        expected = FILES[group][name]
        needs = getattr(expected, "path", None) if group == "source" else getattr(expected, "callable", None)
        overrides += [f"{group}={name}", *([NEEDED[group]] if needs and group in NEEDED else [])]
    settings = compose(STAGES[stage], overrides)
    assert {group: getattr(settings, group) for group in chosen} == {
        group: FILES[group][chosen[group]] for group in chosen
    }


@pytest.mark.parametrize("group", FILES)
def test_every_file_is_known_here(group: str) -> None:
    assert {path.stem for path in (CONF / group).glob("*.yaml")} == set(FILES[group])


def shown(path: Path, group: str) -> dict[str, Any]:
    """The leaves that stand in a file, or in those that it is made from."""
    content = yaml.safe_load(path.read_text())
    values: dict[str, Any] = {}
    for one in content.pop("defaults", []):
        base = str(one).partition("@")[0]
        if base != "_self_" and not base.endswith("_schema"):
            values |= shown(path.with_name(f"{base}.yaml"), group)
    if "@package _global_" in path.read_text():
        content = content.get(group, {})
    return values | dict(leaves(content))


def leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield f"{prefix}{key}", value
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize(("group", "name"), CASES)
def test_every_setting_stands_in_it(group: str, name: str) -> None:
    missing = {one.key for one in walk(FILES[group][name])} - set(shown(CONF / group / f"{name}.yaml", group))
    assert missing <= ELSEWHERE.get(name, set())


def test_every_setting_of_callbacks_and_loggers_stands_there() -> None:
    callbacks = shown(CONF / "callbacks" / "default.yaml", "callbacks")
    assert {f"{name}.{one.key}" for name, kind in CALLBACKS.items() for one in walk(kind)} <= set(callbacks)
    logger = shown(CONF / "logger" / "mlflow.yaml", "logger")
    assert {f"mlflow.{one.key}" for one in walk(MLflowLoggerConfig)} <= set(logger)


@pytest.mark.parametrize(("group", "name"), [case for case in CASES if case[0] != "trainer"])
def test_every_number_has_a_comment(group: str, name: str) -> None:
    lines = (CONF / group / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("#")
    settings = [line for line in lines if re.match(r"\s*(- )?\w+:", line) and not line.startswith("defaults:")]
    plain = ("_target_", "_partial_", "kind", "name")
    bare = [line for line in settings if " # " not in line and not line.strip().endswith(":")]
    assert [line for line in bare if line.strip().partition(":")[0] not in plain] == []


@pytest.mark.parametrize("name", FILES["objective"])
def test_an_objective_names_what_it_builds(name: str) -> None:
    expected = FILES["objective"][name]
    assert import_target(expected._target_).config_class is type(expected)
    assert shown(CONF / "objective" / f"{name}.yaml", "objective")["_target_"] == expected._target_


def test_an_objective_of_ours_may_be_chosen_by_its_target() -> None:
    dpo = "maquette.objectives.DirectPreferenceOptimization"
    settings: Any = compose(STAGES["train"], [f"objective._target_={dpo}", "objective.beta=0.3"])
    assert settings.objective == OBJECTIVES["dpo"](beta=0.3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"objective\.beta"):
        compose(STAGES["train"], [f"objective._target_={dpo}", "objective.betta=0.3"])


def test_another_class_takes_the_door_of_a_users_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    source = "class Theirs:\n    def __init__(self, model, optimization, gamma=1.0, z_loss=0.0): ...\n"
    Path("mine_conf_objective.py").write_text(source)
    overrides = ["objective._target_=mine_conf_objective.Theirs", "objective.gamma=2"]
    settings: Any = compose(STAGES["train"], overrides)
    assert settings.objective == CustomObjectiveConfig(
        _target_="mine_conf_objective.Theirs", settings={"z_loss": 0.0, "gamma": 2}
    )


@pytest.mark.parametrize("overrides", ["+objective.betta=1", "+optimizer.lrr=1", "+scheduler.fnal=1"])
def test_a_plus_lets_no_unknown_setting_of_ours_in(overrides: str) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        compose(STAGES["train"], [overrides])
