"""`maquette fit`: laws from a sweep in MLflow, or from anybody's table."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.recall import digest_of_files, recall, remember
from maquette.artifacts.settings import is_dotted
from maquette.cli.command_line.law_config import FitStage
from maquette.scaling.fits.fit_facts import tell
from maquette.scaling.fits.stored_fit import KIND, PAGE, is_file, read_facts
from maquette.tracking import store_digest

if TYPE_CHECKING:
    from maquette.scaling.fits.table import RunTable


def run(config: FitStage) -> Path:
    """Fits what is asked for and returns the artifact's folder. Prints what a person wants to know of it."""
    for form in _own_forms(config):
        from maquette.scaling.laws.custom_form import custom_form

        custom_form(form)  # a mistake in it is said before the runs are read
    if config.laws is not None or config.compare is not None:
        from maquette.cli import fit_laws

        table = chosen_runs(config)
        return fit_laws.compare(config, table) if config.laws is None else fit_laws.fit_law(config, table)
    folder = known_fit(config)
    if folder is None:
        folder = fit_loss(config, chosen_runs(config))
        remember_fit(config, folder)
    facts = read_facts(folder)
    if config.json:
        print(json.dumps(facts, indent=2))
    else:
        tell(facts)
        say(f"Open {(folder / PAGE).absolute().as_uri()}")
    if config.suggest:
        from maquette.cli import fit_suggest

        fit_suggest.suggest(config, folder)
    return folder


def _own_forms(config: FitStage) -> list[str]:
    return [form for form in (config.form, *config.forms) if form is not None and is_dotted(form)]


def known_fit(config: FitStage) -> Path | None:
    """The fit of these runs by these settings, where nothing of what it was read from has changed since."""
    memory = None if config.force else recall(*_memory(config))
    if memory is None:
        return None
    folder = Path(config.outputs) / KIND / memory["fit"]
    if not folder.exists() or read_manifest(folder).fingerprint != memory["fingerprint"]:
        return None
    say(f"{KIND} {folder.name}: up to date")
    return folder


def remember_fit(config: FitStage, folder: Path) -> None:
    """Lets `known_fit` find the fit in `folder`, where it is still that of the runs."""
    path, sources = _memory(config)
    if recall(path, sources) is not None:
        return
    manifest = read_manifest(folder)
    if manifest.inputs["runs"] == digest(chosen_runs(config).csv()):
        remember(path, sources, {"fit": folder.name, "fingerprint": manifest.fingerprint})


def _memory(config: FitStage) -> tuple[Path, dict[str, Any]]:
    """Where the answer to this question is kept, and what it is read from: the store, and what lies beside it."""
    question = dataclasses.asdict(config)
    del question["json"], question["force"]
    outputs = Path(config.outputs)
    table = config.runs is not None and is_file(config.runs)
    sources = {
        "question": question,
        "code": code_digest(*_own_forms(config)),
        "runs": file_digest(str(config.runs)) if table else store_digest(config.tracking, outputs),
        "beside": digest_of_files(
            outputs, "sweeps/*/jobs/*.json", "runs/*/copying.json", "runs/*/model/config.json",
            "artifacts/tokens/*/manifest.json",
        ),
    }  # fmt: skip
    return outputs / KIND / ".known" / f"{digest(question)[:16]}.json", sources


def chosen_runs(config: FitStage) -> "RunTable":
    """The runs, in the convention asked for, without those that are left out by hand."""
    from maquette.scaling.fits.recorded import recorded_runs, with_copying
    from maquette.scaling.fits.table import read_table

    table = (
        read_table(config.runs)
        if config.runs and is_file(config.runs)
        else recorded_runs(config.runs, config.outputs, config.tracking)
    )
    table = with_copying(table.without(config.without), config.outputs)
    return table.in_convention(config.convention)


def fit_loss(config: FitStage, table: "RunTable") -> Path:
    """The artifact with the laws of the loss."""
    from maquette.scaling.fits.stored_fit import store_fit, write_fit
    from maquette.scaling.fits.sweep_fit import fit_sweep

    corpus = corpus_facts(table, config.outputs)
    settings = {name: getattr(config, name) for name in ("form", "convention", "bootstrap", "level", "seed", "without")}
    if own := _own_forms(config):
        settings |= {"forms": config.forms, "code": code_digest(*own)}

    def make(folder: Path) -> dict[str, Any]:
        fit = fit_sweep(
            table,
            form=config.form,
            forms=config.forms,
            bootstrap=config.bootstrap,
            seed=config.seed,
            level=config.level,
            corpus=corpus,
        )
        return write_fit(fit, folder, corpus)

    return store_fit(
        table, make, outputs=config.outputs, runs=config.runs, settings=settings, tracking=config.tracking,
        name=config.name, force=config.force,
    )  # fmt: skip


def corpus_facts(table: "RunTable", outputs: str) -> dict[str, Any]:
    """What the tokens' manifest says of the text that all runs read, where it is on this machine."""
    from maquette.scaling.fits.recorded import find_tokens

    digests = set(table.frame.get("tags.digest.tokens", ()))
    if len(digests) != 1 or not isinstance(only := next(iter(digests)), str):
        return {}
    folder = find_tokens(outputs, only)
    return {} if folder is None else {"held_out": read_manifest(folder).facts.get("held_out", {})}
