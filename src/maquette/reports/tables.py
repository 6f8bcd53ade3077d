"""Numbers in words, and tables of them: the same cells for pages, for Markdown and for the terminal."""

import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table


def quantity(value: float) -> str:
    """A number with three digits and its unit: 405B, 15.6T, 26.3M."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def p_value(value: float) -> str:
    """A p-value with three digits; below half of the last of them it is not 0."""
    return f"{value:.3f}" if value >= 0.0005 else "<0.001"


def span(interval: Sequence[float | None] | None, digits: int = 3) -> str:
    """An interval in words, `none` where it has no ends."""
    if interval is None or None in interval:
        return "none"
    low, high = (float(end) for end in interval if end is not None)
    if max(abs(low), abs(high)) >= 1000:
        return f"{low:.3g} to {high:.3g}"
    return f"{low:.{digits}f} to {high:.{digits}f}"


def coefficient(value: float, interval: Sequence[float | None] | None = None) -> str:
    """A fitted number with its interval; one whose interval spans orders of magnitude is not determined."""
    if interval is None or None in interval:
        return f"{value:.4g}"
    low, high = (float(end) for end in interval if end is not None)
    if abs(high) > 1e4 * max(abs(low), 1e-2):
        return f"{value:.2g} (not determined)"
    return f"{value:.4g} ({span(interval)})"


def times(factor: float) -> str:
    """How many times as much: beyond a thousand only that it is."""
    return f"{factor:.3g} times" if factor < 1000 else "over 1,000 times"


def filename(source: str) -> str:
    """What a table of runs is called in a title: the name of its file without its folders, or the words themselves."""
    return PurePath(source).name if re.fullmatch(r"\S*[/\\]\S+", source) else source


def estimate(value: Any) -> str:
    """An estimate (`value`, `interval`) with its interval."""
    return f"{value.value:.3f} ({span(value.interval)})"


def error_words(relative: float, slope: float) -> str:
    """A relative error of a loss, in words: "2.3% of the loss, as much as 1.36 times the compute". `slope`: d ln L /
    d ln C."""
    return f"{abs(relative):.1%} of the loss, {compute_words(relative, slope)}"


def compute_words(relative: float, slope: float) -> str:
    """The same without the loss: "as much as 1.36 times the compute"."""
    factor = math.exp(min(700.0, abs(math.log1p(relative) / slope))) if slope else math.inf
    return f"as much as {times(factor)} the compute"


def cell(value: float, spec: str) -> tuple[float, str]:
    """A number for a table, shown by `spec`."""
    return value, format(value, spec)


class Cell(NamedTuple):
    """What a cell shows, and the number that it stands for, if any."""

    text: str
    number: float | None
    best: bool = False

    @property
    def wraps(self) -> bool:
        """Whether it may stand in several lines: sentences, not numbers and intervals."""
        return len(self.text) > _ONE_LINE

    @property
    def is_sentence(self) -> bool:
        """Whether it has a line of its own, after the others, where a row is a list of its cells."""
        return len(self.text) > _SENTENCE


_ONE_LINE = 22
"""Characters of a cell that stays in one line."""
_SENTENCE = 36
_WHOLE_NAME = 32  # characters of a row's name that a narrow terminal does not break


class TableCells(NamedTuple):
    """Columns with whether they hold numbers, which stand right, and the cells row by row."""

    columns: list[tuple[str, bool]]
    rows: list[list[Cell]]

    @property
    def width(self) -> float:
        """How wide a page's table has to be for its rows to be read across, in rem, rounded up to fours."""
        headings = [max(map(len, [*name.split(), ""])) for name, _ in self.columns]
        cells = [[min(len(row[place].text), _ONE_LINE) for row in self.rows] for place in range(len(headings))]
        widest = [max(heading, *lengths, 4) for heading, lengths in zip(headings, cells, strict=True)]
        return 4 * math.ceil((0.56 * sum(widest) + 0.12 * widest[0] + 1.5 * len(headings) + 0.7) / 4)  # names are bold


def tabulate(
    columns: Sequence[str] | Mapping[str, str],
    rows: Sequence[Any],
    best: str | None = None,
    compared: Sequence[str] = (),
) -> TableCells:
    """The cells of a table whose first column names the rows.

    `columns`: either headings, of rows that are sequences of cells, or by heading the form of a cell from the fields,
    keys or places of a row, empty where one is None: `{"interval": "{low:.3f} to {high:.3f}"}`. A cell may be a pair
    (number, text): shown as text, compared as a number. `best` (`min` or `max`) marks in each row the least or greatest
    number among the columns `compared` (by default all).
    """
    names = list(columns)
    forms = columns if isinstance(columns, Mapping) else None
    table = [[_cell(cell) for cell in row] if forms is None else _cells(row, forms) for row in rows]
    rivals = [place for place, name in enumerate(names) if place and (not compared or name in compared)]
    if best:
        table = [_marked_best(row, min if best == "min" else max, rivals) for row in table]
    numeric = [place > 0 and any(row[place].number is not None for row in table) for place in range(len(names))]
    return TableCells(list(zip(names, numeric, strict=True)), table)


def _cell(value: Any) -> Cell:
    shown, value = (value[1], value[0]) if isinstance(value, tuple) else (None, value)
    number = float(value) if isinstance(value, int | float) else None
    return Cell(_shown(value) if shown is None else str(shown), number)


def _shown(value: Any, spec: str = "") -> str:
    if spec == "quantity":
        return quantity(value)
    if spec == "p_value":
        return p_value(value)
    if spec == "estimate":
        return estimate(value)
    if spec == "times":
        return times(value)
    if spec.startswith("span"):
        return span(value, int(spec[4:] or 3))
    if not spec and isinstance(value, int | float):
        spec = ",.4g" if isinstance(value, float) else ","
    return format(value, spec)


def _cells(row: Any, forms: Mapping[str, str]) -> list[Cell]:
    cells = []
    for form in forms.values():
        formatter = _Formatter(row)
        text = formatter.format(form)
        only = formatter.values[0] if len(formatter.values) == 1 and form.startswith("{") else None
        number = float(only) if isinstance(only, int | float) else None
        cells.append(Cell("" if None in formatter.values else text, number))
    return cells


class _Formatter(string.Formatter):
    """Fills a form from one row; `values` are those that it has used."""

    def __init__(self, row: Any) -> None:
        self._row = row
        self.values: list[Any] = []

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value = self._row
        for part in field_name.split("."):
            if value is None:
                break
            if isinstance(value, Mapping):
                value = value.get(part)
            else:
                value = value[int(part)] if part.isdigit() else getattr(value, part)
        self.values.append(value)
        return value, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return "" if value is None else _shown(value, format_spec)


def _marked_best(row: list[Cell], choose: Any, rivals: Sequence[int]) -> list[Cell]:
    known = [number for place in rivals if (number := row[place].number) is not None]
    if not known:
        return row
    return [cell._replace(best=place in rivals and cell.number == choose(known)) for place, cell in enumerate(row)]


def terminal_table(
    columns: Sequence[str] | Mapping[str, str], rows: Sequence[Any], title: str | None = None
) -> "Table":
    """The same table for the terminal: names to the left, all else to the right."""
    from rich.table import Table
    from rich.text import Text

    formatted = tabulate(columns, rows)
    table = Table(title=title, title_justify="left")
    whole = max((len(row[0].text) for row in formatted.rows), default=0) <= _WHOLE_NAME
    for place, (name, _) in enumerate(formatted.columns):
        justify: Literal["left", "right"] = "right" if place else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=whole and not place)
    for row in formatted.rows:
        table.add_row(*(Text(cell.text) for cell in row))
    return table
