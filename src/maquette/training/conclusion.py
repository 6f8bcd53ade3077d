"""What a run leaves: the model as a folder that others open, a figure, a card, and its record."""

import dataclasses
import datetime
from typing import Any

import torch

from maquette.data import MixtureOrder
from maquette.model import LanguageModel, hf
from maquette.model.config import TransformerConfig
from maquette.text import Tokenizer
from maquette.tracking import RunLog, peak_memory_bytes
from maquette.training import record as records
from maquette.training.card import write_card
from maquette.training.checkpoints import CheckpointFolder
from maquette.training.figures import draw_loss
from maquette.training.history import read_history
from maquette.training.job import Job
from maquette.training.judgement import metric_name
from maquette.training.record import RunRecord


def conclude(
    job: Job,
    record: RunRecord,
    log: RunLog,
    order: MixtureOrder,
    tokenizer: Tokenizer,
    *,
    seconds: float,
    spikes: int,
    finished: bool,
) -> RunRecord:
    """Exports the newest checkpoint, draws the curves, and completes the record, in the folder and in the tracker."""
    history = read_history(job.folder / "metrics.jsonl")
    checkpoints = CheckpointFolder(job.folder / "checkpoints")
    step = checkpoints.steps()[-1]
    record = dataclasses.replace(record, **_results(history, order, job, step), seconds=seconds, loss_spikes=spikes)
    record = dataclasses.replace(
        record,
        step=step,
        peak_memory=peak_memory_bytes(),
        status=records.FINISHED if finished else records.INTERRUPTED,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    card = write_card(record, order.phases[0].weights) if finished else None
    hf.save(_model_of(job, order, checkpoints, step), tokenizer, job.folder / "model", card=card)
    picture = draw_loss(history, list(record.domains), job.folder / "figures" / "loss", title=job.name)
    for path in (picture, picture.with_suffix(".svg")):
        log.log_artifact(path, "figures")
    if finished:
        _tell(record, log, checkpoints, step)
    record.save()
    log.log_artifact(job.folder / records.FILE)
    return record


def _results(history: list[dict[str, Any]], order: MixtureOrder, job: Job, step: int) -> dict[str, Any]:
    """What the curves say at their ends."""
    last: dict[str, Any] = {}
    speeds = []
    for row in history:
        last |= row
        if "speed/tokens_per_second" in row:
            speeds.append((row["speed/tokens_per_second"], row["speed/mfu"]))
    epochs = order.epochs(step * job.batch_sequences)
    speeds = sorted(speeds)
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
        "domains": {
            domain: {
                key: last[name]
                for key in ("loss", "perplexity", "bits_per_byte")
                if (name := metric_name(domain, key)) in last
            }
            | {"epochs": epochs[domain]}
            for domain in order.domains
        },
    }


def _model_of(job: Job, order: MixtureOrder, checkpoints: CheckpointFolder, step: int) -> LanguageModel:
    """The model as the checkpoint of `step` has it; positions as the phase it has reached reads them."""
    architecture = job.architecture
    phase = order.phases[order.phase_of(max(0, step * job.batch_sequences - 1))]
    if isinstance(architecture, TransformerConfig) and phase.rope_base:
        architecture = dataclasses.replace(architecture, rope_base=phase.rope_base)
    with torch.device("meta"):
        model = LanguageModel(architecture)
    state = torch.load(checkpoints.path(step), map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()}, assign=True)
    return model


def _tell(record: RunRecord, log: RunLog, checkpoints: CheckpointFolder, step: int) -> None:
    """The tracker's summary."""
    log.set_tags({"checkpoint.path": checkpoints.path(step), "model.path": f"{record.folder}/model"})
    totals = {
        "training_seconds": record.seconds,
        "peak_memory_bytes": record.peak_memory,
        "tokens_per_second": record.tokens_per_second,
        "mfu": record.mfu,
        "loss_spikes": record.loss_spikes,
        **{f"epochs/{domain}": values["epochs"] for domain, values in record.domains.items()},
    }
    log.log_metrics({name: value for name, value in totals.items() if value is not None}, step)
