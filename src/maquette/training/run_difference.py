"""Two runs side by side: the settings that differ, the important ones first, and what else does: size, result, data,
code, environment. What `maquette runs diff A B` shows.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import listed
from maquette.artifacts.progress import duration
from maquette.artifacts.run_file import FILE
from maquette.artifacts.settings import flatten, nearest
from maquette.recipe.fingerprint import OBSERVERS, without
from maquette.tracking.config import TrackingConfig
from maquette.tracking.runs_table import by_importance, plain
from maquette.training.record import RunRecord, read_record

SETTINGS, RESULT = "settings", "result"

Described = dict[str, dict[str, Any]]
"""Part -> name -> value."""

_OF_CODE = ("maquette-lm",)
_TIMES = ("seconds",)
_SCORES = ("loss", "bits_per_byte", "accuracy", "gold", "kl", "reward")
_CELL = 22


def find_run(wanted: str, outputs: Path | str, tracking: TrackingConfig) -> RunRecord:
    """The run that is meant: a folder, a name under `outputs`, the beginning or end of one, or the name or id of a run
    that only MLflow has.

    Raises `ConfigError` for what means no run, or several."""
    root = Path(outputs) / "runs"
    for folder in (Path(wanted), root / wanted):
        if (record := read_record(folder)) is not None:
            return record
    names = [path.parent.name for path in listed(root, f"*/{FILE}")]
    alike = [name for name in names if name.startswith(wanted) or name.endswith(wanted)]
    if len(alike) == 1 and (record := read_record(root / alike[0])) is not None:
        return record
    if alike:
        more = f" and {len(alike) - 4} more" if len(alike) > 4 else ""
        raise ConfigError(f"{wanted} may be {', '.join(alike[:4])}{more}.", "Write more of the name.")
    return _of_mlflow(wanted, outputs, tracking, names)


def _of_mlflow(wanted: str, outputs: Path | str, tracking: TrackingConfig, known: list[str]) -> RunRecord:
    from maquette.tracking.search import find_runs
    from maquette.tracking.store import explained, open_client, store_uri

    runs = find_runs(outputs, uri=tracking.uri, experiment=None)
    named = runs[(runs["run_id"] == wanted) | (runs["name"] == wanted)]
    if not len(named):
        close = nearest(wanted, [*known, *runs["name"].astype(str)])
        hint = f"Did you mean {close}?" if close else "maquette runs lists them; a run's folder is understood, too."
        raise ConfigError(f"there is no run {wanted} in {tracking.uri or outputs}.", hint)
    uri = store_uri(tracking, outputs)
    with explained(uri), tempfile.TemporaryDirectory() as folder:
        client, run_id = open_client(uri), str(named["run_id"].iloc[0])
        if any(file.path == FILE for file in client.list_artifacts(run_id)):
            client.download_artifacts(run_id, FILE, folder)
        if (record := read_record(folder)) is not None:
            return record
    kind = named.get("tags.kind", {}).get(named.index[0]) or "run"
    raise ConfigError(
        f"{wanted} ({kind}, {named['status'].iloc[0].lower()}) has no {FILE}: it trained no model to its end.",
        "Compare two runs of maquette train.",
    )


def describe(record: RunRecord) -> Described:
    """What a run is and what came of it, by part. `data`: digests; `code`: the commit, and digests of a user's own."""
    spec = record.spec
    counts = {name: value for name, value in spec.params.items() if name not in spec.settings}
    results = {
        "status": record.status, "step": record.step, "validation/loss": record.validation_loss,
        "validation/bits_per_byte": record.bits_per_byte, "train/loss": record.training_loss,
        "seconds": record.seconds, "tokens_per_second": record.tokens_per_second, "mfu": record.mfu,
        "peak_memory_bytes": record.peak_memory, "loss_spikes": record.loss_spikes, **record.metrics,
    }  # fmt: skip
    of_code = {name: record.versions.get(name) for name in _OF_CODE}
    return {
        SETTINGS: flatten(without(spec.settings, (*OBSERVERS, "size", "tokens", "compute"))),
        "size": counts,
        RESULT: {name: value for name, value in results.items() if value is not None},
        "data": dict(spec.digests),
        "code": {"git.commit": record.git_commit, **of_code, **spec.code},
        "environment": {
            "hardware": record.hardware, "compiled": record.compiled, "linear_backend": record.linear_backend,
            **{name: version for name, version in record.versions.items() if name not in _OF_CODE},
        },
    }  # fmt: skip


def differences(first: RunRecord, second: RunRecord) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Part -> name -> both values: of the results all, of the rest what differs, settings by importance."""
    one, other = describe(first), describe(second)
    parts = {}
    for part in one:
        names = list(dict.fromkeys((*one[part], *other[part])))
        pairs = {name: (one[part].get(name), other[part].get(name)) for name in names}
        differing = {name: pair for name, pair in pairs.items() if part == RESULT or pair[0] != pair[1]}
        order = by_importance(differing) if part == SETTINGS else list(differing)
        parts[part] = {name: differing[name] for name in order}
    return parts


_SHOWN = (
    "status", "step", "validation/loss", "validation/bits_per_byte", "validation/accuracy", "validation/gold",
    "objective/kl", "train/loss", "seconds", "tokens_per_second", "mfu", "peak_memory_bytes", "loss_spikes",
)  # fmt: skip


def _on_screen(part: str, name: str, pair: tuple[Any, Any]) -> bool:
    """At a terminal: of results the main ones, and the losses of domains; the rest is in TSV and JSON."""
    main = name in _SHOWN or (name.startswith("validation/") and name.endswith("/loss"))
    return part != RESULT or (main and pair != (0, 0))


def difference_table(first: RunRecord, second: RunRecord) -> Table:
    """For a terminal: a row for each thing that differs, and of numbers by how much."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for heading in (first.name, second.name):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("change", justify="right", no_wrap=True)
    for part, pairs in differences(first, second).items():
        shown = {name: pair for name, pair in pairs.items() if _on_screen(part, name, pair)}
        table.add_row(Text(part, style="bold"), "", "", "" if shown else Text("the same", style="dim"))
        for name, pair in shown.items():
            table.add_row(Text(f"  {name}"), *(Text(_cell(name, part, value)) for value in pair), _change(name, *pair))
    return table


def tab_separated_differences(first: RunRecord, second: RunRecord) -> Iterator[str]:
    """A line of headings, and one for each thing that differs."""
    yield "\t".join(("part", "name", first.name, second.name, "change"))
    for part, pairs in differences(first, second).items():
        for name, pair in pairs.items():
            cells = (part, name, *("" if value is None else str(value) for value in pair), _change(name, *pair))
            yield "\t".join(" ".join(cell.split()) for cell in cells)


def plain_differences(first: RunRecord, second: RunRecord) -> dict[str, Any]:
    """For JSON: `runs`, and each part's names with both values."""
    parts = differences(first, second)
    plain_parts = {part: {name: list(pair) for name, pair in pairs.items()} for part, pairs in parts.items()}
    return {"runs": [first.name, second.name], **plain_parts}


def show_differences(
    wanted: Sequence[str], outputs: Path | str, tracking: TrackingConfig, *, json: bool = False
) -> dict[str, Any]:
    """Prints what two runs differ in, as a table, TSV into a pipe or JSON; returns what the JSON holds.

    Raises `ConfigError` as `find_run`, and where both are one run."""
    first, second = (find_run(name, outputs, tracking) for name in wanted)
    if first.spec.fingerprint == second.spec.fingerprint:
        raise ConfigError(f"{' and '.join(wanted)} are one run, {first.name}.", "Name two.")
    result = plain_differences(first, second)
    if json:
        print(dumps(result, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        Console().print(difference_table(first, second))
    else:
        print("\n".join(tab_separated_differences(first, second)))
    return result


def _cell(name: str, part: str, value: Any) -> str:
    if name in _TIMES and part == RESULT:
        return duration(value) if value is not None else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = f"{value:.4f}" if number and name.endswith(_SCORES) else plain(value)
    text = " ".join(text.split())
    cut = 8 if part in ("data", "code") and len(text) >= 40 else _CELL  # of a digest its beginning tells
    return text if len(text) <= cut else f"{text[: cut - 1]}…"


def _change(name: str, first: Any, second: Any) -> str:
    """By how much the second number is greater: as a share, of losses and the like as they are."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (first, second)):
        return ""
    if name.endswith(_SCORES):
        return f"{second - first:+.4f}"
    return f"{second / first - 1:+.1%}" if first and abs(second / first - 1) >= 5e-4 else ""
