"""How often a reward model ranks the chosen completion above the rejected one, by subset: RewardBench's measure
(Lambert et al. 2024), with intervals, ties, and what the completions' lengths alone would reach.

Rows are preferences; a column `subset` (or `category`) says what a pair tests. Published pairs often differ in length,
and a reward model that has learned no more than "longer is better" can look good on them: the ruler, which prefers the
longer completion (in characters), is the row that a model has to beat. A subset on which it lies far below a half has
shorter chosen completions, which a model with a bias for length gets wrong.
"""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from maquette import __version__
from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import digest, locked
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import write_sealed
from maquette.corpus.sources.row_files import RowFiles
from maquette.data.conversations import preference_of
from maquette.evaluation.config import ProtocolConfig, SuiteConfig
from maquette.evaluation.journal import Journal
from maquette.evaluation.leaderboard import FILE, read_evaluations
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.model.loading import load_reward_model, load_tokenizer, model_name, weights_digest
from maquette.reports import terminal_table, write_page
from maquette.reports.figures import COLORS, new_figure
from maquette.statistics import bootstrap, bootstrap_mean, paired_bootstrap
from maquette.text.chat import Message
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AT_ONCE = 32
_LONGEST_NAME = 60


@dataclasses.dataclass(frozen=True)
class RankedPair:
    """Two whole conversations that differ in how they end: `prompt` and the completion's last message, each."""

    subset: str
    chosen: tuple[tuple[Message, ...], str]
    rejected: tuple[tuple[Message, ...], str]

    @property
    def longer(self) -> int:
        """Characters of the chosen completion less those of the rejected one."""
        return len(self.chosen[1]) - len(self.rejected[1])


def read_pairs(name: str, path: str) -> dict[str, RankedPair]:
    """The pairs of a file by `name` and row; a row without a subset belongs to one of the file's name.

    Raises `StageError` that names a row that is no preference, and a file without any pair of different completions."""
    pairs = {}
    for number, (place, row) in enumerate(RowFiles(path, "preferences").rows(), 1):
        subset = row.get("subset") or row.get("category") or name
        if not isinstance(subset, str) or len(subset) > _LONGEST_NAME:
            raise StageError(f"{place}: subset must be a short text, got {subset!r:.80}.")
        without_subset: dict[str, Any] = {key: value for key, value in row.items() if key not in ("subset", "category")}
        pair = preference_of(without_subset, place)
        if not pair.is_tie:
            sides = ((*pair.prompt, *side[:-1]) for side in (pair.chosen, pair.rejected))
            ends = (side[-1]["content"] for side in (pair.chosen, pair.rejected))
            pairs[f"{name}|{number}"] = RankedPair(subset, *zip(sides, ends, strict=True))
    if not pairs:
        raise StageError(f"{path} has no pair of different completions.", "Give a file of preferences.")
    return pairs


def evaluate_preferences(
    checkpoint: Path,
    suite: SuiteConfig,
    protocol: ProtocolConfig,
    *,
    outputs: str,
    tracking: TrackingConfig,
    force: bool = False,
) -> dict[str, Any]:
    """Ranks the pairs of every file of `suite.preferences` by the reward model in `checkpoint`; writes evaluation.json,
    index.html and the figure, and returns the JSON's content. Killed, it resumes from the last batch.

    Raises `ConfigError` where the suite names no such file, `StageError` where one is damaged."""
    name = model_name(checkpoint)
    if not suite.preferences or suite.files:
        raise ConfigError(
            f"{name} is a reward model: it ranks pairs of completions, and answers no questions.",
            "Write suite=preferences suite.preferences.rewardbench=<file of preferences with a column subset>.",
        )
    pairs = {key: pair for task, path in suite.preferences.items() for key, pair in read_pairs(task, path).items()}
    identity = _identity(checkpoint, name, suite, protocol)
    folder = Path(outputs) / "evaluations" / f"{name}-{suite.name}-{identity['fingerprint'][:8]}"
    with locked(folder):
        if not force and (done := read_evaluations([folder])):
            say(f"evaluation {folder.name}: up to date")
            result = done[0]
        else:
            params, tags = {"checkpoint": str(checkpoint)}, {"kind": "evaluation", "suite": suite.name}
            with start_run(
                tracking, outputs=Path(outputs), name=folder.name, folder=folder, params=params, tags=tags
            ) as log:
                journal = folder / "journal.jsonl"
                if force:
                    journal.unlink(missing_ok=True)
                margins = score_pairs(LearnedReward(*load_reward_model(checkpoint)), pairs, Journal(journal))
                result = {
                    **identity,
                    "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "maquette_version": __version__,
                    **summarize_pairs(pairs, margins, protocol),
                }
                facts = result | {"shown": shown_rows(result)}
                page = write_page(folder, "preference_accuracy.html.j2", facts, {"subsets": _figure(result)})
                write_sealed(folder / FILE, result)
                values = {f"evaluation/{row['subset']}": row["accuracy"] for row in result["rows"]}
                log.log_metrics({_plain(key): value for key, value in values.items()}, step=0)
                for path in (page, folder / FILE, folder / "figures"):
                    log.log_artifact(path)
    if result["too_long"]:
        say(f"{result['too_long']:,} pairs left out: longer than the reward model's context")
    Console().print(terminal_table(TABLE, shown_rows(result), f"{name}: chosen above rejected, by subset"))
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return result


def score_pairs(reward: LearnedReward, pairs: Mapping[str, RankedPair], journal: Journal) -> NDArray[np.float64]:
    """Reward of the chosen less that of the rejected completion of each pair, `(n,)`, NaN where one is longer than the
    model's context: what `journal` lacks is scored."""

    def margins(batch: Sequence[RankedPair]) -> list[float | None]:
        scores = reward.of_fitting([answer for pair in batch for answer in (pair.chosen, pair.rejected)])
        return [
            None if chosen is None or rejected is None else chosen - rejected
            for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)
        ]

    with progress("ranking pairs", len(pairs), unit="pairs") as advance:
        differences = journal.complete(
            pairs, margins, size=lambda pair: len(pair.chosen[1]) + len(pair.rejected[1]), at_once=_AT_ONCE,
            advance=advance,
        )  # fmt: skip
    return np.array(differences, dtype=float)


ALL_PAIRS, SUBSETS = "all pairs", "mean of subsets"
LONGER, SHORTER = "chosen is longer", "chosen is shorter"

TABLE = {
    "subset": "{subset}", "pairs": "{pairs:,}", "accuracy": "{accuracy:.3f}", "interval": "{interval}",
    "ties": "{ties:,}", "ruler": "{ruler:.3f}", "beyond": "{beyond:+.3f}",
}  # fmt: skip
"""Columns at the terminal; the ruler lets the longer one win, `beyond` is the accuracy less the ruler's."""


def shown_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `summarize_pairs` with their intervals in words."""
    return [
        row
        | {
            name: f"{row[low]:{form}}{between}{row[high]:{form}}" if math.isfinite(row[low]) else "too few"
            for name, low, high, form, between in (
                ("interval", "low", "high", ".3f", "-"),
                ("beyond_interval", "beyond_low", "beyond_high", "+.3f", " to "),
            )
        }
        for row in result["rows"]
    ]  # fmt: skip


def summarize_pairs(
    pairs: Mapping[str, RankedPair], margins: NDArray[np.float64], protocol: ProtocolConfig
) -> dict[str, Any]:
    """Rows of the table: every subset, their mean, all pairs together, and these by which completion is longer.

    `accuracy`: share of pairs whose chosen completion has the higher reward, ties half; `low`, `high`: its interval
    over pairs (of the mean of subsets: over pairs within each); `ruler`: the same of the rule that the longer one wins,
    and `beyond` with `beyond_low`, `beyond_high` and `p_value` the difference over the same pairs. Pairs without a
    margin (NaN) are left out and counted, as `too_long`."""
    too_long, pairs = (
        int(np.isnan(margins).sum()),
        {key: pair for (key, pair), margin in zip(pairs.items(), margins, strict=True) if not math.isnan(margin)},
    )
    if not pairs:
        raise StageError(f"All {too_long:,} pairs are longer than the reward model's context.", "Give shorter ones.")
    margins = margins[~np.isnan(margins)]
    options: dict[str, Any] = {"resamples": protocol.resamples, "level": protocol.level, "seed": protocol.seed}
    right, ties = _right(margins), margins == 0
    lengths = np.array([pair.longer for pair in pairs.values()], dtype=float)
    ruler, owner = _right(lengths), np.array([pair.subset for pair in pairs.values()])
    subsets = list(dict.fromkeys(owner.tolist()))

    def row(name: str, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        low, high = _interval(right[chosen], options)
        difference = paired_bootstrap(right[chosen], ruler[chosen], **options) if chosen.sum() > 1 else None
        nan = math.nan
        return {
            "subset": name, "pairs": int(chosen.sum()), "accuracy": float(right[chosen].mean()), "low": low,
            "high": high, "ties": int(ties[chosen].sum()), "ruler": float(ruler[chosen].mean()),
            "beyond": float((right - ruler)[chosen].mean()),
            "beyond_low": difference.interval.low if difference else nan,
            "beyond_high": difference.interval.high if difference else nan,
            "p_value": difference.p_value if difference else nan,
        }  # fmt: skip

    rows = [row(name, owner == name) for name in subsets]
    headline = {one["subset"]: one for one in rows}
    everything = row(ALL_PAIRS, np.ones(len(right), dtype=bool))
    if len(subsets) > 1:
        rows.append(everything | _mean_of_subsets([owner == name for name in subsets], right, ruler, options))
    rows.append(everything)
    rows += [row(name, chosen) for name, chosen in ((LONGER, lengths > 0), (SHORTER, lengths < 0)) if chosen.any()]
    keys = np.array(list(pairs))
    return {
        "headline": headline,
        "mean_accuracy": float(np.mean([one["accuracy"] for one in headline.values()])),
        "rows": rows,
        "too_long": too_long,
        "likelihood": {},
        "items": {
            name: dict(zip(keys[owner == name].tolist(), right[owner == name].tolist(), strict=True))
            for name in subsets
        },
    }  # fmt: skip


def _mean_of_subsets(
    groups: Sequence[NDArray[np.bool_]], right: NDArray[Any], ruler: NDArray[Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Each subset counts alike; a resample in which one is empty leaves it out."""

    def mean_of(values: NDArray[Any]) -> Any:
        def statistic(counts: NDArray[Any]) -> NDArray[Any]:
            sizes = np.stack([counts[:, group].sum(axis=1) for group in groups])
            sums = np.stack([counts[:, group] @ values[group] for group in groups])
            means = np.divide(sums, sizes, out=np.full(sums.shape, np.nan), where=sizes > 0)
            return np.asarray(np.nanmean(means, axis=0))

        return bootstrap(statistic, len(values), **options)

    accuracy, beyond = mean_of(right), mean_of(right - ruler)
    as_far = np.abs(beyond.samples - beyond.value) >= abs(beyond.value)
    return {
        "subset": SUBSETS, "accuracy": accuracy.value, "low": accuracy.interval.low, "high": accuracy.interval.high,
        "ruler": accuracy.value - beyond.value, "beyond": beyond.value, "beyond_low": beyond.interval.low,
        "beyond_high": beyond.interval.high, "p_value": (1 + int(as_far.sum())) / (1 + len(as_far)),
    }  # fmt: skip


def _right(differences: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray((differences > 0) + 0.5 * (differences == 0), dtype=np.float64)


def _interval(values: NDArray[Any], options: dict[str, Any]) -> tuple[float, float]:
    if len(values) < 2:
        return math.nan, math.nan
    interval = bootstrap_mean(values, **options).interval
    return interval.low, interval.high


def _identity(checkpoint: Path, name: str, suite: SuiteConfig, protocol: ProtocolConfig) -> dict[str, Any]:
    """What makes two evaluations the same, and (`comparable`) what makes their scores comparable."""
    how = {key: getattr(protocol, key) for key in ("resamples", "level", "seed")}
    tasks = {task: digest(RowFiles(path, "preferences").inputs()) for task, path in suite.preferences.items()}
    digests = {
        "model": weights_digest(checkpoint), "tokenizer": load_tokenizer(checkpoint).chat_digest, "tasks": tasks,
    }  # fmt: skip
    return {
        "checkpoint": str(checkpoint), "name": name, "suite": {"name": suite.name, "preferences": suite.preferences},
        "protocol": how, "comparable": digest({"protocol": how, "tasks": tasks}), "fingerprint": digest([how, digests]),
        "digests": digests,
    }  # fmt: skip


def _figure(result: Mapping[str, Any]) -> "Figure":
    """Accuracy of every row with its interval, and the ruler's beside it."""
    rows = result["rows"][::-1]
    figure, axes = new_figure(width=7.2, height=0.9 + 0.34 * len(rows))
    places = np.arange(len(rows))
    values, low, high = (np.array([row[key] for row in rows]) for key in ("accuracy", "low", "high"))
    axes.errorbar(values, places, xerr=np.abs([values - low, high - values]), fmt="o", color=COLORS[0], capsize=3,
                  label="reward model")  # fmt: skip
    axes.plot([row["ruler"] for row in rows], places, "x", color=COLORS[1], label="longer wins")
    axes.axvline(0.5, color="#888888", linestyle=(0, (5, 3)), linewidth=1)
    axes.set_yticks(places, [row["subset"] for row in rows])
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share of pairs whose chosen completion ranks first")
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, frameon=False)
    return figure


def _plain(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "._-/ " else "_" for sign in name)
