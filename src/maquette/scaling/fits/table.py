"""A table of runs with everything a fit may want to know of them, from anybody's CSV file.

Columns are known by the names that people give them (`N`, `params`, `n_params`, `Model Size` ...); what a law needs is
checked at the door, with the file's own line numbers, and what is left out is named with its reason.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.reading import reading, short
from maquette.artifacts.settings import nearest, parse_quantity
from maquette.scaling.fits.units import check_units, converted, implausible, with_point
from maquette.scaling.laws.runs import Array, LawError, group_budgets
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN

if TYPE_CHECKING:
    import pandas as pd

CONVENTIONS = ("exact", "kaplan")
"""What N and C count. exact: parameters of core and head, training FLOPs as counted; kaplan: the core's, and 6 N D."""

ALIASES: dict[str, tuple[str, ...]] = {
    "params": ("n", "params", "nparams", "parameters", "numparameters", "numparams", "modelsize", "size"),
    "tokens": ("d", "tokens", "ntokens", "numtokens", "trainingtokens", "traintokens", "tokensseen"),
    "loss": ("loss", "validationloss", "valloss", "finalloss", "evalloss", "testloss"),
    "compute": ("c", "compute", "flops", "flop", "trainingflops", "trainingflop", "trainflops"),
    "budget": ("budget", "computebudget", "isoflop"),
    "seed": ("seed",),
    "kind": ("kind",),
    "name": ("name", "run", "runname", "id"),
    "core": ("ncore", "core", "coreparams", "nonembeddingparams"),
    "unique": ("uniquetokens", "unique", "distincttokens"),
    "epochs": ("epochs",),
    "copying": ("copyingscore", "copying"),
    "unigram_entropy": ("unigramentropy",),
    "left_out": ("excluded", "excludedoutlier", "outlier", "leftout"),
}
"""Of each role the names that mean it, the likeliest first; case, spaces and punctuation do not count."""


@dataclasses.dataclass(frozen=True)
class RunTable:
    """Runs as columns (n,), all above zero: N, D, loss in nats per token, FLOPs, and each run's budget.

    `core` (parameters without the vocabulary's), `seed`, `kinds`, `copying` and `unigram_entropy` (nats per token of
    the training text under its own token frequencies) are None where the source does not say.
    `frame`: every column of the source, of the same rows. `left_out`: runs that do not count, each with its reason.
    `notes`: what was worked out rather than read. `source`: what the runs are, in words.
    """

    source: str
    names: tuple[str, ...]
    params: Array
    tokens: Array
    loss: Array
    compute: Array
    budget: Array
    frame: "pd.DataFrame"
    convention: str = "exact"
    core: Array | None = None
    seed: Array | None = None
    copying: Array | None = None
    unigram_entropy: Array | None = None
    kinds: NDArray[np.str_] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.params)

    @property
    def folders(self) -> list[Path] | None:
        """Where the runs lie; None where the source does not say of all of them."""
        if "folder" not in self.frame.columns or not self.frame["folder"].notna().all():
            return None
        return [Path(str(folder)) for folder in self.frame["folder"]]

    @property
    def token_kinds(self) -> dict[str, tuple[Array, float]]:
        """Of each kind of token the runs' losses (n,), in nats a token, and its share in the text: from the columns
        `token_kinds/<kind>_loss` and `_share`. Empty where any run lacks one."""
        kinds = {}
        for name in map(str, self.frame.columns):
            if (match := _TOKEN_KIND.fullmatch(name)) is None:
                continue
            loss, share = (complete_column(self.frame, f"token_kinds/{match[1]}_{what}") for what in ("loss", "share"))
            if loss is None or share is None:
                return {}
            kinds[match[1]] = loss, float(np.mean(share))
        return kinds

    def take(self, rows: NDArray[Any]) -> "RunTable":
        """The runs chosen by `rows`, a mask (n,) or indices."""
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, int)
        arrays: dict[str, Any] = {
            field.name: getattr(self, field.name)[index]
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        names = tuple(self.names[i] for i in index)
        return dataclasses.replace(self, names=names, frame=self.frame.iloc[index].reset_index(drop=True), **arrays)

    def without(self, names: list[str], reason: str = "left out by hand") -> "RunTable":
        """The table without the runs called so. Raises `ConfigError` for a name that no run has."""
        for name in names:
            if name not in self.names:
                close = nearest(name, list(self.names))
                raise ConfigError(
                    f"without={name}: there is no such run in {self.source}.", f"Did you mean {close}?" if close else ""
                )
        remaining = self.take(np.array([name not in names for name in self.names]))
        return dataclasses.replace(remaining, left_out=(*self.left_out, *((name, reason) for name in names)))

    def in_convention(self, convention: str) -> "RunTable":
        """The same runs counted otherwise. Raises `LawError` where the source does not have the core's parameters."""
        if convention == self.convention:
            return self
        if convention not in CONVENTIONS or self.convention != "exact":
            raise LawError(f"convention={convention} is not known.", f"Allowed: {', '.join(CONVENTIONS)}.")
        if self.core is None:
            raise LawError(
                f"{self.source} does not say how many of the parameters are the core's: Kaplan's convention needs it.",
                "Give a column N_core.",
            )
        compute = FLOPS_PER_PARAMETER_AND_TOKEN * self.core * self.tokens
        return dataclasses.replace(
            self, params=self.core, compute=compute, budget=group_budgets(compute), convention=convention
        )

    def column(self, name: str, key: str) -> "pd.Series[Any]":
        """What the source says of every run, with or without `params.` or `tags.` before the name. Raises
        `ConfigError`, which names the setting `key`, where there is no such column."""
        for called in (name, f"params.{name}", f"tags.{name}"):
            if called in self.frame.columns:
                return self.frame[called]
        columns = [str(one) for one in self.frame.columns]
        close = nearest(name, columns)
        raise ConfigError(
            f"{key}={name}: {self.source} has no such column.",
            f"Did you mean {close}?" if close else f"Columns: {', '.join(columns[:40])}.",
        )

    def identities(self) -> list[dict[str, Any]]:
        """Of every run its name, loss and fingerprint, None where it has none."""
        fingerprints = self.frame.get("tags.fingerprint", [None] * len(self))
        return [
            {"name": name, "loss": float(loss), "fingerprint": fingerprint if isinstance(fingerprint, str) else None}
            for name, loss, fingerprint in zip(self.names, self.loss, fingerprints, strict=True)
        ]

    def csv(self) -> str:
        """The runs as CSV: what a fit counts first, then what the source said besides."""
        import pandas as pd

        ours: dict[str, Any] = {
            "name": self.names, "N": self.params, "D": self.tokens, "C": self.compute, "loss": self.loss,
            "budget": self.budget, "seed": self.seed, "N_core": self.core, "copying/score": self.copying,
            "unigram_entropy": self.unigram_entropy, "kind": self.kinds,
        }  # fmt: skip
        frame = pd.DataFrame({key: value for key, value in ours.items() if value is not None})
        taken = {_plain(name) for name in frame.columns}
        rest = [name for name in self.frame.columns if _plain(str(name)) not in taken]
        text: str = pd.concat([frame, self.frame[rest].reset_index(drop=True)], axis=1).to_csv(index=False)
        return text


def read_table(path: Path | str, units: Mapping[str, str] | None = None) -> RunTable:
    """Runs from a CSV (or TSV) file with a header line; semicolons may separate its columns.

    Needs N, D and the loss, or the compute in place of one of N and D (6 N D). A run without a loss, or one that the
    file itself marks as left out (`excluded`), is left out and named. `units`: of the columns that are not counts,
    FLOPs or nats (`units.UNITS`). Raises `ConfigError` where the file can't be read, a column is missing or a unit is
    not known, `LawError` with line and column for a value that is not a number above 0.
    """
    import pandas as pd

    path = Path(path)
    if not path.exists():
        raise ConfigError(f"runs={path}: there is no such file.", "Give a CSV file, or the name of a sweep.")
    with reading(path, hint="It is to be CSV, with a line that names the columns.", kind=ConfigError):
        with path.open(encoding="utf-8") as file:
            head = file.readline()
        separator = "\t" if path.suffix == ".tsv" else ";" if head.count(";") > head.count(",") else ","
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, sep=separator)
    if not len(frame):
        raise ConfigError(f"{path} has no rows.", "Its first line names the columns; each further line is a run.")
    lines = [f"{path.name} line {number}" for number in range(2, len(frame) + 2)]
    return table_from(frame, str(path), lines, units or {})


def table_from(frame: "pd.DataFrame", source: str, rows: list[str], units: Mapping[str, str]) -> RunTable:
    """A table from text columns under people's names; `rows` says of each row where it stands, for errors."""
    check_units(units)
    if "decimals" in units:
        frame = frame.map(with_point)
    columns = known_columns([str(name) for name in frame.columns])
    _check_columns(columns, source, list(frame.columns))
    names = (
        list(frame[columns["name"]].astype(str)) if "name" in columns else [f"run {i + 1}" for i in range(len(rows))]
    )
    dropped = _dropped(frame, columns, names)
    row_numbers = [index for index in range(len(frame)) if index not in dropped]
    if not row_numbers:
        raise LawError(f"{source} has no run with a loss.", f"Column {columns['loss']}.")
    frame = frame.iloc[row_numbers].reset_index(drop=True)
    rows, left_out = (
        [rows[index] for index in row_numbers],
        tuple((names[index], why) for index, why in dropped.items()),
    )

    def column(role: str) -> Array | None:
        if role not in columns:
            return None
        numbers = _numbers(frame[columns[role]], columns[role], rows, positive=role not in ("seed", "copying"))
        return converted(numbers, _LETTERS[role], units) if role in _LETTERS else numbers

    params, tokens, loss, compute = (column(role) for role in ("params", "tokens", "loss", "compute"))
    assert loss is not None
    notes = [f"units={{{', '.join(f'{name}: {unit}' for name, unit in units.items())}}}"] if units else []
    others = [
        str(name)
        for name in frame.columns
        if _plain(str(name)) in ALIASES["loss"] and not frame[name].equals(frame[columns["loss"]])
    ]
    if others:
        notes.append(f"The loss is the column {columns['loss']}; there is also {', '.join(others)}.")
    if params is None or tokens is None:
        assert compute is not None
        other = params if params is not None else tokens
        assert other is not None
        worked_out = compute / (FLOPS_PER_PARAMETER_AND_TOKEN * other)
        notes.append(f"{'D' if tokens is None else 'N'} is worked out from C = 6 N D: the source does not have it.")
        params, tokens = (worked_out if params is None else params), (worked_out if tokens is None else tokens)
    if compute is None:
        compute = FLOPS_PER_PARAMETER_AND_TOKEN * params * tokens
        notes.append("C is 6 N D: the source does not have it.")
    notes += implausible(params, tokens, loss, compute, columns, rows)
    budget = column("budget")
    kinds = frame[columns["kind"]].astype(str).to_numpy(dtype=str) if "kind" in columns else None
    numeric = frame.apply(lambda values: values.map(_number) if _all_numbers(values) else values)
    return RunTable(
        source=source,
        names=tuple(names[index] for index in row_numbers),
        params=params,
        tokens=tokens,
        loss=loss,
        compute=compute,
        budget=group_budgets(compute) if budget is None else budget,
        frame=numeric,
        core=column("core"),
        seed=column("seed"),
        copying=column("copying"),
        unigram_entropy=column("unigram_entropy"),
        kinds=kinds,
        left_out=left_out,
        notes=tuple(notes),
    )


def known_columns(names: list[str]) -> dict[str, str]:
    """Which column has which role, by `ALIASES`."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(_plain(name), name)
    columns = {}
    for role, aliases in ALIASES.items():
        for alias in aliases:
            if alias in plain:
                columns[role] = plain[alias]
                break
    return columns


_TOKEN_KIND = re.compile(r"token_kinds/(\w+)_loss")


def complete_column(frame: "pd.DataFrame", name: str) -> Array | None:
    """A column as numbers (n,); None where it is missing, or any row lacks one."""
    import pandas as pd

    if name not in frame.columns:
        return None
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)
    return None if np.isnan(values).any() else values


_LETTERS = {"params": "N", "tokens": "D", "compute": "C", "budget": "C", "core": "N", "loss": "loss"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _check_columns(columns: dict[str, str], source: str, names: list[Any]) -> None:
    has = {role for role in ("params", "tokens", "compute") if role in columns}
    if "loss" in columns and len(has) >= 2:
        return
    missing = "the loss" if "loss" not in columns else "two of N, D and C"
    raise ConfigError(
        f"{source} has no column for {missing}; its columns are {short(', '.join(map(str, names)))}.",
        "Name them N (or params), D (or tokens), C (or flops) and loss.",
    )


_MISSING = ("", "nan", "none", "null", "inf", "-inf")


def _dropped(frame: "pd.DataFrame", columns: dict[str, str], names: list[str]) -> dict[int, str]:
    """Rows that do not count, and why."""
    dropped = {}
    for index in range(len(frame)):
        mark = str(frame[columns["left_out"]].iloc[index]).strip().lower() if "left_out" in columns else ""
        loss = str(frame[columns["loss"]].iloc[index]).strip().lower()
        if mark not in ("", "0", "0.0", "false", "no"):
            dropped[index] = f"marked in the column {columns['left_out']}"
        elif loss in _MISSING:
            dropped[index] = "it has no finite loss: diverged, or not finished"
    unnamed = frame.drop(columns=[columns["name"]]) if "name" in columns else frame
    for place in np.flatnonzero(unnamed.duplicated()):
        dropped.setdefault(int(place), "it says the same as an earlier row, and would count twice")
    return dropped


def _numbers(values: "pd.Series[Any]", name: str, rows: list[str], *, positive: bool) -> Array:
    numbers = np.empty(len(values))
    for index, value in enumerate(values):
        number = _number(value)
        if number is None or not np.isfinite(number) or (positive and number <= 0):
            wanted = "a number above 0" if positive else "a number"
            raise LawError(
                f"{rows[index]}, column {name}: {short(value, 80) or 'nothing'} is not {wanted}.",
                "If its comma is decimal: units={decimals: comma}. Else correct it, or take the row out and say so.",
            )
        numbers[index] = number
    return numbers


def _number(value: Any) -> float | None:
    text = str(value).strip().replace("_", "")
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", text):  # thousands; any other comma is somebody's decimal point
        text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(parse_quantity(text))
    except ConfigError:
        return None


def _all_numbers(values: "pd.Series[Any]") -> bool:
    return all(str(value).strip() == "" or _number(value) is not None for value in values) and any(
        str(value).strip() for value in values
    )
