"""`maquette verify`: what came out, beside what was predicted; and the record over all predictions of these outputs."""

import json
from pathlib import Path

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import say
from maquette.cli.command_line.law_config import VerifyStage
from maquette.scaling.predictions.outcomes import finished_runs, record_verdicts, stored_predictions
from maquette.scaling.predictions.prediction import broken_links, find_prediction, read_predictions
from maquette.scaling.predictions.verdict import FOLDER, Verdict, tell, verify_all, write_verdicts


def run(config: VerifyStage) -> list[Verdict]:
    """Judges every prediction whose run is finished (or the one that is named), and writes the record.

    Raises `StageError` where the named one can't be judged, with the reason.
    """
    predictions = read_predictions(config.outputs)
    named = None if config.prediction is None else find_prediction(config.prediction, config.outputs)
    stored = stored_predictions(config.outputs, config.tracking)
    if not predictions and named is None and not stored.digests:
        raise StageError(
            f"There is no prediction in {config.outputs} yet.", "Write one first: maquette predict compute=1e13."
        )
    verdicts = verify_all(predictions, finished_runs(config.outputs, stored), broken_links(predictions, stored.digests))
    folder = Path(config.outputs) / FOLDER
    write_verdicts(verdicts, folder)
    record_verdicts(verdicts, folder, stored, config.outputs, config.tracking)
    shown = [verdict for verdict in verdicts.verdicts if named is None or verdict.prediction.id == named.id]
    if named is not None and not shown:
        reasons = [reason for reason in verdicts.refused if reason.startswith(named.id)]
        raise StageError(
            f"There is no verdict on {named.id}: {'; '.join(reasons) or 'its run is not finished'}.",
            f"Train it: maquette train prediction={named.id}.",
        )
    if config.json:
        print(json.dumps(verdicts.facts() | {"verdicts": [verdict.facts() for verdict in shown]}, indent=2))
    else:
        tell(verdicts, shown)
        say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return shown
