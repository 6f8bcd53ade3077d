"""A prediction written down before the run that it predicts: immutable, and evident where somebody changed it.

It is one JSON file `<outputs>/predictions/<id>.json`. Its digest covers all that it says: the fit's digest, the runs
that the fit rests on, and the digest of the prediction before it. Changing one, adding one to the past or taking
one away breaks the chain (of the newest MLflow knows), so a record of calibration can't be made better by forgetting.
"""

import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import digest, listed, locked, write_json
from maquette.artifacts.progress import say
from maquette.artifacts.reading import load_table, reading
from maquette.artifacts.settings import nearest
from maquette.recipe.fingerprint import DEVICES, OBSERVERS
from maquette.recipe.run_spec import RunSpec
from maquette.reports import quantity
from maquette.reports.tables import error_words, span
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from maquette.scaling.fits.sweep_fit import SweepFit
    from maquette.scaling.fits.table import RunTable
    from maquette.scaling.laws.forecast import Forecast
    from maquette.scaling.laws.surface import Allocation

FOLDER = "predictions"

FORMAT = 4
"""1: words of a command line in place of the run's spec; 2: no slope; 3: no kinds of token, no tasks."""

READABLE = (3, FORMAT)

LOCAL = (*OBSERVERS, *DEVICES, "callbacks", "num_validations", "compile", "corpus.workers", "shards.workers")
"""Settings that say where and by what a predicted run is made and watched, not what it is."""


@dataclasses.dataclass(frozen=True)
class WrittenPrediction:
    """What is expected of one run. Loss in nats per token, N and C in the `convention` of the fit.

    `reach`: compute over the largest budget of the fit; `slope`: d ln L / d ln C there. `runs`: name, loss and
    fingerprint of every run of the fit.
    `kinds`: by kind of token its `loss`, `interval50` and `interval90`; `tasks`: by task what `predicted_tasks` says.
    `spec`: the `RunSpec` of the run, as JSON; None where the fit rests on runs of another program. `before`: digest of
    the prediction written before this.
    """

    created: str
    params: float
    tokens: float
    compute: float
    convention: str
    loss: float
    interval50: tuple[float, float]
    interval90: tuple[float, float]
    form: str
    reach: float
    slope: float
    fit: str
    fit_digest: str
    runs: list[dict[str, Any]]
    spec: dict[str, Any] | None
    before: str | None
    kinds: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    digest: str = ""
    format: int = FORMAT

    @property
    def data(self) -> dict[str, str]:
        """Digests of corpus, tokenizer and tokens."""
        return {} if self.spec is None else dict(self.spec["digests"])

    @property
    def id(self) -> str:
        """How it is called: the beginning of its digest."""
        return self.digest[:8]

    def content(self) -> dict[str, Any]:
        """All that the digest covers, as it stands in the file."""
        values = dataclasses.asdict(self)
        del values["digest"]
        if self.format < FORMAT:
            del values["kinds"], values["tasks"]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    def lines(self, others: Mapping[str, float]) -> list[str]:
        """At the terminal. `others`: the loss by every other form of the fit."""
        from maquette.scaling.fits.tasks import task_words

        low, high = self.interval90
        (half_low, half_high), kinds = self.interval50, self.kinds
        return [
            f"prediction {self.id}, by the {self.form} form of {self.fit} ({len(self.runs)} runs)",
            f"  N {quantity(self.params)}, D {quantity(self.tokens)}, C {self.compute:.3g} FLOPs: "
            f"{self.reach:.3g} times the largest budget",
            f"  loss {self.loss:.4f} nats a token; 50%: {half_low:.4f} to {half_high:.4f}; "
            f"90%: {low:.4f} to {high:.4f}",
            f"  90%: within {error_words(max(high - self.loss, self.loss - low) / self.loss, self.slope)}",
            *(f"  the {form} form would say {loss:.4f}" for form, loss in others.items()),
            *(f"  {kind} tokens: {row['loss']:.4f} (90%: {span(row['interval90'], 4)})" for kind, row in kinds.items()),
            *(f"  {words}" for task, row in self.tasks.items() for words in task_words(task, row)),
        ]

    def interval(self, level: float) -> tuple[float, float]:
        return self.interval50 if level == 0.5 else self.interval90


def predict_run(
    fit: "SweepFit",
    name: str,
    at: "Allocation",
    compute: float,
    *,
    fit_digest: str,
    form: str | None = None,
    spec: RunSpec | None = None,
) -> WrittenPrediction:
    """What `fit`, which lies under `name`, expects of the run `at` N and D with `compute` FLOPs; not written yet."""
    forecast = fit.predict(*at, compute=compute, form=form)
    kinds = {} if fit.kinds is None else fit.kinds.predict(*at, compute)[1]
    return WrittenPrediction(
        created="",
        params=at.params,
        tokens=at.tokens,
        compute=compute,
        convention=fit.table.convention,
        loss=forecast.loss,
        interval50=forecast.intervals[0.5],
        interval90=forecast.intervals[0.9],
        slope=forecast.slope,
        form=form or fit.form,
        reach=compute / fit.comparison.largest_budget,
        fit=name,
        fit_digest=fit_digest,
        runs=fit.table.identities(),
        spec=None if spec is None else spec.to_json(),
        before=None,
        kinds={
            kind: {
                "loss": float(one.loss),
                **{f"interval{level * 100:.0f}": _plain(one, level) for level in (0.5, 0.9)},
            }
            for kind, one in kinds.items()
        },
        tasks=fit.predict_tasks(*at, compute),
    )


def _plain(forecast: "Forecast", level: float) -> list[float]:
    return [float(end) for end in forecast.intervals[level]]


def show_prediction(prediction: WrittenPrediction, fit: "SweepFit", *, as_json: bool = False) -> None:
    """Prints it beside what the other forms of its fit would say, or its JSON."""
    if as_json:
        print(json.dumps({**prediction.content(), "id": prediction.id, "digest": prediction.digest}, indent=2))
        return
    others = [name for name in fit.forms if name != prediction.form]
    losses = {
        name: fit.predict(prediction.params, prediction.tokens, compute=prediction.compute, form=name).loss
        for name in others
    }
    Console().print("\n".join(prediction.lines(losses)), markup=False, highlight=False)


def check_data(spec: RunSpec, table: "RunTable") -> None:
    """Raises `StageError` where the run's data are not those of the fit's runs."""
    for name, known in spec.digests.items():
        digests = set(table.frame.get(f"tags.digest.{name}", ()))
        if digests and digests != {known}:
            raise StageError(
                f"The {name} on this machine are not those of the fit's runs.", "Make them from the same source."
            )


def write_prediction(prediction: WrittenPrediction, outputs: Path | str) -> WrittenPrediction:
    """Writes it, with the time, the one before it and its digest filled in; the file is read-only from then on.

    Raises `StageError` where the chain of those written before is broken.
    """
    folder = Path(outputs) / FOLDER
    with locked(folder / "chain"):
        known = read_predictions(outputs)
        if broken := broken_links(known):
            raise StageError(broken[0], f"Restore the files in {folder}, or keep new predictions in other outputs.")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        written = dataclasses.replace(prediction, created=now, before=known[-1].digest if known else None)
        written = dataclasses.replace(written, digest=digest(written.content()))
        path = folder / f"{written.id}.json"
        write_json(path, {**written.content(), "digest": written.digest})
        path.chmod(0o444)
    return written


def record_prediction(prediction: WrittenPrediction, outputs: Path | str, tracking: TrackingConfig) -> None:
    """The prediction as a run of its own in MLflow, so that one that is taken away is missed."""
    path = Path(outputs) / FOLDER / f"{prediction.id}.json"
    (low, high), (half_low, half_high) = prediction.interval90, prediction.interval50
    with start_run(
        tracking, outputs=outputs, name=f"prediction-{prediction.id}", folder=path.parent,
        params={"fit": prediction.fit, "form": prediction.form, "run": (prediction.spec or {}).get("name")},
        tags={"kind": "prediction", "prediction.digest": prediction.digest, "digest.fit": prediction.fit_digest},
    ) as log:  # fmt: skip
        values = {
            "loss": prediction.loss, "low90": low, "high90": high, "low50": half_low, "high50": half_high,
            "N": prediction.params, "D": prediction.tokens, "C": prediction.compute, "reach": prediction.reach,
        }  # fmt: skip
        log.log_metrics({f"prediction/{name}": value for name, value in values.items()}, 0)
        log.log_artifact(path)


def read_prediction(path: Path) -> WrittenPrediction:
    """A prediction from its file. Raises `StageError` where it is damaged or was changed after it was written."""
    raw = load_table(path, hint="Restore it.")
    with reading(path, hint="Restore it."):
        if raw.get("format", 1) not in READABLE:
            raise StageError(
                f"{path} has format {raw.get('format', 1)}; this version reads {' and '.join(map(str, READABLE))}.",
                "Another version wrote it: move it away, and predict again.",
            )
        names = {field.name for field in dataclasses.fields(WrittenPrediction)}
        prediction = WrittenPrediction(**{key: value for key, value in raw.items() if key in names})
        half, most = ((float(low), float(high)) for low, high in (prediction.interval50, prediction.interval90))
        prediction = dataclasses.replace(prediction, interval50=half, interval90=most)
    known = str(prediction.digest)
    if digest(prediction.content()) != known or path.stem != prediction.id:
        raise StageError(
            f"{path} was changed after it was written: its content does not match its digest {known[:8]}.",
            "A prediction that was changed proves nothing. Restore it, or predict again.",
        )
    return prediction


def read_predictions(outputs: Path | str) -> list[WrittenPrediction]:
    """All predictions of these outputs, the oldest first. Raises as `read_prediction`."""
    paths = listed(Path(outputs) / FOLDER, "*.json")
    return sorted((read_prediction(path) for path in paths), key=lambda one: (one.created, one.digest))


def find_prediction(name: str | None, outputs: Path | str) -> WrittenPrediction:
    """The prediction called so (its id, the beginning of it, or its file); None is the newest.

    Raises `ConfigError` for a name that means nothing, `StageError` where there is none or it was changed.
    """
    if name is not None and name.endswith(".json") and Path(name).is_file():
        return read_prediction(Path(name))
    root = Path(outputs) / FOLDER
    known = [path.stem for path in listed(root, "*.json")]
    if not known:
        raise StageError(f"There is no prediction in {root} yet.", "Write one first: maquette predict compute=1e13.")
    if name is None or name == "latest":
        return read_predictions(outputs)[-1]
    matching = [stem for stem in known if stem.startswith(name)]
    if len(matching) == 1:
        return read_prediction(root / f"{matching[0]}.json")
    close = nearest(name, known)
    hint = f"Did you mean {close}?" if close else f"Predictions: {', '.join(known)}."
    raise ConfigError(f"prediction={name}: there is no such prediction in {root}.", hint)


def find_written(outputs: Path | str, fit_digest: str, compute: float) -> WrittenPrediction | None:
    """The newest prediction by a fit for about so much compute."""
    for one in reversed(read_predictions(outputs)):
        if one.fit_digest == fit_digest and abs(one.compute / compute - 1) < 0.05:
            say(f"prediction {one.id}: up to date")
            return one
    return None


def check_predicted(name: str, outputs: str, spec: RunSpec) -> WrittenPrediction:
    """The prediction that a planned run is for. Raises `ConfigError` where the run is another one, `StageError` where
    its data are."""
    prediction = find_prediction(name, outputs)
    if prediction.spec is None:
        raise ConfigError(f"The prediction {prediction.id} is of a run of another program.", "Leave prediction out.")
    for what, known in prediction.data.items():
        if spec.digests.get(what) != known:
            raise StageError(
                f"The {what} are not those that the prediction {prediction.id} rests on.",
                "Make them again from the same source, or predict again.",
            )
    others = [one for one in spec.differences(RunSpec.from_json(prediction.spec)) if not is_local(one.split(" ")[0])]
    if others:
        raise ConfigError(
            f"This is not the run that {prediction.id} predicts: {'; '.join(others)}.",
            f"Train it with maquette train prediction={prediction.id}.",
        )
    return prediction


def is_local(key: str) -> bool:
    """Whether a setting says where or by what a run is made, not what it is."""
    return any(key == one or key.startswith(f"{one}.") for one in LOCAL)


def broken_links(predictions: list[WrittenPrediction], recorded: Iterable[str] = ()) -> list[str]:
    """What is wrong with the chain, in words: a prediction that another one follows is missing, or one that was
    `recorded` elsewhere (digests); two begin it, or follow the same one."""
    known = {one.digest for one in predictions}
    messages = [
        f"The prediction {one.before[:8]}, which {one.id} follows, is missing."
        for one in predictions
        if one.before is not None and one.before not in known
    ]
    followed = {one.before for one in predictions}
    messages += [
        f"The prediction {digest[:8]}, which MLflow knows, is missing."
        for digest in dict.fromkeys(recorded)
        if digest not in known and digest not in followed
    ]
    for before in sorted(followed - {None}, key=str):
        after = [one.id for one in predictions if one.before == before]
        if len(after) > 1:
            messages.append(f"Several predictions follow {str(before)[:8]}: {', '.join(after)}.")
    first = [one.id for one in predictions if one.before is None]
    if len(first) > 1:
        messages.append(f"Several predictions say that none was written before them: {', '.join(first)}.")
    return messages
