"""The runs of a sweep out of the store, as a table to fit laws to.

The copying score of a run that was trained before it was recorded is measured on its exported model.
"""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import listed, read_json, relocated
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import load_sealed, write_sealed
from maquette.artifacts.settings import nearest
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.runs import Array, group_budgets
from maquette.tracking.config import TrackingConfig

if TYPE_CHECKING:
    import pandas as pd

LOSS = "validation/loss"
_NEEDED = ("N", "D", "C", LOSS)
_TRUNK = "trunk"
"""The kind of a run that only branches resume from."""

_BIAS = "has a schedule of its own where a branch stands too: it measures what branches cost"

_OPERATORS = ("=", "<", ">", " like ", " LIKE ", " IN ")
_BOOKKEEPING = ("mlflow.", "tags.mlflow", "tags.env", "tags.process", "tags.git")


def recorded_runs(runs: str | None, outputs: Path | str, tracking: TrackingConfig) -> RunTable:
    """The finished runs that `runs` means, in the convention exact.

    `runs`: a sweep by its name, the beginning of its name (the newest such) or its MLflow run id, several of them with
    + between, or an MLflow filter; None is the newest sweep, or all runs where there is no sweep. Of runs that mean
    the same (one fingerprint) the newest finished one counts. Raises `ConfigError` for a name that means nothing,
    `StageError` where there is no run with a loss.
    """
    from maquette.tracking import find_runs

    uri, experiment = tracking.uri, tracking.experiment
    if runs is not None and any(operator in runs for operator in _OPERATORS):
        frame, source = find_runs(outputs, uri=uri, experiment=experiment, filter=runs), f"the runs with {runs}"
    else:
        everything = find_runs(outputs, uri=uri, experiment=experiment)
        if not len(everything):
            raise StageError(
                f"There are no runs in {tracking.uri or outputs} yet.",
                "Train a sweep with maquette train -m +sweep=isoflop, or give a table with runs=my.csv.",
            )
        frame, source = _of_sweeps(everything, runs, outputs)
    return _table(frame, source)


def _of_sweeps(frame: "pd.DataFrame", runs: str | None, outputs: Path | str) -> tuple["pd.DataFrame", str]:
    has_children = frame["run_id"].isin(set(frame["parent"].dropna()))
    # The trunk of a schedule with branches has children too, but is a run itself: it has an N.
    parents = frame[(has_children | (_column(frame, "tags.kind") == "parent")) & _column(frame, "N").isna()]
    if runs is None:
        with_children = [index for index in parents.index if len(_children(frame, parents.loc[index], outputs))]
        if not with_children:
            return frame, "all runs"
        newest = parents.loc[with_children[0]]
        return _children(frame, newest, outputs), f"the sweep {newest['name']}"
    chosen = [_sweep(parents, word.strip(), frame) for word in re.split(r"[+,]", runs) if word.strip()]
    if not chosen:
        raise ConfigError(f"runs={runs} names nothing.", "Give a sweep, an MLflow filter, or a CSV file.")
    rows = sorted({index for parent in chosen for index in _children(frame, parent, outputs).index})
    return frame.loc[rows], "the sweep " + ", ".join(str(parent["name"]) for parent in chosen)


def _sweep(parents: "pd.DataFrame", word: str, frame: "pd.DataFrame") -> "pd.Series[Any]":
    """The newest sweep that `word` means."""
    for matches in (
        parents["run_id"] == word,
        parents["name"] == word,
        parents["name"].astype(str).str.startswith(word + "-"),
    ):
        if matches.any():
            parent: pd.Series[Any] = parents[matches].iloc[0]
            return parent
    known = list(dict.fromkeys(parents["name"].astype(str)))
    close = nearest(word, known)
    hint = f"Did you mean {close}?" if close else f"Sweeps: {', '.join(known)}." if known else "There is no sweep yet."
    raise ConfigError(f"runs={word}: there is no such sweep or file.", hint)


def _children(frame: "pd.DataFrame", parent: "pd.Series[Any]", outputs: Path | str) -> "pd.DataFrame":
    """The runs of a sweep: those recorded below it, branches below their trunks, and those that its jobs found finished
    by an earlier sweep."""
    folders = set()
    for path in listed(Path(outputs) / "sweeps" / str(parent["name"]) / "jobs", "*.json"):
        if not isinstance(outcome := read_json(path), dict):
            continue
        results = [outcome.get("result"), *(outcome.get("branches") or [])]
        folders |= {str(relocated(Path(result).absolute(), outputs)) for result in results if result}
    matches, below = frame["folder"].isin(folders), {parent["run_id"]}
    while True:
        here = frame["parent"].isin(below)
        more = set(frame.loc[here, "run_id"]) - below
        if not more:
            return frame[matches | here]
        below |= more


def _table(frame: "pd.DataFrame", source: str) -> RunTable:
    frame = frame[_column(frame, "N").notna() & (_column(frame, "tags.kind") != "parent")].reset_index(drop=True)
    measures_bias = _beside_branches(frame)
    reasons = [_reason(frame, index) or (_BIAS if measures_bias[index] else "") for index in range(len(frame))]
    fingerprints = _column(frame, "tags.fingerprint")
    # Of runs that mean the same the newest that counts is taken, and only where none does is the newest named.
    ordered = fingerprints.iloc[np.argsort([bool(why) for why in reasons], kind="stable")]
    again = ordered.duplicated() & ordered.notna()
    shown = [index for index in range(len(frame)) if not again[index]]
    left_out = tuple((str(frame["name"][i]), reasons[i]) for i in shown if reasons[i])
    used = frame.loc[[i for i in shown if not reasons[i]]].reset_index(drop=True)
    if not len(used):
        text = "; ".join(f"{name}: {why}" for name, why in left_out[:3])
        raise StageError(f"There is no finished run with a loss in {source}.", text or "Train some first.")
    params, tokens, compute, loss = (_floats(used, name) for name in _NEEDED)
    core, seed, copying, unigram_entropy = (
        _floats(used, name) for name in ("N_core", "seed", "copying/score", "unigram_entropy")
    )
    assert params is not None and tokens is not None and compute is not None and loss is not None
    order = np.lexsort((params, compute))
    # What only other runs of the store have does not belong to these; beside one without a whole number it is a float.
    frame = used[[name for name in used.columns if not name.startswith(_BOOKKEEPING)]].dropna(axis=1, how="all")
    whole = frame.select_dtypes("integer").columns
    table = RunTable(
        source=source,
        names=tuple(used["name"].astype(str)),
        params=params,
        tokens=tokens,
        loss=loss,
        compute=compute,
        budget=group_budgets(compute),
        frame=frame.astype(dict.fromkeys(whole, float)),
        core=core,
        seed=seed,
        copying=copying,
        unigram_entropy=unigram_entropy,
        left_out=left_out,
    )
    return table.take(order)


def _beside_branches(frame: "pd.DataFrame") -> list[bool]:
    """Which runs have a schedule of their own where a branch of a trunk has the same size, tokens and seed: a sweep
    trains them to measure what branches cost, and as points of a law they would be of another kind."""
    trunks = set(frame.loc[_column(frame, "tags.kind") == _TRUNK, "run_id"])
    branch = _column(frame, "parent").isin(trunks)
    at = list(zip(*(_column(frame, name).astype(str) for name in ("N", "D", "seed")), strict=True))
    branched = {place for place, is_branch in zip(at, branch, strict=True) if is_branch}
    return [place in branched and not is_branch for place, is_branch in zip(at, branch, strict=True)]


def _reason(frame: "pd.DataFrame", index: int) -> str:
    """Why a run does not count; empty where it does."""
    if _column(frame, "tags.kind")[index] == _TRUNK:
        return "a trunk, whose rate has not come down: its branches count"
    if frame["status"][index] != "FINISHED":
        return f"not finished (status {frame['status'][index]})"
    for name in _NEEDED:
        value = _column(frame, name)[index]
        try:
            if np.isfinite(float(value)) and float(value) > 0:
                continue
        except (TypeError, ValueError):
            pass
        return f"its {name} is {value}"
    done, budget = _column(frame, "tokens")[index], float(_column(frame, "D")[index])
    if done is not None and float(done) < budget:  # EarlyStopping, trainer.max_time, trainer.limit_train_batches
        return f"ended early, after {done:,.0f} of {budget:,.0f} tokens"
    return ""


def _column(frame: "pd.DataFrame", name: str) -> "pd.Series[Any]":
    import pandas as pd

    return frame[name] if name in frame.columns else pd.Series([None] * len(frame), index=frame.index, dtype=object)


def _floats(frame: "pd.DataFrame", name: str) -> Array | None:
    """A column as floats (n,); None where any run lacks it."""
    import pandas as pd

    values = pd.to_numeric(_column(frame, name), errors="coerce").to_numpy(dtype=float)
    return None if len(values) == 0 or np.isnan(values).any() else values


FILE = "copying.json"


def find_tokens(outputs: Path | str, digest: str) -> Path | None:
    """The tokens artifact of these outputs whose content has that digest."""
    for path in listed(Path(outputs) / "artifacts" / "tokens", "*/manifest.json"):
        if read_manifest(path.parent).digest == digest:
            return path.parent
    return None


def corpus_facts(table: RunTable, outputs: Path | str) -> dict[str, Any]:
    """What the tokens' manifest says of the text that all runs read, where it is on this machine."""
    digests = set(table.frame.get("tags.digest.tokens", ()))
    if len(digests) != 1 or not isinstance(only := next(iter(digests)), str):
        return {}
    folder = find_tokens(outputs, only)
    return {} if folder is None else {"held_out": read_manifest(folder).facts.get("held_out", {})}


def with_copying(table: RunTable, outputs: Path | str) -> RunTable:
    """The table with every run's score, where the models and the tokens of those that lack it are on this machine.

    Each is measured once: `copying.json` in the run's folder keeps it. Otherwise the table as it is.
    """
    frame = table.frame
    if table.copying is not None or not {"folder", "tags.digest.tokens", "data.sequence_length"} <= set(frame.columns):
        return table
    recorded = frame["copying/score"].tolist() if "copying/score" in frame.columns else [None] * len(table)
    wanted = [index for index, score in enumerate(recorded) if score is None or np.isnan(score)]
    folders = [Path(str(frame["folder"][index])) for index in wanted]
    if not all((folder / "model" / "config.json").is_file() for folder in folders):
        return table
    tokens = {digest: find_tokens(outputs, str(digest)) for digest in set(frame["tags.digest.tokens"][wanted])}
    if None in tokens.values():
        return table
    scores = np.array([np.nan if score is None else float(score) for score in recorded])
    with progress("measuring copying", len(wanted), unit="runs") as advance:
        for index, folder in zip(wanted, folders, strict=True):
            place = tokens[frame["tags.digest.tokens"][index]]
            scores[index] = _score(folder, place, int(frame["data.sequence_length"][index]))
            advance(1)
    return table if np.isnan(scores).any() else dataclasses.replace(table, copying=scores)


def _score(folder: Path, tokens: Path | None, context: int) -> float:
    from maquette.data import TokenShards
    from maquette.objectives.held_out import folder_copying

    path = folder / FILE
    if path.exists():
        known = load_sealed(path, hint="Remove it: it is measured again.")
    else:
        assert tokens is not None
        known = dict(folder_copying(folder, TokenShards(tokens), context=context))
        write_sealed(path, known)
    return float(known.get("copying/score", np.nan))
