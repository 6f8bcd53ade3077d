"""The model card of a run that trained on examples."""

from maquette.recipe.objectives import entry_of
from maquette.training.callbacks.progress import duration
from maquette.training.record import RunRecord

_SHOWN = (
    ("validation/loss", "validation loss"),
    ("validation/token_accuracy", "likeliest token is right"),
    ("validation/accuracy", "wanted answer preferred"),
    ("validation/calibration_error", "expected calibration error"),
    ("objective/kl", "KL from the reference, nats per answer"),
    ("completions/mean_length", "tokens of an answer, on average"),
    ("completions/eos_rate", "share of answers that end by themselves"),
)


def write_example_card(record: RunRecord) -> str:
    """Markdown with a Hugging Face header: data, compute, measurements, lineage."""
    facts, parts, entry = record.facts, record.spec.parameters, entry_of(record.spec.objective)
    measured = "\n".join(
        f"| {label} | {record.metrics[name]:.4f} |" for name, label in _SHOWN if name in record.metrics
    )
    lineage = "\n".join(f"- {name}: `{digest}`" for name, digest in record.spec.digests.items())
    commit = f"\n- code: `{record.git_commit}`" if record.git_commit else ""
    task = "text-classification" if entry.scalar else "text-generation"
    score = (
        "\nIts number is read at the last token of `prompt + answer`, rendered by the chat template; only differences "
        "between two answers to one prompt mean something.\n"
        if entry.scalar
        else ""
    )
    return f"""---
library_name: transformers
pipeline_tag: {task}
---
# {record.name}

{entry.title}, trained by Maquette from `{record.spec.checkpoint}`.
{score}
| | |
|---|---|
| parameters N | {record.spec.size:,}: core {parts.core:,} and head {parts.head:,} |
| examples | {facts["train"]["examples"]:,} for training, {facts["validation"]["examples"]:,} held out |
| left out as too long | {facts["too_long"]:,} of {facts["read"]:,} |
| epochs | {facts["epochs"]:.2f} |
| training FLOPs | {record.spec.compute:.4g} |
| peak learning rate | {record.spec.learning_rate:.3g} |
| trained in | {duration(record.seconds)} on {record.hardware} |
{measured}

## Lineage
{lineage}
- weights it started from: `{record.spec.checkpoint}`{commit}
- run: `{record.name}`, seed {record.spec.seed}
"""
