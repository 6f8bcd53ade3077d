"""The best mixture of a sweep, trained as the sweep's runs were: does the mixing law hold?"""

import dataclasses
from pathlib import Path

import numpy as np

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import say
from maquette.scaling.fits.mixture_fit import MixtureFit
from maquette.scaling.fits.table import RunTable


def train_mixture(found: MixtureFit, table: RunTable, outputs: str) -> float:
    """Mean held-out loss over the targets of a run with the optimum's weights; nothing is trained where it is done."""
    from maquette.stages import train
    from maquette.stages.family_settings import read_settings

    folders = [str(folder) for folder in table.frame.get("folder", ()) if isinstance(folder, str)]
    if not folders:
        raise StageError(f"{table.source} does not say where its runs are.", "Verify where the sweep was trained.")
    config = read_settings(Path(folders[0]))
    config = dataclasses.replace(
        config,
        outputs=outputs,
        mixture=dataclasses.replace(config.mixture, weights=found.mixture),
        sweep=type(config.sweep)(),
    )
    config = config.tracked(dataclasses.replace(config.tracking, parent=None, run_name=None))
    say("training the best mixture")
    record = train.run(config)
    losses = [record.domains[name]["loss"] for name in found.domains]
    return float(np.dot(losses, found.targets))
