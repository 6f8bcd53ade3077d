"""A prediction's digest in a file of a git repository, so that a third party can check that it came before the run.

`maquette predict register=predictions.txt` adds a line; whoever commits and pushes it has somebody else's clock beside
the prediction. `maquette verify` looks for the first commit of the working directory's repository that holds the
digest, in whatever file, and compares its time with the run's beginning. A commit's own time can be
set at will: what counts is when others received it, which its hash lets them say.
"""

import datetime
from dataclasses import dataclass
from pathlib import Path

from maquette.artifacts.files import write_text
from maquette.reports import quantity
from maquette.scaling.predictions.prediction import WrittenPrediction
from maquette.tracking.environment import run_git


@dataclass(frozen=True)
class Commitment:
    """The first commit that holds a prediction's digest, and its time in ISO 8601."""

    commit: str
    time: str

    def words(self, began: str) -> str:
        """Whether it came before a run that `began` then, in a sentence."""
        before = utc_time(self.time) <= utc_time(began)
        place = "before the run began" if before else f"after the run began ({began}): it proves nothing"
        return f"The commit {self.commit[:12]} of {self.time} holds the prediction, {place}."


def utc_time(text: str) -> datetime.datetime:
    """A time in ISO 8601; one without a zone is taken as UTC."""
    time = datetime.datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def register(prediction: WrittenPrediction, path: Path) -> None:
    """Adds the prediction to the lines of a file that is to be committed; its digest stands first."""
    low, high = prediction.interval90
    line = (
        f"{prediction.digest}  {prediction.created}  N {quantity(prediction.params)}, D {quantity(prediction.tokens)}, "
        f"C {prediction.compute:.3g}: {prediction.loss:.4f} nats a token (90%: {low:.4f} to {high:.4f})"
    )
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    if prediction.digest not in known:
        write_text(path, f"{known}{line}\n")


def commitment(digest: str, folder: Path | None = None) -> Commitment | None:
    """The first commit of the repository of `folder` (by default the working directory's) that added a `digest`; None
    where none did, or there is no repository."""
    commits = run_git(folder or Path.cwd(), "log", "--reverse", "--format=%H %cI", "-S", digest)
    return Commitment(*commits.splitlines()[0].split(" ", 1)) if commits else None
