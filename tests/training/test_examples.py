"""Fine-tuning, reward models and DPO from beginning to end, in process: what they start from, learn, leave, and how
they go on."""

import dataclasses
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maquette.artifacts import ConfigError, StageError
from maquette.cli import annotate, import_, train
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.model_config import AnnotateStage, ImportStage
from maquette.data.conversations import read_preferences
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.feedback.config import FeedbackConfig
from maquette.model import hf
from maquette.model.loading import load_checkpoint, load_reward_model
from maquette.objectives.base import Objective
from maquette.objectives.config import PolicyConfig
from maquette.objectives.preferences import ReferenceLogProbs
from maquette.recipe import objectives
from maquette.training import RunRecord, examples, read_history
from maquette.training.micro_batch import passes_that_fit
from support.small_examples import (
    base_settings,
    example_settings,
    write_instructions,
    write_labels,
    write_preferences,
)
from support.their_rewards import their_folder

KINDS = ["sft", "reward", "dpo", "kto"]


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def base(prepared: tuple[Path, Path]) -> RunRecord:
    return train.run(base_settings(*prepared))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("examples")
    pairs = write_preferences(root / "pairs.jsonl")
    thumbs = write_labels(root / "thumbs.jsonl")
    return {"sft": write_instructions(root / "chats.jsonl"), "reward": pairs, "dpo": pairs, "kto": thumbs}


@pytest.fixture
def make(base: RunRecord, files: dict[str, Path], prepared: tuple[Path, Path]) -> Callable[..., TrainStage]:
    """`make("dpo", seed=3, objective__beta=0.5)`"""
    return lambda kind, **changes: example_settings(
        prepared[0], kind, changes.pop("checkpoint", base.folder), files[kind], **changes
    )


def weights(record: RunRecord) -> dict[str, torch.Tensor]:
    return load_file(Path(record.folder) / "model" / "model.safetensors")


def curves(record: RunRecord) -> list[dict[str, Any]]:
    rows = read_history(Path(record.folder) / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("speed/")} for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pretrained_core_arrives_bit_identical(
    make: Callable[..., TrainStage], base: RunRecord, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first step the objective's core has the very bits of the checkpoint; at a rate of zero it keeps them."""
    expected = {name: value for name, value in load_checkpoint(base.folder)[0].core.state_dict().items()}
    seen: list[dict[str, torch.Tensor]] = []
    step = Objective.training_step

    def watched(self: Objective, batch: Any, batch_idx: int) -> Any:
        core: Any = self.model.core
        seen.append({name: value.clone() for name, value in core.state_dict().items()})
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Objective, "training_step", watched)
    record = train.run(make(kind, seed=1, optimizer__lr=0.0, objective__epochs=0.3))
    for cores in (seen[0], seen[-1]):
        assert cores.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(cores[name], value), name
    if kind == "dpo":
        losses = [row["train/loss"] for row in curves(record) if "train/loss" in row]
        assert losses == pytest.approx([math.log(2)] * len(losses), abs=1e-5)
        assert record.metrics["validation/loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert record.metrics["validation/kl"] == pytest.approx(0, abs=1e-3)


LORA = {"_target_": "peft.LoraConfig", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1}


@pytest.mark.parametrize("adapter", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_gone_on_with(
    make: Callable[..., TrainStage],
    kind: str,
    adapter: dict[str, Any] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes: dict[str, Any] = {"seed": 2, "data__micro_batch_size": 4, "adapter": adapter}
    whole = train.run(make(kind, **changes))
    parted = make(kind, **changes)
    (tmp_path / "artifacts").symlink_to(Path(parted.outputs).resolve() / "artifacts")
    parted.outputs = str(tmp_path)
    step, count = Objective.training_step, [0]

    def interrupted(self: Objective, batch: Any, batch_idx: int) -> Any:
        count[0] += 1
        if count[0] == 7:  # the first half of step 4
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(Objective, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(parted)
    resumed = train.run(parted)
    assert (resumed.step, resumed.name) == (whole.step, whole.name)
    assert curves(resumed) == curves(whole)
    expected = weights(whole)
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_leaves_the_weights_and_opens_in_peft(
    make: Callable[..., TrainStage], base: RunRecord, kind: str
) -> None:
    record = train.run(make(kind, seed=4, adapter=LORA | {"lora_dropout": 0.0}, optimizer__lr=3e-3))
    assert record.spec.name != train.run(make(kind, seed=4, optimizer__lr=3e-3)).spec.name
    losses = [row["train/loss"] for row in curves(record) if "train/loss" in row]
    assert losses[-1] < losses[0] or kind == "kto"  # its loss depends on how many completions of a step are good
    before, after = weights(base), weights(record)
    changed = {
        name.split(".")[-2] for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])
    }
    assert changed == {"query", "key", "value", "output", "gate", "up", "down"}
    if kind == "reward":
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(Path(base.folder) / "model", trust_remote_code=True)
    theirs: Any = PeftModel.from_pretrained(plain, str(Path(record.folder) / "adapter")).eval()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        ours = load_checkpoint(record.folder)[0](tokens)
        torch.testing.assert_close(theirs(tokens).logits, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [2, None])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_change_only_the_rounding(
    make: Callable[..., TrainStage], kind: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many examples in a forward pass as asked for, or as there is memory for."""
    changes: dict[str, Any] = {"seed": 3, "objective__epochs": 0.3, "force": True}
    if kind == "dpo":
        changes["objective__sft_weight"] = 0.5
    if kind == "sft":  # without dropout, which would fall elsewhere
        changes["checkpoint"] = NO_DROPOUT[0]
    packing = [{"objective__packing": packing} if kind == "sft" else {} for packing in (True, False)]
    whole = train.run(make(kind, **changes, **packing[0], data__micro_batch_size=8))
    seen: list[int] = []

    def noted(share: int, rows: int) -> int:
        seen.append(passes_that_fit(share, rows))
        return seen[-1]

    if size is None:
        monkeypatch.setattr("maquette.training.micro_batch._CPU_BYTES", 2**17)
        monkeypatch.setattr(examples, "passes_that_fit", lambda *given: noted(*given))
    split = train.run(make(kind, **changes, **packing[1], data__micro_batch_size=size))
    assert size is not None or 1 < seen[0] <= 8
    for one, other in zip(curves(whole), curves(split), strict=True):
        assert one.get("train/loss", 0) == pytest.approx(other.get("train/loss", 0), abs=1e-5)


NO_DROPOUT: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def without_dropout(base: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The base with the same weights and no dropout."""
    folder = tmp_path_factory.mktemp("plain") / "base"
    model, tokenizer = load_checkpoint(base.folder)
    hf.save(model, tokenizer, folder)
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"dropout": 0.0}))
    (folder / "checksums.json").unlink()  # they are of the file as it was
    NO_DROPOUT.append(str(folder))


def test_what_a_fine_tuned_model_leaves(make: Callable[..., TrainStage], base: RunRecord) -> None:
    record = train.run(make("sft", seed=4, objective__epochs=6.0, optimizer__lr=0.02))
    assert record.spec.objective == "sft" and record.spec.checkpoint == base.folder
    losses = [row["train/loss"] for row in curves(record) if "train/loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert 0 < record.metrics["validation/token_accuracy"] <= 1
    assert record.facts["too_long"] == 0 and record.facts["epochs"] == pytest.approx(6, rel=0.05)
    assert record.samples[0]["prompt"].startswith("say ")
    model, tokenizer = load_checkpoint(record.folder)
    assert (
        "<|assistant|>"
        in json.loads((Path(record.folder) / "model" / "tokenizer_config.json").read_text())["chat_template"]
    )
    assert model.config.vocab_size >= tokenizer.vocab_size
    card = (Path(record.folder) / "model" / "README.md").read_text()
    assert "fine-tuned on instructions" in card and "epochs | 6.0" in card


def test_what_a_reward_model_leaves(make: Callable[..., TrainStage]) -> None:
    record = train.run(make("reward", seed=5, objective__epochs=8.0, optimizer__lr=0.01))
    assert record.metrics["rewards/accuracies"] > 0.7
    assert {"validation/accuracy/chosen_shorter", "validation/accuracy/annotator ann"} <= record.metrics.keys()
    assert 0 <= record.metrics["validation/calibration_error"] <= 1
    model, _ = load_reward_model(record.folder)
    assert model(torch.tensor([[0, 1, 2]])).shape == (1, 3)
    with pytest.raises(StageError, match="another tokenizer"):
        load_reward_model(record.folder, tokenizer_digest="0" * 64)
    with pytest.raises(StageError, match="is a reward model"):
        load_checkpoint(record.folder)
    again = train.run(make("reward", seed=5, checkpoint=record.folder, optimizer__lr=0.0))
    assert again.metrics["validation/loss"] == pytest.approx(record.metrics["validation/loss"], abs=1e-5)


def test_what_dpo_leaves(make: Callable[..., TrainStage]) -> None:
    record = train.run(make("dpo", seed=6, objective__epochs=4.0, optimizer__lr=0.01))
    assert record.metrics["rewards/margins"] > 0 and record.metrics["rewards/accuracies"] > 0.7
    assert record.metrics["validation/kl"] > 0.01
    assert {"logps/chosen", "completions/mean_length", "completions/eos_rate"} <= record.metrics.keys()
    assert len(record.samples) == 2


@pytest.mark.parametrize("loss_type", ["simpo", "orpo"])
def test_no_reference_is_loaded_where_the_loss_has_none(
    make: Callable[..., TrainStage], loss_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReferenceLogProbs, "__init__", None)
    record = train.run(make("dpo", seed=8, objective__loss_type=loss_type, objective__beta=2.0, optimizer__lr=0.01))
    assert record.metrics["rewards/margins"] > 0 and not list(Path(record.folder).glob("reference-*"))
    assert "validation/kl" not in record.metrics and "completions/mean_length" in record.metrics


def test_what_kto_leaves(make: Callable[..., TrainStage]) -> None:
    record = train.run(make("kto", seed=6, objective__epochs=4.0, optimizer__lr=0.01))
    assert record.metrics["validation/accuracy"] > 0.6 and record.metrics["validation/kl"] > 0.01
    assert record.metrics["validation/rewards/chosen"] > record.metrics["validation/rewards/rejected"]
    assert record.metrics["objective/kl"] >= 0 and record.metrics["rewards/margins"] > 0
    facts = record.facts
    assert facts["train"]["examples"] + facts["validation"]["examples"] == 120 + 24  # pairs are split in two
    assert 0.5 < facts["desirable"] / facts["train"]["examples"] < 0.7  # of all 88 of 144


def test_a_reward_model_from_elsewhere_is_what_a_policy_is_optimised_for(
    make: Callable[..., TrainStage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its own tokenizer and template; and it annotates pairs."""
    their_folder("Llama", tmp_path / "theirs")
    config = make("sft")
    write_instructions(tmp_path / "prompts.jsonl", 8)
    judge = import_.run(ImportStage(path=str(tmp_path / "theirs"), name="judge", outputs=config.outputs))
    assert "reward.checkpoint=judge" in capsys.readouterr().err
    config.prompts.path, config.reward.checkpoint = str(tmp_path / "prompts.jsonl"), "judge"
    config.objective = PolicyConfig(num_iterations=2, rollout_batch_size=4, max_completion_length=4, normalize_scores=4)
    record = train.run(config)
    assert "another tokenizer" in capsys.readouterr().err
    assert record.facts["policy"]["value_init"] == "policy" and math.isfinite(record.metrics["validation/reward"])
    pairs = write_preferences(tmp_path / "pairs.jsonl", 8)
    feedback = FeedbackConfig(kind="reward_model", checkpoint="judge")
    stage = AnnotateStage(given=str(pairs), feedback=feedback, outputs=config.outputs, tracking=config.tracking)
    labels = read_preferences(annotate.run(stage) / "preferences.jsonl")
    reward = LearnedReward(*load_reward_model(judge))
    for one in labels:
        answers = [(one.prompt, side[0]["content"]) for side in (one.chosen, one.rejected)]
        chosen, rejected = reward.of_answers(answers)
        assert chosen - rejected == pytest.approx(one.margin, abs=1e-5)


def test_a_start_is_needed(make: Callable[..., TrainStage]) -> None:
    config = make("sft", seed=7)
    config.checkpoint = None
    with pytest.raises(ConfigError, match="starts from a trained model"):
        train.run(config)
    with pytest.raises(ConfigError, match="micro_batch_size=3 does not divide"):
        train.run(make("dpo", seed=7, data__micro_batch_size=3))


def test_settings_of_pretraining_are_said_to_have_no_effect(
    make: Callable[..., TrainStage], capsys: pytest.CaptureFixture[str]
) -> None:
    train.run(make("sft", seed=8, objective__epochs=0.2, size="1m"))
    assert "no effect on objective=sft: " in capsys.readouterr().err


BESIDE = """
from maquette.objectives import DirectPreferenceOptimization
from maquette.objectives.config import PreferenceConfig
from maquette.recipe.objectives import OBJECTIVES, ObjectiveEntry, register


class Loss(DirectPreferenceOptimization):
    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return loss, metrics | {"train/theirs": loss.detach()}


class Bare(Loss):
    config_class = None


register(ObjectiveEntry(
    "beside_{name}.Loss", reads="preferences", starts_from=("pretrain",), has_reference=True,
    learning_rate=OBJECTIVES["dpo"].learning_rate,
    unused=OBJECTIVES["dpo"].unused, answers=True, calibrated=False, title="Theirs",
))
register(ObjectiveEntry("beside_{name}.Bare", reads="preferences"))
"""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a user's with objectives that it registers."""
    name = f"beside_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(BESIDE.replace("beside_{name}", name))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(objectives, "OBJECTIVES", dict(objectives.OBJECTIVES))
    yield name
    sys.modules.pop(name, None)


def test_an_objective_of_a_users_is_treated_as_ours(
    make: Callable[..., TrainStage], base: RunRecord, beside: str
) -> None:
    config = make("dpo", seed=71, checkpoint="latest")
    node = {"_target_": f"{beside}.Loss", "epochs": 1.0, "batch_size": 8, "sample_prompts": 2}
    theirs, ours = train.run(dataclasses.replace(config, objective=node)), train.run(make("dpo", seed=71))
    assert theirs.spec.objective == f"{beside}.Loss" and theirs.name.startswith("Loss-")
    assert theirs.spec.checkpoint == ours.spec.checkpoint == base.folder
    assert theirs.spec.learning_rate == ours.spec.learning_rate
    assert "size" not in theirs.spec.settings  # it means nothing to it
    losses = [[row["train/loss"] for row in curves(one) if "train/loss" in row] for one in (theirs, ours)]
    assert losses[0] == losses[1]
    assert any("train/theirs" in row for row in curves(theirs))
    assert "Theirs" in (Path(theirs.folder) / "model" / "README.md").read_text()


@pytest.mark.parametrize(("name", "key"), [("Loss", "bta"), ("Bare", "config_class")])
def test_settings_of_such_an_objective_are_checked(
    make: Callable[..., TrainStage], beside: str, name: str, key: str
) -> None:
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(make("dpo"), objective={"_target_": f"{beside}.{name}", "bta": 0.2})
