"""Runs side by side as tables for a terminal: what they are, how good they are, in which settings they differ."""

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import nearest
from maquette.tracking.search import PARAMETERS

if TYPE_CHECKING:
    import pandas as pd

MOST_DIFFERENCES = 8
"""At most so many settings are shown beside each other."""

_SHOWN_ANYWAY = (
    "size", "tokens", "params.tokens", "N", "N_core", "N_head", "N_embedding", "N_total", "V", "D", "C", "C_kaplan",
    "steps",
)  # fmt: skip
_SPARE = ("energy", "size", "MFU", "sweep", "tokens/s", "age")
"""What a narrow terminal does without, in this order: the size stands in the name, too."""

_STYLES = {"FINISHED": "green", "RUNNING": "cyan", "FAILED": "red", "KILLED": "yellow", "STALE": "red"}


def results_table(
    runs: "pd.DataFrame",
    columns: Sequence[str] = (),
    now: datetime.datetime | None = None,
    *,
    width: int | None = None,
) -> Table:
    """A row a run, newest first: with `columns` the name and those; else size and budget, results, speed, state, age.

    Where that is wider than `width` characters the columns that can best be missed are left out.
    Raises `ConfigError` for a column that no run has.
    """
    shown = {name: _own_column(runs, name) for name in columns} if columns else _main_columns(runs, now)
    for spare in () if columns else _SPARE:
        if width is None or _characters(runs, shown) <= width:
            break
        shown.pop(spare, None)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("run", no_wrap=True)
    for heading in shown:
        table.add_column(heading, justify="left" if heading in ("size", "status", "sweep") else "right")
    for index, name in enumerate(runs["name"]):
        table.add_row(Text(str(name)), *(cells[index] for cells in shown.values()))
    return table


def _characters(runs: "pd.DataFrame", shown: dict[str, list[Text]]) -> int:
    """How wide a table of these columns is; a heading of several words may stand in several lines."""
    widths = [max(len(str(name)) for name in runs["name"])]
    widths += [
        max(*(len(word) for word in heading.split()), *(cell.cell_len for cell in cells))
        for heading, cells in shown.items()
    ]
    return sum(widths) + 2 * len(widths) + 2


def differences_table(runs: "pd.DataFrame", *, width: int | None = None) -> Table | None:
    """The settings in which the runs differ, beyond size and budget, the most important first; None where they do not.
    As many as stand in `width` characters, with long values cut."""
    trained = _trained(runs)
    names = differing_settings(trained, runs.attrs.get(PARAMETERS, ()))
    columns: dict[str, list[Text]] = {}
    room = (width or 10**6) - 4 - max((len(str(name)) for name in trained["name"]), default=0)
    for name in names:
        if len(columns) == MOST_DIFFERENCES:
            break
        cells = [_cut(plain(value)) for value in trained[name]]
        wide = 3 + max(*(len(part) + 1 for part in name.split(".")), *(cell.cell_len for cell in cells))
        if wide <= room or not columns:
            columns[name] = cells
            room -= wide
    if not columns:
        return None
    some = f" ({len(columns)} of {len(names)}; --json has all)" if len(names) > len(columns) else ""
    table = Table(title=f"settings that differ{some}", title_justify="left")
    table.add_column("run", no_wrap=True)
    for name in columns:
        table.add_column(name if width is None else name.replace(".", ".\n"), justify="right")
    for index, name in enumerate(trained["name"]):
        table.add_row(Text(str(name)), *(cells[index] for cells in columns.values()))
    return table


_WIDEST_CELL = 20


def _cut(value: str) -> Text:
    """A long value in a cell: of a class or a path the last part, which tells it from others."""
    value = " ".join(value.split())
    if len(value) > _WIDEST_CELL and re.fullmatch(r"[\w./-]+", value):
        value = re.split(r"/|\.(?=[A-Z])", value)[-1] or value
    return Text(value if len(value) <= _WIDEST_CELL else f"{value[: _WIDEST_CELL - 1]}…")


def _trained(runs: "pd.DataFrame") -> "pd.DataFrame":
    """The runs that trained a model: sweeps and predictions have settings of other kinds."""
    return runs[runs["N"].notna()] if "N" in runs else runs


_IMPORTANCE = (
    "objective", "checkpoint", "model", "optimizer", "scheduler", "recipe", "precision", "mixture", "data", "seed",
    "reward", "prompts", "instructions", "preferences", "adapter", "trainer",
)  # fmt: skip
"""Groups of settings in the order in which one looks at them; the rest follows, and what made the text comes last."""
_TEXT = ("tokenizer", "corpus", "source", "curation", "executor", "shards")


def differing_settings(runs: "pd.DataFrame", parameters: Sequence[str]) -> list[str]:
    """Which of the parameters are not the same in all the runs, the most important first."""
    names = [name for name in parameters if name in runs and name not in (*_SHOWN_ANYWAY, "training_seconds")]
    return by_importance(name for name in names if runs[name].map(str).nunique() > 1)


def by_importance(names: Iterable[str]) -> list[str]:
    """Settings, the most important first: one of each group, then a second of each, so that the many numbers that
    follow from a model's size do not hide the rest."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name.removeprefix("params.").partition(".")[0], []).append(name)

    def importance(group: str, rank: int) -> tuple[bool, int, int, str]:
        place = _IMPORTANCE.index(group) if group in _IMPORTANCE else len(_IMPORTANCE)
        return group in _TEXT, rank, place, group

    ranked = [(importance(group, rank), name) for group, ones in groups.items() for rank, name in enumerate(ones)]
    return [name for _, name in sorted(ranked)]


def tab_separated_runs(
    runs: "pd.DataFrame", columns: Sequence[str] = (), now: datetime.datetime | None = None
) -> Iterator[str]:
    """A line of headings and one for each run, with all columns of `results_table` and all settings that differ.

    Raises as `results_table`."""
    shown = {name: _own_column(runs, name) for name in columns} if columns else _main_columns(runs, now)
    if not columns:
        differing = differing_settings(_trained(runs), runs.attrs.get(PARAMETERS, ()))
        shown |= {name: [Text(plain(value)) for value in runs[name]] for name in differing}
    yield "\t".join(("run", *shown))
    for index, name in enumerate(runs["name"]):
        cells = (str(name), *(column[index].plain for column in shown.values()))
        yield "\t".join(" ".join(cell.split()) for cell in cells)


def _main_columns(runs: "pd.DataFrame", now: datetime.datetime | None) -> dict[str, list[Text]]:
    now = now or datetime.datetime.now(datetime.UTC)
    names = dict(zip(runs["run_id"], runs["name"], strict=True))
    columns = {
        "size": _column(runs, ("size",), lambda value: plain(value).replace(",", "")),
        "N": _column(runs, ("N",), short),
        "D": _column(runs, ("D",), short),
        "C": _column(runs, ("C",), lambda value: f"{value:.2g}"),
        "loss": _column(runs, ("validation/loss",), lambda value: f"{value:.4f}"),
        "bits per byte": _column(runs, ("validation/bits_per_byte",), lambda value: f"{value:.4f}"),
        "tokens/s": _column(runs, ("tokens_per_second", "speed/tokens_per_second"), lambda value: f"{value:,.0f}"),
        "MFU": _column(runs, ("mfu", "speed/mfu"), lambda value: f"{value:.0%}"),
        "energy": _column(runs, ("energy_kwh",), lambda value: f"{1000 * value:.3g} Wh"),
        "status": [_status(row) for _, row in runs.iterrows()],
        "sweep": _column(runs, ("parent",), lambda parent: names.get(parent, parent[:8])),
        "age": [Text(age((now - start).total_seconds())) for start in runs["start"]],
    }
    return {
        heading: cells for heading, cells in columns.items() if heading == "status" or any(cell.plain for cell in cells)
    }


def _column(runs: "pd.DataFrame", names: Sequence[str], show: Callable[[Any], str]) -> list[Text]:
    """Of each run the first of the columns that it has a value in."""
    cells = [Text("") for _ in range(len(runs))]
    for name in reversed([name for name in names if name in runs]):
        for index, value in enumerate(runs[name]):
            if not _missing(value):
                cells[index] = Text(show(value))
    return cells


def _own_column(runs: "pd.DataFrame", name: str) -> list[Text]:
    if name not in runs:
        close = nearest(name, list(runs.columns))
        raise ConfigError(
            f"no run has '{name}'.", f"Did you mean '{close}'?" if close else "maquette runs --json shows all."
        )
    return [Text(plain(value)) for value in runs[name]]


def _status(row: "pd.Series") -> Text:
    """The state; of a run that has not finished also how far it is."""
    status, done = str(row["status"]), ""
    seen, budget = row.get("tokens"), row.get("D")
    if status != "FINISHED" and isinstance(seen, float | int) and isinstance(budget, float | int) and seen == seen:
        done = f" at {seen / budget:.0%}"
    return Text(status.lower() + done, style=_STYLES.get(status, ""))


def plain(value: Any) -> str:
    """A value in a cell; nothing for one that is missing."""
    if _missing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN, and pandas' own marks, differ from themselves


def short(count: float) -> str:
    """A count in three digits: 300123 is 300k, 4340000 is 4.34M."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= 0.9995 * unit:
            return f"{float(f'{count / unit:.3g}'):g}{name}"
    return f"{count:.0f}"


def age(seconds: float) -> str:
    """How long ago: 45 s, 12 min, 3 h, 5 d."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"
