"""What a run says about itself: `run.json` in its folder, from its first moment to its last."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.files import write_json

FILE = "run.json"

FORMAT = 2
"""Of `run.json`; another is refused by name, never half understood."""

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
TRIED = "fast_dev_run"


_SUMMARY = (
    ("validation/loss", "validation loss"),
    ("validation/accuracy", "accuracy"),
    ("validation/gold", "gold reward"),
    ("objective/scores", "score"),
    ("objective/kl", "KL"),
)
"""What is told of a run that is not pretraining, where it has it."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run. Loss in nats per token, times in seconds, memory in bytes; N is `core + head`, C exact training FLOPs.

    `domains`: of each domain `loss`, `perplexity`, `bits_per_byte` on held-out text and `epochs` of its training
    text; `validation_loss` weighs them as the mixture does. `digests`: of tokens, tokenizer and corpus. `compiled` and
    `linear_backend` were decided once, when the run began. `architecture`: its kind in words. `prediction`: digest of
    the one that was written of it. `copying`: how much of what stood in the context once the model predicts the second
    time (`training.copying`), by the metric's name after the slash. `samples`: what the model wrote at the end.
    `objective`: pretrain, sft, ...; `metrics`: the newest value of every curve, by the name of the curve; `facts`: what
    there is to say about its data.
    """

    name: str
    folder: str
    fingerprint: str
    status: str
    size: str
    parameters: dict[str, int]
    tokens: int
    compute: int
    kaplan_compute: int
    steps: int
    batch_size_tokens: int
    sequence_length: int
    learning_rate: float
    warmup: float
    weight_decay: float
    seed: int
    precision: str
    compiled: bool
    hardware: str
    digests: dict[str, str]
    linear_backend: str = "torch"
    architecture: str | None = None
    git_commit: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    checkpoint: str | None = None
    parent_run: str | None = None
    prediction: str | None = None
    tracking_run: str | None = None
    started: str = ""
    finished: str | None = None
    step: int = 0
    seconds: float = 0.0
    tokens_per_second: float | None = None
    mfu: float | None = None
    peak_memory: int | None = None
    training_loss: float | None = None
    validation_loss: float | None = None
    bits_per_byte: float | None = None
    domains: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    loss_spikes: int = 0
    copying: dict[str, float] = dataclasses.field(default_factory=dict)
    samples: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    objective: str = "pretrain"
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    @property
    def num_parameters(self) -> int:
        """N: core and head."""
        return self.parameters["core"] + self.parameters["head"]

    @property
    def summary(self) -> str:
        """What came out, in a line."""
        if self.objective == "pretrain":
            if self.validation_loss is not None and self.bits_per_byte is None:
                return f"validation loss {self.validation_loss:.4f}"
            if self.validation_loss is None or self.bits_per_byte is None:
                return "no text to validate on"
            return f"validation loss {self.validation_loss:.4f}, {self.bits_per_byte:.4f} bits per byte"
        parts = [f"{label} {self.metrics[name]:.4f}" for name, label in _SUMMARY if name in self.metrics]
        return ", ".join(parts) or "nothing held out to validate on"

    def save(self) -> None:
        write_json(Path(self.folder) / FILE, dataclasses.asdict(self))

    def update(self, **changes: Any) -> "RunRecord":
        """A copy with other values, saved."""
        record = dataclasses.replace(self, **changes)
        record.save()
        return record


def read_record(folder: Path | str) -> RunRecord | None:
    """The record in a run's folder; None where there is none. Raises `StageError` where it can't be read."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if (found := raw.get("format", 1)) != FORMAT:
            raise StageError(
                f"{path} is of format {found} and this version of Maquette reads {FORMAT}.",
                "Use another folder of outputs, or train the run again with force=true.",
            )
        known = {field.name for field in dataclasses.fields(RunRecord)}
        record = RunRecord(**{key: value for key, value in raw.items() if key in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise StageError(f"{path} is damaged: {error}.", "Train again with force=true.") from None
    return dataclasses.replace(record, folder=str(folder))  # the folder may have been moved
