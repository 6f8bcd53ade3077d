"""What a run says about itself: `run.json` in its folder, from its first moment to its last.

What the run is stands in its `spec`; here is what came out. The file is read by artifacts/run_file.py.
"""

import dataclasses
import datetime
import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import StageError
from maquette.artifacts.errors import MaquetteError
from maquette.artifacts.files import listed
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import FILE, FINISHED, INTERRUPTED, RUNNING, TRIED, read_run, write_run
from maquette.recipe.objectives import entry_of
from maquette.recipe.run_spec import CODE_CHANGED, RunSpec
from maquette.tracking.environment import git_commit, hardware_name, package_versions

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_SUMMARY = (
    ("validation/loss", "validation loss"),
    ("validation/accuracy", "accuracy"),
    ("validation/gold", "gold reward"),
    ("objective/scores", "score"),
    ("objective/kl", "KL"),
    ("validation/kl", "held-out KL"),
)
"""What the summary of a run after pretraining says, where it has it."""

_LIKE = 6
"""Runs that differ in more than so many settings are not alike."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run: what it is (`spec`), where it lies, and what came out.

    Loss in nats per token, times in seconds, memory in bytes. `compiled` and `linear_backend` were decided once, when
    the run began. `domains`: of each domain `loss`, `perplexity`, `bits_per_byte` on held-out text and `epochs` of its
    training text; `validation_loss` weighs them as the mixture does. `copying`: how much of what stood in the context
    once the model predicts the second time (`objectives.held_out.copying_metrics`), by the metric's name after the
    slash. `energy`: what training drew and how that is known (`training.energy.energy_facts`), None where nothing was
    metered. `samples`: what the model wrote at the end. `metrics`: the newest value of every curve, by the name of the
    curve; `metrics_sha256`: of `metrics.jsonl` when the run ended; `facts`: what there is to say about its data.
    """

    spec: RunSpec
    folder: str
    status: str
    compiled: bool = False
    linear_backend: str = "torch"
    hardware: str = ""
    git_commit: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    parent_run: str | None = None
    tracking_run: str | None = None
    started: str = ""
    finished: str | None = None
    step: int = 0
    seconds: float = 0.0
    tokens_per_second: float | None = None
    mfu: float | None = None
    peak_memory: int | None = None
    energy: dict[str, Any] | None = None
    training_loss: float | None = None
    validation_loss: float | None = None
    bits_per_byte: float | None = None
    domains: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    loss_spikes: int = 0
    copying: dict[str, float] = dataclasses.field(default_factory=dict)
    samples: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    metrics_sha256: str | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def metric(self) -> float | None:
        """What a search ranks runs of this objective by; None where it was not measured."""
        return self.metrics.get(entry_of(self.spec.objective).metric)

    @property
    def summary(self) -> str:
        """What came out, in a line."""
        if entry_of(self.spec.objective).reads_text:
            if self.validation_loss is not None and self.bits_per_byte is None:
                return f"validation loss {self.validation_loss:.4f}"
            if self.validation_loss is None or self.bits_per_byte is None:
                return "not validated"
            return f"validation loss {self.validation_loss:.4f}, {self.bits_per_byte:.4f} bits per byte"
        parts = [f"{label} {self.metrics[name]:.4f}" for name, label in _SUMMARY if name in self.metrics]
        return ", ".join(parts) or "nothing held out to validate on"

    def save(self) -> None:
        outcome = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        write_run(self.folder, outcome | {"spec": self.spec.to_json()})

    def update(self, **changes: Any) -> "RunRecord":
        """A copy with other values, saved."""
        record = dataclasses.replace(self, **changes)
        record.save()
        return record

    def ended(self, *, finished: bool, **outcome: Any) -> "RunRecord":
        """A copy that says how the run ended, and when. A run that was only tried out never counts as finished."""
        status = (TRIED if self.spec.is_trial else FINISHED) if finished else INTERRUPTED
        return dataclasses.replace(self, **outcome, status=status, finished=_now())


def begin_record(
    spec: RunSpec,
    folder: Path | str,
    *,
    compiled: bool = False,
    linear_backend: str = "torch",
    parent_run: str | None = None,
) -> RunRecord:
    """The record of a run before its first step, on this machine. Nothing is written yet."""
    return RunRecord(
        spec=spec,
        folder=str(folder),
        status=RUNNING,
        compiled=compiled,
        linear_backend=linear_backend,
        hardware=hardware_name(),
        git_commit=git_commit(),
        versions=package_versions(),
        parent_run=parent_run,
        started=_now(),
    )


def read_record(folder: Path | str) -> RunRecord | None:
    """The record in a run's folder; None where there is none. Raises `StageError` where it can't be read."""
    content = read_run(folder)
    return None if content is None else record_of(content, folder)


def find_record(spec: RunSpec, outputs: Path | str, *, finished: bool = False) -> RunRecord | None:
    """The record of the run that `spec` is, as it stands; with `finished` only where it is. Says what it finds."""
    record = read_record(spec.folder(outputs))
    if record is None or (finished and record.status != FINISHED):
        return None
    if spec.prediction not in (None, record.spec.prediction):
        say(f"run {spec.name} was begun before this prediction was written: it can't decide it")
    if record.status == FINISHED:
        say(f"run {spec.name}: up to date: {record.summary}")
    return record


def is_assistant(folder: Path, tokenizer: "Tokenizer") -> bool:
    """Whether the run in a folder was trained to answer requests in the chat template; of a model that is no run of
    ours, whether it came with a chat template of its own."""
    content = read_run(folder)
    if content is None:
        return tokenizer.template_chat is not None
    return entry_of(content["spec"]["objective"]).answers


def why_trained_again(spec: RunSpec, outputs: Path | str) -> str | None:
    """Why a finished run of the same size, tokens and objective is not this run, in words; None where there is none
    that is like it."""
    nearest: tuple[list[str], str] | None = None
    for folder in sorted(listed(Path(outputs) / "runs", f"{glob.escape(spec.label)}-*"), key=_changed):
        try:
            record = read_record(folder)
        except StageError:
            continue
        if record is None or record.status != FINISHED or record.spec.objective != spec.objective:
            continue
        try:
            differences = spec.differences(record.spec)
        except MaquetteError:  # a part of that run is gone: nobody asked for it here
            continue
        if differences and (nearest is None or len(differences) <= len(nearest[0])):  # of equals the newest
            nearest = differences, record.name
    if nearest is None or len(nearest[0]) > _LIKE:
        return None
    changes, name = nearest
    code = [change for change in changes if change.endswith(CODE_CHANGED)]
    if len(code) == len(changes):
        return f"trained again, for {' and '.join(code)} since {name}"
    return f"differs from {name}: {', '.join(changes)}"


def _changed(folder: Path) -> int:
    path = folder / FILE
    return path.stat().st_mtime_ns if path.exists() else 0


def record_of(content: Mapping[str, Any], folder: Path | str) -> RunRecord:
    """The record that a `run.json` holds; `folder` is where it lies now, for it may have been moved.

    Raises `StageError` where something is missing."""
    known = {entry.name for entry in dataclasses.fields(RunRecord)}
    outcome = {key: value for key, value in content.items() if key in known and key not in ("spec", "folder")}
    try:
        return RunRecord(spec=RunSpec.from_json(content["spec"]), folder=str(folder), **outcome)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StageError(
            f"{Path(folder) / FILE} is damaged: {error}.", "Restore the file, or train again with force=true."
        ) from None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
