"""Where a run comes from: digests of what it read, the sweep it belongs to, the checkpoint it started from."""

from collections.abc import Mapping

PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own tag: its pages and searches nest a run below the one named here."""


def lineage_tags(
    digests: Mapping[str, str],
    *,
    parent: str | None = None,
    checkpoint: str | None = None,
    checkpoint_run: str | None = None,
) -> dict[str, str]:
    """Tags for a run: `digest.<name>` for each of `digests` (such as tokenizer, tokens, corpus); `parent`, the run id
    of its sweep; `checkpoint`, the path its weights started from, and `checkpoint_run`, the run id that made them."""
    tags = {f"digest.{name}": value for name, value in digests.items()}
    named = {PARENT_TAG: parent, "checkpoint.from": checkpoint, "checkpoint.from_run": checkpoint_run}
    return tags | {key: value for key, value in named.items() if value is not None}
