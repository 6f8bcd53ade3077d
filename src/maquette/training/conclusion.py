"""What a run leaves: the model as a folder that others open, pictures, a card, and its record."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from maquette.artifacts.files import atomic_folder, file_digest
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import FILE
from maquette.model import LanguageModel, ScalarModel, hf
from maquette.model.adapters import CONFIG, merged, save_adapter
from maquette.model.architecture import describe_architecture
from maquette.model.loading import build_model, model_folder
from maquette.model.sharding import is_here
from maquette.text import Tokenizer
from maquette.tracking import RunLog, peak_memory_bytes
from maquette.training.callbacks import RunCheckpoint
from maquette.training.callbacks.loss_spike import diverged, first_broken
from maquette.training.checkpoint_io import CheckpointFolder, read_state
from maquette.training.job import Job, Opened, Row, describe_run_model
from maquette.training.metrics_file import read_history
from maquette.training.record import RunRecord
from maquette.training.report import model_card, without_front_matter


def conclude(
    job: Job,
    record: RunRecord,
    log: RunLog,
    opened: Opened,
    trainer: Trainer,
    *,
    spikes: int,
    energy: dict[str, Any] | None,
    finished: bool,
) -> RunRecord:
    """Exports the newest weights, draws the curves, and completes the record, in the folder and in the tracker."""
    history = read_history(job.folder / "metrics.jsonl")
    checkpoints = CheckpointFolder(job.folder / "checkpoints")
    steps = checkpoints.steps()
    if steps and steps[-1] < trainer.global_step:  # resumed with callbacks=none: nothing saved what came after
        steps = []
    step = steps[-1] if steps else trainer.global_step
    last = _newest(history)
    record = record.ended(
        finished=finished,
        **_results(history, last),
        **job.plan.results(opened, last, step),
        seconds=trained_seconds(trainer),
        loss_spikes=spikes,
        step=step,
        metrics_sha256=file_digest(job.folder / "metrics.jsonl"),
        peak_memory=peak_memory_bytes(),
        energy=energy,
    )
    if steps:
        state = read_state(checkpoints.path(step))
        if job.spec.settings.get("adapter"):  # the checkpoint lacks what was not trained
            state = _with_what_was_not_trained(job, opened, state)
    else:  # callbacks=none
        state = opened.module.state_dict()
    learnt = {name for name, _ in opened.module.named_parameters()}
    if broken := first_broken((name, value) for name, value in state.items() if name in learnt):
        raise diverged(broken, step)
    if not math.isfinite(last.get("validation/loss", 0.0)):
        raise diverged("validation/loss", step)
    card = model_card(record, getattr(opened.data, "validation_weights", None)) if finished else None
    _export(job, opened, state, record, card)
    if card is not None:
        log.describe(without_front_matter(card))
    for picture in job.plan.draw(opened, history, job.folder / "figures", job.name):
        for path in (picture, picture.with_suffix(".svg")):
            log.log_artifact(path, "figures")
    if finished:
        _summarize(record, log, checkpoints, step)
    record.save()
    log.log_artifact(job.folder / FILE)
    return record


def _with_what_was_not_trained(job: Job, opened: Opened, state: Mapping[str, Any]) -> dict[str, Any]:
    """Beside the adapter the weights that it was trained on; where the module has slices of them, from their folder."""
    whole = opened.module.state_dict()
    if not all(is_here(value) for value in whole.values()):
        model = build_model(describe_run_model(job), scalar=getattr(opened.module, "scalar", False))
        whole = {f"model.{name}": value for name, value in model.state_dict().items()}
    return whole | dict(state)


def _export(job: Job, opened: Opened, state: Mapping[str, Any], record: RunRecord, card: str | None) -> None:
    """What the module keeps as `model`, with the weights of `state` and the model card, as a Hugging Face folder."""
    architecture = job.plan.exported_architecture(job, opened, record.step)
    scalar = getattr(opened.module, "scalar", False)
    adapter = job.spec.settings.get("adapter")
    model: Any
    if adapter:
        description = {**describe_run_model(job), "architecture": describe_architecture(architecture)}
        model = build_model(description, weights=False, scalar=scalar)
    else:
        with torch.device("meta"):
            model = ScalarModel(architecture) if scalar else LanguageModel(architecture)
    names = list(model.state_dict())
    if not all(f"model.{name}" in state for name in names):
        say(f"{record.name}: {record.spec.objective} keeps no language model as `self.model`: nothing is exported")
        return
    shape = getattr(state, "shape", state.__getitem__)  # of a folder of shards: each tensor is read when it is written
    model.load_state_dict({name: shape(f"model.{name}") for name in names}, assign=True)
    whole = merged(model) if adapter else model
    hf.save(
        whole, Tokenizer.load(job.spec.tokenizer), job.folder / "model", card=card,
        values=None if adapter else lambda name: state[f"model.{name}"],
    )  # fmt: skip
    if adapter and not scalar:
        family = hf.family_of(hf.read_config(job.folder / "model"), job.folder / "model")
        base = None if job.spec.checkpoint is None else model_folder(job.spec.checkpoint)
        with atomic_folder(job.folder / "adapter", lambda folder: (folder / CONFIG).exists()) as folder:
            if not save_adapter(model, adapter, family, folder, base):
                say(f"{record.name}: PEFT has no form for this adapter over {family.model_type}: only merged weights")


def trained_seconds(trainer: Trainer) -> float:
    """How long the run has trained, all its parts together."""
    checkpointing = next((one for one in trainer.callbacks if isinstance(one, RunCheckpoint)), None)  # type: ignore[attr-defined]
    return 0.0 if checkpointing is None else checkpointing.trained_seconds


def _newest(history: list[Row]) -> Row:
    """The newest value of every curve."""
    last: Row = {}
    for row in history:
        last |= row
    return last


def _results(history: list[Row], last: Row) -> dict[str, Any]:
    """What the curves say at their ends, whatever the objective."""
    speeds = sorted(
        (row["speed/tokens_per_second"], row["speed/mfu"]) for row in history if "speed/tokens_per_second" in row
    )
    typical = speeds[len(speeds) // 2] if speeds else (None, None)
    return {
        "training_loss": last.get("train/loss"),
        "validation_loss": last.get("validation/loss"),
        "bits_per_byte": last.get("validation/bits_per_byte"),
        "tokens_per_second": typical[0],
        "mfu": typical[1],
        "copying": {
            name.removeprefix("copying/"): value for name, value in last.items() if name.startswith("copying/")
        },
        "samples": last.get("samples", []),
        "metrics": {
            name: value
            for name, value in last.items()
            if "/" in name and isinstance(value, int | float) and not name.startswith("speed/")
        },
    }


def _summarize(record: RunRecord, log: RunLog, checkpoints: CheckpointFolder, step: int) -> None:
    """The tracker's summary."""
    log.set_tags({"checkpoint.path": checkpoints.path(step).relative_to(record.folder)})
    totals = {
        "training_seconds": record.seconds,
        "peak_memory_bytes": record.peak_memory,
        **({} if record.energy is None else {"energy_kwh": record.energy["kwh"], "kg_co2e": record.energy["kg_co2e"]}),
        "tokens_per_second": record.tokens_per_second,
        "mfu": record.mfu,
        "loss_spikes": record.loss_spikes,
        "epochs": record.facts.get("epochs"),
        "unigram_entropy": record.facts.get("unigram_entropy"),
        **{f"epochs/{domain}": values["epochs"] for domain, values in record.domains.items()},
    }
    log.log_metrics({name: value for name, value in totals.items() if value is not None}, step)
