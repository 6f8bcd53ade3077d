"""The model card: what a folder of weights says about where it comes from."""

from maquette.training.callbacks.progress import duration
from maquette.training.record import RunRecord


def write_card(record: RunRecord, mixture: dict[str, float]) -> str:
    """Markdown with a Hugging Face header: size, data, compute, losses, lineage."""
    losses = "\n".join(
        f"| {domain} | {mixture.get(domain, 0.0):.1%} | {values['epochs']:.2f} | {values['loss']:.4f} | "
        f"{values['perplexity']:.2f} | {_rate(values.get('bits_per_byte'))} |"
        for domain, values in record.domains.items()
        if "loss" in values
    )
    lineage = "\n".join(f"- {name}: `{digest}`" for name, digest in record.spec.digests.items())
    start = f"\n- weights it started from: `{record.spec.checkpoint}`" if record.spec.checkpoint else ""
    commit = f"\n- code: `{record.git_commit}`" if record.git_commit else ""
    parts = record.spec.parameters
    return f"""---
library_name: maquette-lm
pipeline_tag: text-generation
---
# {record.name}

A language model trained by Maquette.

| | |
|---|---|
| parameters N | {record.spec.size:,}: core {parts.core:,} and head {parts.head:,} |
| embedding | {parts.embedding:,} |
| tokens D | {record.spec.tokens:,} in sequences of {record.spec.sequence_length} |
| training FLOPs C | {record.spec.compute:.4g} exact, {record.spec.kaplan_compute:.4g} as 6 x core x D |
| batch, peak learning rate | {record.spec.batch_size_tokens:,} tokens, {record.spec.learning_rate:.3g} |
| precision | {record.spec.precision}{", compiled" if record.compiled else ""} |
| trained in | {duration(record.seconds)} on {record.hardware} |
| validation loss | {_rate(record.validation_loss)} nats per token, {_rate(record.bits_per_byte)} bits per byte |

Losses are of held-out text; the one above weighs the domains as the mixture does.

| domain | share in the mixture | epochs | loss | perplexity | bits per byte |
|---|---|---|---|---|---|
{losses}

## Lineage
{lineage}{start}{commit}
- run: `{record.name}`, seed {record.spec.seed}
"""


def _rate(bits_per_byte: float | None) -> str:
    return "unknown" if bits_per_byte is None else f"{bits_per_byte:.4f}"
