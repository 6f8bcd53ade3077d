"""Fits on disk: `<outputs>/fits/<name>/` with the runs, everything that was found, figures and a page.

`runs.csv` is what a fit is: fitting it again with the settings in `fit.json` gives the same law to the last digit, so
predictions and plans that rest on a stored fit read the runs, not a copy of the law.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import digest, listed, write_json, write_text
from maquette.artifacts.manifest import Manifest, build, digest_of_files, read_manifest, verify_files
from maquette.artifacts.progress import say
from maquette.artifacts.reading import load_table
from maquette.artifacts.settings import nearest
from maquette.artifacts.strangers import check_code
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from maquette.scaling.fits.sweep_fit import SweepFit
    from maquette.scaling.fits.table import RunTable

KIND = "fits"
FACTS, LAW, RUNS, PAGE = "fit.json", "law.json", "runs.csv", "index.html"

SAME = 1e-6
"""Relative difference of a loss forecast again, up to which it is the same."""


def write_fit(fit: "SweepFit", folder: Path, corpus: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fills an artifact folder; returns what its manifest is to say."""
    from maquette.reports import write_page
    from maquette.scaling.fits.fit_card import FitCard
    from maquette.scaling.fits.fit_facts import counting_words, exponent_table, fit_facts, form_table
    from maquette.scaling.fits.sweep_figures import CAPTIONS, fit_figures
    from maquette.tracking.environment import git_commit, package_versions

    facts, table = fit_facts(fit), fit.table
    versions = package_versions()
    write_text(folder / RUNS, table.csv())
    write_json(
        folder / FACTS, {**facts, "versions": versions, "git_commit": git_commit(), "corpus": dict(corpus or {})}
    )
    runs = zip(table.names, table.params, table.tokens, table.compute, table.loss, fit.residuals(), strict=True)
    shown = {
        "fit": fit,
        "captions": CAPTIONS,
        "card": FitCard(fit),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "counting": counting_words(facts),
        "form_table": form_table(facts),
        "exponent_table": exponent_table(facts),
        "runs_table": list(runs),
    }
    write_page(folder, "fit.html.j2", facts | shown, fit_figures(fit))
    return {"headline": facts["headline"], "form": facts["form"], "runs": facts["runs"], "law": "loss"}


def store_fit(
    table: "RunTable",
    make: Callable[[Path], dict[str, Any]],
    *,
    outputs: Path | str,
    runs: str | None,
    settings: Mapping[str, Any],
    tracking: TrackingConfig,
    label: str = "",
    name: str | None = None,
    force: bool = False,
) -> Path:
    """The artifact of a law, found or made by `make` (see `artifacts.manifest.build`) and then recorded in MLflow.

    `runs`: what `table` was read from, as it was asked for; `label`: the law, where it is not that of the loss."""
    source = Path(runs).stem if runs is not None and is_file(runs) else table.source
    words = source.removeprefix("the sweep ").split(", ")[0]
    short = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words)[:60].strip("-.")
    return build(
        KIND,
        outputs,
        name=name,
        label=f"{short}-{label}" if label else short,
        config=dict(settings),
        inputs={"runs": digest(table.csv())},
        make=make,
        made=lambda folder: record_fit(folder, runs, outputs, tracking),
        force=force,
        say=say,
    )


def record_fit(folder: Path, runs: str | None, outputs: Path | str, tracking: TrackingConfig) -> None:
    """The fit as a run of its own in MLflow, with its figures and its page."""
    manifest = read_manifest(folder)
    with start_run(
        tracking, outputs=outputs, name=folder.name, folder=folder, params={"runs": runs, **manifest.config},
        tags={"kind": "fit", "digest.fit": manifest.digest},
    ) as log:  # fmt: skip
        log.describe(f"A law fitted to {runs or 'the newest sweep'}: see `{PAGE}` among the artifacts.")
        log.log_artifact(folder / "figures", "figures")
        for name in (FACTS, PAGE, RUNS):
            if (folder / name).is_file():
                log.log_artifact(folder / name)


def is_file(runs: str | None) -> bool:
    """Whether `runs` means a table rather than something in the store."""
    return runs is not None and (runs.endswith((".csv", ".tsv")) or Path(runs).is_file())


def find_fit(name: str | None, outputs: Path | str) -> Path:
    """The folder that `name` means: a path, a fit of these outputs, the beginning of its name, or for None the newest.

    Only laws of the loss count; laws of settings are recipes. Raises `ConfigError` for a name that means nothing,
    `StageError` where there is no fit yet.
    """
    root = Path(outputs) / KIND
    if name is not None and (Path(name) / FACTS).is_file():
        return Path(name)
    known = {path.parent.name: path.parent for path in listed(root, f"*/{FACTS}")}
    if not known:
        raise StageError(f"There is no fit in {root} yet.", "Fit a law first: maquette fit runs=<sweep or CSV file>.")
    newest = sorted(known.values(), key=lambda folder: (read_manifest(folder).created, folder.name), reverse=True)
    if name is None:
        return newest[0]
    if name in known:
        return known[name]
    begun = [folder for folder in newest if folder.name.startswith(name + "-")]
    if begun:
        return begun[0]
    close = nearest(name, list(known))
    hint = f"Did you mean {close}?" if close else f"Fits: {', '.join(known)}."
    raise ConfigError(f"fit={name}: there is no such fit in {root}.", hint)


def read_facts(folder: Path) -> dict[str, Any]:
    """What `fit.json` says. Raises `StageError` where the folder is damaged."""
    verify_files(folder)
    return load_table(folder / FACTS)


def show_fit(folder: Path, *, as_json: bool = False) -> None:
    """Prints what a person wants to know of a stored law, or its JSON."""
    from maquette.scaling.fits.fit_facts import tell, tell_law

    of_the_loss = (folder / FACTS).exists()
    if as_json:
        print((folder / (FACTS if of_the_loss else LAW)).read_text(encoding="utf-8"))
        return
    tell(read_facts(folder)) if of_the_loss else tell_law(load_table(folder / LAW))
    say(f"Open {(folder / PAGE).absolute().as_uri()}")


def load_fit(folder: Path) -> "tuple[SweepFit, Manifest]":
    """The fit as a value, and its manifest. Raises `StageError` where a file was changed, or where this version of the
    package comes to another law from the same runs."""
    facts = read_facts(folder)
    for target in (own := _own_forms(facts)):
        check_code(target, folder / FACTS, "custom_forms")
    make = _fit_again.__wrapped__ if own else _fit_again  # code of one's own may have changed
    fit = make(folder, digest_of_files(folder, FACTS, RUNS))
    forecast = next(row for row in facts["forecasts"] if row["reach"] == 10 and row["form"] == facts["form"])
    again = fit.predict(forecast["N"], forecast["D"], compute=forecast["C"]).loss
    if fit.form != facts["form"] or abs(again / forecast["loss"] - 1) > SAME:
        raise StageError(
            f"{folder}: this version fits another law to the same runs ({fit.form}, {again:.5f} where the fit says "
            f"{facts['form']}, {forecast['loss']:.5f}).",
            "Fit it again: maquette fit with force=true.",
        )
    return fit, read_manifest(folder)


def _own_forms(facts: Mapping[str, Any]) -> list[str]:
    """The targets of the forms that are not this package's."""
    return [form["target"] for form in facts["custom_forms"].values() if not form["target"].startswith("maquette.")]


@functools.lru_cache(maxsize=2)
def _fit_again(folder: Path, _digest: str) -> "SweepFit":
    """The law of a stored fit's runs; the digest of its files is part of the key. The last ones stay: a prediction and
    the pages about it each want the same, which takes seconds."""
    from maquette.scaling.fits.sweep_fit import fit_sweep
    from maquette.scaling.fits.table import read_table

    facts = read_facts(folder)
    table = dataclasses.replace(
        read_table(folder / RUNS), source=facts["source"], convention=facts["convention"], notes=tuple(facts["notes"])
    )
    return fit_sweep(
        table,
        form=facts["form"] if facts["forced"] else None,
        forms=_own_forms(facts),
        bootstrap=facts["bootstrap"],
        seed=facts["seed"],
        level=facts["level"],
        corpus=facts["corpus"],
    )
