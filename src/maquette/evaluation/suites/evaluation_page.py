"""One evaluation as a page and figures: scores, their protocols, their intervals, and what they do not say."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.page import Fact, Page, Picture
from maquette.evaluation.likelihood.baselines import ALL
from maquette.reports.figures import COLORS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "likelihood": "likelihood", "per_byte": "per byte", "per_token": "per token", "unconditional": "less unconditional",
    "letter": "letter, likelihood", "constrained": "letter, constrained",
}  # fmt: skip


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Writes index.html and the figures (PNG and SVG) into `folder`; returns the page's path."""
    page = Page(
        f"{result['name']}: {result['suite']['name']}",
        eyebrow="Maquette evaluation",
        lead="Every score with the way it was asked for, its interval, and how far the way of asking moves it.",
        footer=f"Checkpoint `{result['checkpoint']}`, model `{result['digests']['model'][:12]}`; "
        f"seed {result['protocol']['seed']}; intervals of {result['protocol']['level']:.0%}.",
    )
    pictures = {}
    if result["scores"]:
        pictures["protocols"] = protocol_figure(result["scores"], result["protocol"]["level"])
        _add_scores(page, result, pictures["protocols"])
    if result["likelihood"]:
        pictures["bits_per_byte"] = likelihood_figure(result["likelihood"])
        pictures["calibration"] = calibration_figure(result["likelihood"][ALL])
        _add_likelihood(page, result, pictures)
    if result["contamination"]:
        _add_contamination(page, result["contamination"])
    _add_protocol(page, result)
    for name, figure in pictures.items():
        save_figure(figure, folder / "figures" / name)
    return page.write(folder / "index.html")


def _span(row: Mapping[str, Any], form: str) -> str:
    return f"{row['low']:{form}} to {row['high']:{form}}" if math.isfinite(row["low"]) else "too few for an interval"


def _add_scores(page: Page, result: Mapping[str, Any], figure: "Figure") -> None:
    page.section("Questions")
    page.facts(
        [
            Fact(
                name,
                f"{row['accuracy']:.1%}",
                f"{_span(row, '.1%')}; guessing {row['chance']:.0%}; {NAMES[row['protocol']]}",
            )
            for name, row in result["headline"].items()
        ]
    )
    page.text(
        "The same model, the same questions, and another score for each way of asking. **Compare scores only where "
        "protocol, shots and order are the same.**"
    )
    page.pictures(Picture(figure, "Accuracy by protocol with its interval over questions; the dashed line is guessing"))
    page.table(
        ["task", "shots", "protocol", "accuracy", "interval", "worst to best order", "questions", "too long"],
        [
            [
                row["task"], row["shots"], NAMES[row["protocol"]], (row["accuracy"], f"{row['accuracy']:.3f}"),
                _span(row, ".3f"), f"{row['least']:.3f} to {row['most']:.3f}", row["questions"],
                row["too_long"],
            ]
            for row in result["scores"]
        ],
        caption="Every score. Orders are rotations of the options; only asking for a letter depends on them.",
    )  # fmt: skip
    page.table(
        ["task", "shots", "least", "most", "spread", "questions"],
        [
            [
                name,
                shots,
                (low, f"{low:.3f}"),
                (high, f"{high:.3f}"),
                (high - low, f"{high - low:.3f}"),
                _questions(result["scores"], name, shots),
            ]
            for name, shots, low, high in spread(result["scores"])
        ],
        caption="The spread: how much of a score is the question, and how much the way of asking it. Where a way of "
        "asking is too long for the model's context, fewer questions are asked, and part of the spread is theirs.",
    )
    for name, reasons in result["skipped"].items():
        page.text(
            f"Left out of **{name}**: " + ", ".join(f"{count} with {why}" for why, count in reasons.items()) + "."
        )


def spread(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, float, float]]:
    """Task, shots, and the least and greatest accuracy over protocols."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in scores:
        found.setdefault((row["task"], row["shots"]), []).append(row["accuracy"])
    return [(task, shots, min(values), max(values)) for (task, shots), values in found.items()]


def _questions(scores: Sequence[Mapping[str, Any]], task: str, shots: int) -> str:
    """How many questions the protocols answered: one number, or the least and the most."""
    asked = sorted({row["questions"] for row in scores if (row["task"], row["shots"]) == (task, shots)})
    return f"{asked[0]:,}" if len(asked) == 1 else f"{asked[0]:,} to {asked[-1]:,}"


def _add_likelihood(page: Page, result: Mapping[str, Any], pictures: Mapping[str, "Figure"]) -> None:
    page.section("Likelihood of held-out text")
    for note in result["notes"]:
        page.text(note)
    page.table(
        ["domain", "documents", "tokens", "bits per byte", "interval", "perplexity by token", "by word", "calibration"],
        [
            [
                "all" if name == ALL else name, row["documents"], row["tokens"],
                (row["bits_per_byte"]["value"], f"{row['bits_per_byte']['value']:.3f}"),
                f"{row['bits_per_byte']['low']:.3f} to {row['bits_per_byte']['high']:.3f}",
                (row["perplexity"]["value"], f"{row['perplexity']['value']:.2f}"),
                (row["word_perplexity"]["value"], f"{row['word_perplexity']['value']:,.0f}"),
                (row["calibration_error"], f"{row['calibration_error']:.3f}"),
            ]
            for name, row in result["likelihood"].items()
        ],
        caption="Intervals draw documents anew. Calibration: expected error of how sure the model is of its likeliest "
        "token (0 is perfect).",
    )  # fmt: skip
    page.pictures(
        Picture(pictures["bits_per_byte"], "Bits per byte by domain, with intervals over documents (less is better)"),
        Picture(
            pictures["calibration"], "How often the likeliest token comes, against how likely the model says it is"
        ),
    )


def _add_contamination(page: Page, tests: Mapping[str, Mapping[str, Any]]) -> None:
    page.section("Was the test trained on?")
    page.text(
        "A model that was trained on a file finds its questions likelier in the file's order than shuffled. Without "
        "that, the p-value is as likely to be anywhere between 0 and 1."
    )
    page.table(
        ["task", "p-value", "t", "shards"],
        [[n, (t["p_value"], f"{t['p_value']:.4f}"), t["statistic"], len(t["differences"])] for n, t in tests.items()],
    )


def _add_protocol(page: Page, result: Mapping[str, Any]) -> None:
    page.section("How it was asked")
    protocol = result["protocol"]
    for kind in ("completion", "question"):
        shown = {key: value for key, value in protocol[kind].items() if value}
        page.heading(f"Template: {kind}")
        page.code("\n".join(f"{key}: {value!r}" for key, value in shown.items()))
    page.table(
        ["what", "value"],
        [
            ["shots", ", ".join(map(str, protocol["shots"]))], ["orders of options", protocol["orders"]],
            ["seed", protocol["seed"]], ["resamples", protocol["resamples"]],
            ["window's stride", result["suite"]["stride"] or "half the context"],
            *([f"questions of {name}", f"`{value[:12]}`"] for name, value in result["digests"]["tasks"].items()),
            ["documents", f"`{str(result['digests']['corpus'])[:12]}`"],
        ],
    )  # fmt: skip


def protocol_figure(scores: Sequence[Mapping[str, Any]], level: float) -> "Figure":
    """A panel for each task and number of shots, a point with its interval for each protocol."""
    panels = list(dict.fromkeys((row["task"], row["shots"]) for row in scores))
    kinds = [kind for kind in NAMES if any(row["protocol"] == kind for row in scores)]
    figure, grid = new_figure(1, len(panels), width=max(2.3, 8.4 / len(panels)), height=1.1 + 0.3 * len(kinds))
    axes = [grid] if len(panels) == 1 else list(grid)
    for panel, (task, shots) in zip(axes, panels, strict=True):
        own = [row for row in scores if (row["task"], row["shots"]) == (task, shots)]
        for row in own:
            place = kinds.index(row["protocol"])
            panel.plot([row["least"], row["most"]], [place, place], color=COLORS[3], linewidth=6, alpha=0.35)
            panel.plot([row["low"], row["high"]], [place, place], color=COLORS[0], linewidth=1.6)
            panel.plot(row["accuracy"], place, "o", color=COLORS[0], markersize=5)
        panel.axvline(own[0]["chance"], color="#777777", linestyle="--", linewidth=1)
        panel.set_title(task if shots == 0 else f"{task}, {shots} shots", fontsize=10)
        panel.set_yticks(range(len(kinds)), [NAMES[k] for k in kinds] if panel is axes[0] else [""] * len(kinds))
        panel.set_ylim(len(kinds) - 0.5, -0.5)
        panel.set_xlim(0, 1)
        panel.set_xticks([0, 0.5, 1])
    axes[len(axes) // 2].set_xlabel(
        f"accuracy: {level:.0%} interval (line), orders of the options (band), chance (dashed)"
    )
    return figure


def likelihood_figure(likelihood: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Bits per byte of each domain, with intervals."""
    names = list(likelihood)
    figure, axes = new_figure(width=4.8, height=0.9 + 0.42 * len(names))
    for place, name in enumerate(names):
        rate = likelihood[name]["bits_per_byte"]
        axes.plot([rate["low"], rate["high"]], [place, place], color=COLORS[0], linewidth=2)
        axes.plot(rate["value"], place, "o", color=COLORS[0])
    axes.set_yticks(range(len(names)), ["all" if name == ALL else name for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("bits per byte")
    return figure


def calibration_figure(row: Mapping[str, Any]) -> "Figure":
    """Reliability: of each bin of confidence, how often the likeliest token was right; size by count."""
    figure, axes = new_figure(width=3.8, height=3.4)
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1)
    total = sum(count for count, _, _ in row["bins"])
    for count, sure, right in row["bins"]:
        if count:
            axes.scatter(sure / count, right / count, s=20 + 300 * count / total, color=COLORS[0], alpha=0.7)
    axes.set_xlabel("probability of the likeliest next token")
    axes.set_ylabel("how often it comes")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return figure
