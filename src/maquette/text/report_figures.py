"""The figures of the tokenizer report (text/report.py)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.text.measure import Fit, together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN_SPLITS = (
    "neighbours", "long number", "sum", "date", "spelt right", "misspelt", "code, four spaces", "code, tabs",
)  # fmt: skip
_FONT_SIZE = 11
_COLUMN_INCHES = 0.602 * _FONT_SIZE / 72  # the advance of DejaVu Sans Mono, so that a character fills its column
_NAME_COLUMNS = 18
_WIDTH = 128  # of the model whose vocabulary matrices are drawn as an example


def compression(fits: Mapping[str, Fit], path: Path) -> Path:
    """Bytes and characters a token for each domain."""
    figure, axes = new_figure()
    places = np.arange(len(fits))
    for shift, name, values in (
        (-0.2, "bytes", [fit.bytes_per_token for fit in fits.values()]),
        (0.2, "characters", [fit.characters_per_token for fit in fits.values()]),
    ):
        bars = axes.bar(places + shift, values, width=0.38, label=name)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(places, list(fits))
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("per token")
    axes.set_title("How much text a token holds", loc="left")
    axes.margins(y=0.15)
    axes.legend(ncols=2, loc="upper right", frameon=False)
    return save_figure(figure, path)


def use_facts(fits: Mapping[str, Fit], learned: int) -> dict[str, dict[str, Any]]:
    """By domain, and of all text: shares of the text's tokens at some ranks, and of the vocabulary that is used."""
    facts = {}
    for name, fit in {"all": together(fits), **fits}.items():
        counts = np.sort(fit.counts[fit.counts > 0])[::-1]
        ranks = np.unique(np.geomspace(1, max(len(counts), 1), 80).round().astype(int))[: len(counts)]
        shares = counts[ranks - 1] / counts.sum()
        facts[name] = {"ranks": ranks.tolist(), "shares": shares.tolist(), "used": fit.used / learned}
    return facts


def vocabulary_use(use: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """How often tokens are used, by rank; and which share of the vocabulary each domain uses. `use`: `use_facts`."""
    figure, (left, right) = new_figure(1, 2, width=5.2)
    for name, one in use.items():
        line = {"color": "black", "linewidth": 1.6} if name == "all" else {"linewidth": 1}
        left.loglog(one["ranks"], one["shares"], label=name, **line)
    left.set_xlabel("rank of the token")
    left.set_ylabel("share of the text's tokens")
    left.set_title("Frequency by rank", loc="left")
    left.legend(fontsize=8, frameon=False)
    places = np.arange(len(use))
    shares = [100 * one["used"] for one in use.values()]
    bars = right.barh(places, shares, color=["0.4", *(COLORS[0] for _ in use)][: len(use)])
    right.bar_label(bars, fmt="%.0f%%", fontsize=8, padding=2)
    right.set_yticks(places, list(use))
    right.invert_yaxis()
    right.set_xlim(0, 112)
    right.grid(axis="y", visible=False)
    right.set_xlabel("tokens used at least once (%)")
    right.set_title("Vocabulary in use", loc="left")
    return figure


def vocabulary_sizes(sweep: Sequence[Mapping[str, Any]], chosen: int) -> "Figure":
    """Sequence length against vocabulary size, and what each side of the trade costs. `sweep`: of report.json."""
    figure, (left, right) = new_figure(1, 2, width=5.2)
    sizes = np.array([point["vocabulary"] for point in sweep])
    for domain in sweep[0]["domains"]:
        left.plot(sizes, [point["domains"][domain] for point in sweep], marker="o", markersize=3, label=domain)
    left.set_ylim(0, None)
    left.set_ylabel("tokens for 1,000 bytes")
    left.set_title("Sequence length", loc="left")
    left.legend(fontsize=8, frameon=False)

    length = np.array([point["tokens_per_kilobyte"] for point in sweep])
    relative = length / length[0]
    lines = right.plot(sizes, relative, marker="o", markersize=3, label="length")
    lines += right.plot(sizes, relative**2, marker="o", markersize=3, label="attention (length squared)")
    right.set_ylim(0, 1.05)
    right.set_ylabel("against plain bytes")
    right.set_title("What it saves and what it costs", loc="left")
    parameters = right.twinx()
    parameters.grid(visible=False)
    parameters.spines["right"].set_visible(True)
    lines += parameters.plot(
        sizes, 2 * sizes * _WIDTH / 1e6, color=COLORS[3], linestyle="--", marker="o", markersize=3,
        label=f"embedding and head at width {_WIDTH}",
    )  # fmt: skip
    parameters.set_ylim(0, None)
    parameters.set_ylabel("parameters (millions)")
    right.legend(handles=lines, fontsize=8, loc="upper center", frameon=False)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
        axes.minorticks_off()
        axes.set_xlabel("vocabulary (tokens)")
        axes.axvline(chosen, color="grey", linestyle=":", linewidth=1)
    return figure


def splits(split: Mapping[str, Sequence[str]], path: Path) -> Path:
    """Examples with each token in a box of its own."""
    rows = [(name, row) for name in _DRAWN_SPLITS if name in split for row in _rows(split[name])]
    widest = max((sum(map(len, row)) for _, row in rows), default=1)
    columns, lines = _NAME_COLUMNS + widest + 2, len(rows) + 2
    figure, axes = new_figure(width=columns * _COLUMN_INCHES, height=lines * 0.3)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set_xlim(-_NAME_COLUMNS, widest + 2)
    axes.set_ylim(len(rows), -2)
    axes.axis("off")
    axes.text(1 - _NAME_COLUMNS, -1.2, "How text is split: each box is a token", va="center", fontsize=11)
    previous = ""
    for line, (name, row) in enumerate(rows):
        axes.text(-1, line, name if name != previous else "", ha="right", va="center", fontsize=9)
        _draw_row(axes, line, row)
        previous = name
    return save_figure(figure, path)


def _rows(pieces: Sequence[str]) -> list[list[str]]:
    """One row for each line of the text."""
    rows: list[list[str]] = [[]]
    for piece in pieces:
        rows[-1].append(piece)
        if "⏎" in piece:
            rows.append([])
    return [row for row in rows if row]


def _draw_row(axes: Any, line: int, row: Sequence[str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    start = 0
    for place, piece in enumerate(row):
        box = FancyBboxPatch(
            (start + 0.06, line - 0.38), len(piece) - 0.12, 0.76, boxstyle="round,pad=0,rounding_size=0.15",
            facecolor=COLORS[place % len(COLORS)], alpha=0.28, linewidth=0,
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(
            start + len(piece) / 2, line, piece, ha="center", va="center", fontsize=_FONT_SIZE, family="monospace",
            parse_math=False,
        )  # fmt: skip
        start += len(piece)
