"""What a fit is asked: of which runs, counted how. And its answer, where an earlier call gave it to the same question.

Asked again, nothing that reads the runs is imported, as long as nothing that they were read from has changed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.manifest import digest_of_files, read_manifest, recall, remember
from maquette.artifacts.progress import say
from maquette.artifacts.settings import is_dotted
from maquette.recipe.recipe_file import recipe_path
from maquette.scaling.fits.stored_fit import KIND, is_file, store_fit
from maquette.tracking import store_digest
from maquette.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from maquette.scaling.fits.mixture_fit import MixtureFit
    from maquette.scaling.fits.table import RunTable

_OF_THE_LOSS = ("form", "convention", "bootstrap", "level", "seed", "without")
_OF_A_LAW = ("laws", "compare", "convention", "level", "seed", "without")
_OF_AN_EFFECT = ("effect", "measures")
_NOT_OF_THE_LOSS = ("laws", "compare", "effect")
_OF_MIXTURES = ("max_epochs", "targets", "verify")


@dataclass(frozen=True)
class FitQuestion:
    """`settings`: those of `maquette fit`, plain values; `tracking`: the store that its runs are in."""

    settings: Mapping[str, Any]
    tracking: TrackingConfig

    @property
    def runs(self) -> str | None:
        """A sweep, a filter or a table."""
        runs: str | None = self.settings["runs"]
        return runs

    @property
    def outputs(self) -> str:
        return str(self.settings["outputs"])

    @property
    def forms(self) -> list[str]:
        """A user's own forms of law."""
        named = (self.settings["form"], *self.settings["forms"])
        return [form for form in named if form is not None and is_dotted(form)]

    def answer(self, *, force: bool = False, train: "Callable[[RunTable, MixtureFit], float] | None" = None) -> Path:
        """The folder of the fit, found or made. `train`: gives the loss of the best mixture trained as the runs were,
        where that is to be verified."""
        for form in self.forms:
            from maquette.scaling.laws.custom_form import custom_form

            custom_form(form)  # a mistake in it is said before the runs are read
        folder = None if force or self._lacks_recipe() else self.known()
        if folder is None:
            table = self.read_runs()
            of_the_loss = all(self.settings[name] is None for name in _NOT_OF_THE_LOSS)
            folder = self._fit_loss(table, force) if of_the_loss else self._fit_law(table, force, train)
            self.remember(folder)
        return folder

    def _lacks_recipe(self) -> bool:
        """Whether the recipe that this law leaves was taken away."""
        law = self.settings["laws"]
        return law in ("learning_rate", "batch") and not recipe_path(self._recipe, self.outputs).exists()

    @property
    def _recipe(self) -> str:
        return self.settings["name"] or str(self.settings["laws"])

    def _fit_loss(self, table: "RunTable", force: bool) -> Path:
        from maquette.scaling.fits.recorded import corpus_facts
        from maquette.scaling.fits.stored_fit import write_fit
        from maquette.scaling.fits.sweep_fit import fit_sweep

        corpus, asked = corpus_facts(table, self.outputs), self._chosen(*_OF_THE_LOSS)
        own = {"forms": self.settings["forms"], "code": code_digest(*self.forms)} if self.forms else {}

        def make(folder: Path) -> dict[str, Any]:
            settings = self._chosen("form", "forms", "bootstrap", "seed", "level")
            return write_fit(fit_sweep(table, corpus=corpus, **settings), folder, corpus)

        return self._stored(table, make, asked | own, force)

    def _fit_law(self, table: "RunTable", force: bool, train: "Callable[[RunTable, MixtureFit], float] | None") -> Path:
        """The artifact with another law; that of a setting also leaves a recipe in `<outputs>/recipes/`."""
        from maquette.scaling.fits import other_laws

        laws, level, seed = (self.settings[name] for name in ("laws", "level", "seed"))
        if self.settings["effect"] is not None:
            law = other_laws.effect(table, self.settings["effect"], self.settings["measures"], level=level)
        elif laws is None:
            law = other_laws.families(table, self.settings["compare"], level=level)
        elif laws == "repetition":
            law = other_laws.repetition_law(table, seed=seed, level=level)
        elif laws == "size_and_tokens":
            law = other_laws.size_and_tokens(table, level=level)
        elif laws == "mixture":
            verify = train if self.settings["verify"] else None
            law = other_laws.mixture_law(table, **self._chosen("max_epochs", "targets"), train=verify)
        else:
            law = other_laws.setting_law(table, laws, level=level, recipe=self._recipe, outputs=self.outputs)
        effect = _OF_AN_EFFECT if self.settings["effect"] is not None else ()
        asked = self._chosen(*_OF_A_LAW, *(_OF_MIXTURES if laws == "mixture" else ()), *effect)
        return self._stored(table, lambda folder: law.write(table, folder), asked, force, law.label)

    def _chosen(self, *names: str) -> dict[str, Any]:
        return {name: self.settings[name] for name in names}

    def _stored(
        self,
        table: "RunTable",
        make: Callable[[Path], dict[str, Any]],
        settings: Mapping[str, Any],
        force: bool,
        label: str = "",
    ) -> Path:
        return store_fit(
            table, make, outputs=self.outputs, runs=self.runs, settings=settings, tracking=self.tracking, label=label,
            name=self.settings["name"], force=force,
        )  # fmt: skip

    def read_runs(self) -> "RunTable":
        """The runs, with their copying scores where these can be known, and what they scored on questions."""
        from maquette.scaling.fits.recorded import recorded_runs, with_copying
        from maquette.scaling.fits.table import read_table
        from maquette.scaling.fits.tasks import with_tasks

        if self.runs is not None and is_file(self.runs):
            table = read_table(self.runs, self.settings["units"])
        elif self.settings["units"]:
            raise ConfigError("units= is for a CSV file.", "Recorded runs count in parameters, tokens, FLOPs and nats.")
        else:
            table = recorded_runs(self.runs, self.outputs, self.tracking)
        chosen = table.without(list(self.settings["without"]))
        known = with_tasks(with_copying(chosen, self.outputs), self.outputs)
        return known.in_convention(self.settings["convention"])

    def known(self) -> Path | None:
        """The fit's folder, where nothing of what it was read from has changed since."""
        remaining = recall(*self._memory())
        if remaining is None:
            return None
        folder = Path(self.outputs) / KIND / remaining["fit"]
        if not folder.exists() or read_manifest(folder).fingerprint != remaining["fingerprint"]:
            return None
        say(f"{KIND} {folder.name}: up to date")
        return folder

    def remember(self, folder: Path) -> None:
        """Lets `known` find the fit in `folder`, where it is still that of the runs."""
        path, sources = self._memory()
        if recall(path, sources) is not None:
            return
        manifest = read_manifest(folder)
        if manifest.inputs["runs"] == digest(self.read_runs().csv()):
            remember(path, sources, {"fit": folder.name, "fingerprint": manifest.fingerprint})

    def _memory(self) -> tuple[Path, dict[str, Any]]:
        """Where the answer is kept, and what it is read from: the store, and what lies beside it."""
        outputs = Path(self.outputs)
        table = self.runs is not None and is_file(self.runs)
        sources = {
            "question": self.settings,
            "code": code_digest(*self.forms),
            "runs": file_digest(str(self.runs)) if table else store_digest(self.tracking, outputs),
            "beside": digest_of_files(
                outputs, "sweeps/*/jobs/*.json", "runs/*/copying.json", "runs/*/model/config.json",
                "artifacts/tokens/*/manifest.json", "evaluations/*/evaluation.json",
            ),
        }  # fmt: skip
        return outputs / KIND / ".known" / f"{digest(self.settings)[:16]}.json", sources
