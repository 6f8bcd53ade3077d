"""What a fit is asked: of which runs, counted how. And its answer, where an earlier call gave it to the same question.

Asked again, nothing that reads the runs is imported, as long as nothing that they were read from has changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import digest, file_digest
from maquette.artifacts.manifest import digest_of_files, read_manifest, recall, remember
from maquette.artifacts.progress import say
from maquette.scaling.fits.stored_fit import KIND, is_file
from maquette.tracking import store_digest
from maquette.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from maquette.scaling.fits.table import RunTable


@dataclass(frozen=True)
class FitQuestion:
    """`runs`: a sweep, a filter or a table (which counts in `units`), in the `convention`, without those left out by
    hand; `settings`: all that was asked of them, plain values; `forms`: a user's own forms of law."""

    settings: Mapping[str, Any]
    runs: str | None
    outputs: str
    tracking: TrackingConfig
    convention: str = "exact"
    without: Sequence[str] = ()
    forms: Sequence[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    def read_runs(self) -> "RunTable":
        """The runs, with their copying scores where these can be known."""
        from maquette.scaling.fits.recorded import recorded_runs, with_copying
        from maquette.scaling.fits.table import read_table

        if self.runs is not None and is_file(self.runs):
            table = read_table(self.runs, self.units)
        elif self.units:
            raise ConfigError("units= is for a CSV file.", "Recorded runs count in parameters, tokens, FLOPs and nats.")
        else:
            table = recorded_runs(self.runs, self.outputs, self.tracking)
        return with_copying(table.without(list(self.without)), self.outputs).in_convention(self.convention)

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
                "artifacts/tokens/*/manifest.json",
            ),
        }  # fmt: skip
        return outputs / KIND / ".known" / f"{digest(self.settings)[:16]}.json", sources
