"""Runs from beginning to end, in process: the same numbers every time, stopped and gone on with, and guarded."""

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from safetensors.torch import load_file

from maquette.artifacts import StageError
from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning.pretraining import say_once
from maquette.data.config import PhaseConfig
from maquette.model.config import ModelConfig
from maquette.model.linear import current_backend
from maquette.objectives import DirectPreferenceOptimization, Pretraining
from maquette.optimization.config import (
    ConstantSchedulerConfig,
    CosineSchedulerConfig,
    MuonConfig,
    WSDSchedulerConfig,
)
from maquette.training import RunRecord, read_history, read_record, train_job
from maquette.training.machine import compiler_works
from maquette.training.trainer import build_trainer
from support.small_examples import example_settings, write_preferences
from support.small_runs import settings

Configure = Callable[..., TrainStage]


pytestmark = pytest.mark.usefixtures("no_pictures")


def weights(record: RunRecord) -> dict[str, torch.Tensor]:
    return load_file(Path(record.folder) / "model" / "model.safetensors")


def curves(record: RunRecord) -> list[dict[str, Any]]:
    """Everything on the curves but how long things took."""
    rows = read_history(Path(record.folder) / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("speed/")} for row in rows]


def assert_same(one: RunRecord, other: RunRecord) -> None:
    assert curves(one) == curves(other)
    expected = weights(other)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, expected[name]), name


def elsewhere(config: TrainStage, tmp_path: Path) -> TrainStage:
    """The same run in a folder of its own (artifacts are linked to)."""
    (tmp_path / "artifacts").symlink_to(Path(config.outputs).resolve() / "artifacts")
    config.outputs = str(tmp_path)
    return config


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody presses Ctrl-C while the loss of a step is computed."""
    count, loss = [0], Pretraining.loss

    def interrupted(self: Pretraining, batch: Any) -> Any:
        count[0] += 1
        if count[0] == step:
            signal.raise_signal(signal.SIGINT)
        return loss(self, batch)

    monkeypatch.setattr(Pretraining, "loss", interrupted)


def test_one_seed_one_result(configure: Configure, tmp_path: Path) -> None:
    first = train.run(configure(seed=10, model__dropout=0.1))
    second = train.run(elsewhere(configure(seed=10, model__dropout=0.1), tmp_path))
    assert first.name == second.name
    assert_same(first, second)
    losses = [row["train/loss"] for row in curves(first)]
    assert losses[-1] < losses[0] - 1
    assert [row["step"] for row in curves(first)] == [5, 10, 15, 20]


def test_another_seed_another_result(configure: Configure) -> None:
    assert train.run(configure(seed=11)).training_loss != train.run(configure(seed=12)).training_loss


def test_a_finished_run_is_found(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train.run(configure(seed=13))
    monkeypatch.setattr(train_job, "fit", lambda job: pytest.fail("it trained again"))
    assert train.run(configure(seed=13, data__workers=2, trainer__log_every_n_steps=3)) == first


def test_force_trains_again(configure: Configure) -> None:
    first = train.run(configure(seed=13))
    second = train.run(configure(seed=13, force=True))
    assert second.started >= first.started and second.folder == first.folder
    assert second.training_loss == first.training_loss


@pytest.mark.parametrize("workers", [0, 1])
def test_stopped_and_gone_on_with(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Dropout and Muon, so that random numbers and both optimisers' states count; not at a window's end."""
    changes: dict[str, Any] = {
        "seed": 14,
        "model__dropout": 0.1,
        "optimizer": MuonConfig(),
        "data__micro_batch_size": 4,
    }
    handler = signal.getsignal(signal.SIGINT)
    whole = train.run(configure(**changes))
    parted = elsewhere(configure(**changes, data__workers=workers), tmp_path)
    with monkeypatch.context() as patched:
        interrupt_at(15, patched)  # the second half of step 8
        with pytest.raises(KeyboardInterrupt):
            train.run(parted)
    stopped = read_record(tmp_path / "runs" / whole.name)
    assert stopped is not None and (stopped.status, stopped.step) == ("interrupted", 8)
    assert (Path(stopped.folder) / "model" / "model.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = train.run(parted)
    assert (resumed.status, resumed.step) == ("finished", 20)
    assert resumed.seconds > stopped.seconds > 0
    assert_same(resumed, whole)


class Counted(Callback):
    """Somebody's callback, which logs a value in every step as Lightning's users do."""

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *_: Any) -> None:
        pl_module.log("theirs/step", float(trainer.global_step))

    def on_validation_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        pl_module.log("theirs/validated", float(trainer.global_step))


@pytest.mark.parametrize("stopped_in", [11, 13])
def test_what_a_user_logs_at_a_checkpoints_step_is_kept(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: int
) -> None:
    """Killed at a checkpoint of a step that logs and validates, the file is the one of a run that was left alone."""
    changes: dict[str, Any] = {"seed": 28, "callbacks__checkpoint__every_n_train_steps": 10}

    def with_callback(config: TrainStage) -> TrainStage:
        config.callbacks = {**config.callbacks, "counted": {"_target_": f"{__name__}.Counted"}}
        return config

    whole = train.run(with_callback(configure(**changes)))
    parted = elsewhere(with_callback(configure(**changes)), tmp_path)
    loss, count = Pretraining.loss, [0]

    def killed(self: Pretraining, batch: Any) -> Any:
        count[0] += 1
        if count[0] == stopped_in:
            raise RuntimeError("killed")
        return loss(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "loss", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train.run(parted)
    assert_same(train.run(parted), whole)
    rows = [json.loads(line) for line in (tmp_path / "runs" / whole.name / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 5, 9, 10, 14, 15, 19, 20]
    assert [row["theirs/step"] for row in rows if "theirs/step" in row] == [5, 10, 15, 20]
    assert any(row.get("theirs/validated") == 10 for row in rows)


def test_anyones_optimiser_and_scheduler_resume_exactly(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {
        "seed": 26,
        "optimizer": {"_target_": "torch.optim.RMSprop", "_partial_": True, "momentum": 0.5},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "_partial_": True, "pct_start": 0.5},
        "trainer__log_every_n_steps": 1,
    }
    say_once.cache_clear()
    whole = train.run(configure(**changes))
    assert "torch.optim.RMSprop gets the recipe's learning rate for AdamW" in " ".join(capsys.readouterr().err.split())
    rates = [row["train/learning_rate"] for row in curves(whole) if "train/learning_rate" in row]
    assert len(rates) == 20 and max(rates) == pytest.approx(whole.spec.learning_rate, rel=0.01)
    assert rates[0] == pytest.approx(whole.spec.learning_rate / 25) and rates[-1] < rates[0]
    assert (whole.spec.weight_decay, whole.spec.warmup) == (0.0, 0.0)
    parted = elsewhere(configure(**changes), tmp_path)
    with monkeypatch.context() as patched:
        interrupt_at(11, patched)
        with pytest.raises(KeyboardInterrupt):
            train.run(parted)
    assert_same(train.run(parted), whole)


def test_a_damaged_checkpoint(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is cut short: the one before it is used, and nothing is lost but time."""
    changes: dict[str, Any] = {"seed": 15, "callbacks__checkpoint__every_n_train_steps": 3}
    whole = train.run(configure(**changes))
    parted = elsewhere(configure(**changes), tmp_path)
    with monkeypatch.context() as patched:
        interrupt_at(11, patched)
        with pytest.raises(KeyboardInterrupt):
            train.run(parted)
    newest = tmp_path / "runs" / whole.name / "checkpoints" / "step-00000011.ckpt"
    newest.write_bytes(newest.read_bytes()[:5000])
    assert_same(train.run(parted), whole)


def test_accumulation_changes_only_the_rounding(configure: Configure, tmp_path: Path) -> None:
    whole = train.run(configure(seed=16, data__micro_batch_size=8))
    split = train.run(elsewhere(configure(seed=16, data__micro_batch_size=2), tmp_path))
    assert whole.name == split.name
    for one, other in zip(curves(whole), curves(split), strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], abs=1e-4)


def test_resuming_with_another_micro_batch(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning counts micro-batches; the run counts steps."""
    whole = train.run(configure(seed=16, data__micro_batch_size=8))
    with monkeypatch.context() as patched:
        interrupt_at(7, patched)
        with pytest.raises(KeyboardInterrupt):
            train.run(elsewhere(configure(seed=16, data__micro_batch_size=8), tmp_path))
    resumed = configure(seed=16, data__micro_batch_size=2)
    resumed.outputs = str(tmp_path)
    record = train.run(resumed)
    assert record.step == 20
    assert record.training_loss == pytest.approx(whole.training_loss, abs=1e-3)


def test_diverged_training_names_step_and_documents(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, steps = Pretraining.loss, []

    def diverging(self: Pretraining, batch: Any) -> Any:
        steps.append(batch.first_sequence)
        value, metrics = loss(self, batch)
        return (value * float("nan") if len(steps) == 7 else value), metrics

    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "loss", diverging)
        with pytest.raises(StageError, match=r"loss of step 7 is nan\. Its batch: documents (animals|things)-\d+, "):
            train.run(configure(seed=17, callbacks__checkpoint__every_n_train_steps=5))
    runs = {
        record.spec.seed: record
        for record in map(read_record, (Path(configure().outputs) / "runs").iterdir())
        if record
    }
    assert runs[17].status == "failed"
    checkpoints = sorted(path.name for path in (Path(runs[17].folder) / "checkpoints").glob("*.ckpt"))
    assert checkpoints == ["step-00000005.ckpt"]
    assert train.run(configure(seed=17, callbacks__checkpoint__every_n_train_steps=5)).status == "finished"


@pytest.mark.parametrize("callbacks", ["default", "none"])
def test_weights_that_the_last_update_breaks_are_noticed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, callbacks: str
) -> None:
    step, steps = Pretraining.lr_scheduler_step, []

    def breaking(self: Pretraining, scheduler: Any, metric: Any) -> None:
        step(self, scheduler, metric)
        steps.append(1)
        if len(steps) == 20:  # after the last update
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))

    seed = 23 if callbacks == "default" else 24
    config = configure(seed=seed, callbacks__checkpoint__every_n_train_steps=5)
    if callbacks == "none":
        config.callbacks = {}
    monkeypatch.setattr(Pretraining, "lr_scheduler_step", breaking)
    with pytest.raises(StageError, match=r"after step 20 .* is NaN or infinite|The model gives logits"):
        train.run(config)
    runs = [read_record(folder) for folder in (Path(config.outputs) / "runs").iterdir()]
    (record,) = [record for record in runs if record and record.spec.seed == seed]
    assert record.status == "failed"
    if callbacks == "default":
        assert not (Path(record.folder) / "checkpoints" / "step-00000020.ckpt").exists()


def test_validation_does_not_touch_training(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = train.run(configure(seed=18, model__dropout=0.2, num_validations=10))
    rarely = train.run(elsewhere(configure(seed=18, model__dropout=0.2, num_validations=1), tmp_path))
    assert often.validation_loss == rarely.validation_loss
    assert often.training_loss == rarely.training_loss


CHOICES: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": MuonConfig()},
    "cosine": {"scheduler": CosineSchedulerConfig(final=0.1)},
    "wsd": {"scheduler": WSDSchedulerConfig(decay_shape="sqrt")},
    "constant": {"scheduler": ConstantSchedulerConfig()},
    "rmsprop": {"optimizer": {"_target_": "torch.optim.RMSprop", "alpha": 0.9}},
    "onecycle": {"scheduler": {"_target_": "torch.optim.lr_scheduler.OneCycleLR"}},
    "tf32": {"precision__kind": "tf32"},
    "bf16-mixed": {"precision__kind": "bf16-mixed"},
    "bf16-true": {"precision__kind": "bf16-true"},
    "not clipped": {"trainer__gradient_clip_val": None},
    "z-loss": {"objective__z_loss": 1e-3},
    "isolated": {"data__document_masking": True},
    "long context": {"mixture__phases": [PhaseConfig(start=0.5, context_multiple=2, rope_theta=40_000.0)]},
    "weights": {"mixture__weights": {"animals": 0.9, "things": 0.1}},
    "lstm": {"model": ModelConfig(kind="lstm", hidden_size=16, num_hidden_layers=2)},
    "gpt2": {
        "model": ModelConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, normalization="layernorm",
            positions="learned", activation="gelu",
            bias=True, tie_word_embeddings=True, token_shift=False,
        )
    },
    "grouped": {
        "model": ModelConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, qk_norm=True,
            activation="relu2",
            logit_softcap=30.0,
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_trains(configure: Configure, choice: str) -> None:
    changes = {"seed": 19, "tokens": "512", "mixture__block": 2, "num_validations": 1, **CHOICES[choice]}
    record = train.run(configure(**changes))
    assert record.step == record.spec.steps == 2
    assert 3 < record.validation_loss < 7  # type: ignore[operator]
    assert record.samples[0]["prompt"] == "cat"


def test_going_on_from_a_model(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train.run(configure(seed=20))
    seen: list[dict[str, torch.Tensor]] = []
    begin = Pretraining.on_validation_epoch_start

    def watched(self: Pretraining) -> None:
        seen.append({name: value.clone() for name, value in self.model.state_dict().items()})
        begin(self)

    monkeypatch.setattr(Pretraining, "on_validation_epoch_start", watched)
    second = train.run(configure(checkpoint=first.name, tokens="256", optimizer__lr=0.0))
    for name, value in weights(first).items():
        assert torch.equal(seen[-1][name], value), name
    assert second.spec.digests["tokenizer"] == first.spec.digests["tokenizer"]
    assert second.spec.checkpoint == first.folder
    assert second.validation_loss == pytest.approx(first.validation_loss, abs=1e-5)


def test_the_backend_is_chosen_once(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN rounds differently: a run that began with it goes on with it, to the same bits."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    chosen: list[str] = []

    def choose(architecture: Any, processor: str) -> str:
        chosen.append(processor)
        return "onednn"

    monkeypatch.setattr("maquette.training.machine.fastest_backend", choose)
    used: list[str] = []

    def build(*arguments: Any) -> Any:
        used.append(current_backend())
        return build_trainer(*arguments)

    monkeypatch.setattr("maquette.training.fitting.build_trainer", build)
    changes: dict[str, Any] = {"seed": 25, "num_validations": 1}
    for name in ("whole", "parted"):
        (tmp_path / name).mkdir()
    whole = train.run(elsewhere(configure(**changes), tmp_path / "whole"))
    # What is evaluated next in this process gives the numbers that it gives in another.
    assert (whole.linear_backend, used, current_backend()) == ("onednn", ["onednn"], "torch")
    parted = elsewhere(configure(**changes), tmp_path / "parted")
    with monkeypatch.context() as patched:
        interrupt_at(13, patched)
        with pytest.raises(KeyboardInterrupt):
            train.run(parted)
    assert len(chosen) == 2
    assert_same(train.run(parted), whole)
    assert len(chosen) == 2
    plain = train.run(configure(**changes | {"precision__kind": "bf16-mixed"}))
    assert plain.linear_backend == current_backend() == "torch"
    assert used == ["onednn"] * 3 + ["torch"]


@pytest.mark.slow(reason="compiles a model three times")
def test_compiled_and_gone_on_with(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is the run's: going on does not ask again, and computes the same bits. The longer context of the
    second half is compiled for as well."""
    if not compiler_works(print):
        pytest.skip("there is no C++ compiler")
    changes: dict[str, Any] = {
        "seed": 21, "compile": "on", "num_validations": 1, "mixture__block": 2,
        "mixture__phases": [PhaseConfig(start=0.5, context_multiple=2)],
    }  # fmt: skip
    whole = train.run(configure(**changes))
    assert whole.compiled
    parted = elsewhere(configure(**changes), tmp_path)
    with monkeypatch.context() as patched:
        interrupt_at(13, patched)
        with pytest.raises(KeyboardInterrupt):
            train.run(parted)
    with monkeypatch.context() as patched:
        patched.setattr(train_job, "wants_compilation", lambda *_: pytest.fail("it was decided again"))
        assert_same(train.run(parted), whole)
    eager = train.run(configure(**changes | {"compile": "off"}))
    assert eager.training_loss == pytest.approx(whole.training_loss, abs=1e-4)


def test_a_run_whose_held_out_text_is_all_cut_out_ends(tmp_path: Path) -> None:
    """Documents of two words share every run of tokens: nothing is left to validate on, which is said."""
    numbers = random.Random(0)
    texts = [" ".join(numbers.choice(("hen", "cow")) for _ in range(150)) for _ in range(80)]
    source = tmp_path / "documents"
    source.mkdir()
    (source / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    record = train.run(settings(tmp_path / "outputs", source, shards__held_out_window=24))
    assert (record.status, record.validation_loss) == ("finished", None)
    assert record.summary == "not validated"
    assert train.run(settings(tmp_path / "outputs", source, shards__held_out_window=24)).folder == record.folder


class Exits(Callback):
    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        raise SystemExit(0)


def test_a_callback_that_exits_is_no_success(tmp_path: Path, configure: Configure) -> None:
    config = elsewhere(configure(seed=71), tmp_path)
    config.callbacks = {**config.callbacks, "mine": {"_target_": f"{__name__}.Exits"}}
    with pytest.raises(StageError, match=r"sys\.exit was called at .*test_fitting\.py:\d+"):
        train.run(config)


def test_recomputed_blocks_are_the_same_run(configure: Configure, tmp_path: Path) -> None:
    """Not part of the fingerprint: a finished run is found again; trained again, it ends with the same weights."""
    plain = train.run(configure(seed=31))
    assert train.run(configure(seed=31, activation_checkpointing="block")).finished == plain.finished
    for kind in ("block", "selective"):
        (tmp_path / kind).mkdir()
        assert_same(train.run(elsewhere(configure(seed=31, activation_checkpointing=kind), tmp_path / kind)), plain)


def test_a_core_without_blocks_says_so(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    train.run(configure(seed=32, model__kind="lstm", activation_checkpointing="block"))
    assert "activation_checkpointing=block has no effect" in capsys.readouterr().err


@pytest.mark.slow(reason="compiles a model three times")
def test_compiled_blocks_are_recomputed(configure: Configure) -> None:
    """The compiler fuses the second pass in its own way, so the last bits may differ."""
    if not compiler_works(print):
        pytest.skip("there is no C++ compiler")
    losses = [
        train.run(configure(seed=33, compile="on", activation_checkpointing=kind, force=True)).training_loss
        for kind in ("none", "block", "selective")
    ]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-4)


def test_what_does_not_fit_is_split(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that has memory for so many rows: steps in more forward passes, the same weights but for rounding."""
    write_preferences(tmp_path / "dpo.jsonl")
    plain = train.run(configure(seed=34))
    choices: list[Any] = [
        (configure(seed=34, force=True), Pretraining, lambda batch: len(batch.tokens), 2),
        (
            example_settings(tmp_path / "dpo", "dpo", str(plain.folder), tmp_path / "dpo.jsonl"),
            DirectPreferenceOptimization, lambda batch: len(batch.chosen.tokens), 4,
        ),
    ]  # fmt: skip
    for chosen, objective, rows_of, room in choices:
        with monkeypatch.context() as patched:
            loss, largest = objective.loss, [0]

            def full(self: Any, batch: Any, *rest: Any, loss: Any = loss, largest: Any = largest,
                     rows_of: Any = rows_of, room: int = room) -> Any:  # fmt: skip
                if rows_of(batch) > room:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                largest[0] = max(largest[0], rows_of(batch))
                return loss(self, batch, *rest)

            patched.setattr(objective, "loss", full)
            record = train.run(chosen)
            assert largest[0] == room and record.step == record.spec.steps
            assert "again with" in capsys.readouterr().err
    again = train.run(configure(seed=34))
    assert again.validation_loss == pytest.approx(plain.validation_loss, abs=1e-4)


def test_what_cannot_be_split_says_what_to_do(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Pretraining, "loss", full)
    with pytest.raises(StageError, match="memory for a step in 1 forward passes"):
        train.run(configure(seed=35, data__micro_batch_size=8))
