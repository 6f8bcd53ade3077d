"""The corpus report: what each step left, what the splits hold, how much the text repeats; table, JSON and figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.reading import load_table
from maquette.corpus.document import SPLITS
from maquette.reports import render
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.reports.overview import PAGE
from maquette.reports.pages import is_current

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def describe(facts: Mapping[str, Any]) -> str:
    """One line on what was made, from `make_corpus`'s facts."""
    total = {split: sum(sizes[split]["bytes"] for sizes in facts["domains"].values()) / 1e6 for split in SPLITS}
    read, written = (sum(facts["funnel"][place]["characters"].values()) for place in (0, -1))
    return (
        f"corpus: {', '.join(facts['domains'])}; {total['train']:,.1f} MB to train on, "
        f"{total['validation']:,.1f} MB for validation, {total['test']:,.1f} MB for test; "
        f"{1 - written / max(read, 1):.0%} of what was read is left out"
    )


def write_report(folder: Path, known: dict[str, Any]) -> None:
    """Writes `report.json`, `report.md` and `figures/corpus.png` (and .svg) into an artifact folder; `known`: its
    manifest's facts."""
    source = {key: value for key, value in known["source"].items() if key != "path"}  # equal files, equal report
    content = {**known, "source": source}
    write_json(folder / "report.json", content)
    shown = {**content, "source": source_in_words(source), "splits": SPLITS}
    write_text(folder / "report.md", render("corpus.md.j2", shown))
    save_figure(corpus_figure(content), folder / "figures" / "corpus")


def write_corpus_page(folder: Path, *, force: bool = False) -> None:
    """Writes a corpus's index.html from its report.json, unless it is there already."""
    report = folder / "report.json"
    if report.exists() and (force or not is_current(folder / PAGE, [report])):
        content = load_table(report)
        shown = {**content, "source": source_in_words(content["source"]), "splits": SPLITS, "words": describe(content)}
        write_text(folder / PAGE, render("corpus.html.j2", {**shown, "figures": {"corpus": corpus_figure(content)}}))


def source_in_words(source: Mapping[str, Any]) -> str:
    """What kind of source, and what else it says of itself: `text; files: 203; not text: poems/picture.png`."""
    words = [str(source["kind"])]
    for key, value in source.items():
        if isinstance(value, Mapping | list) and len(value) > 5:
            value = f"{len(value)}, named in manifest.json"
        elif isinstance(value, Mapping):
            value = ", ".join(f"{name} {what}" for name, what in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if key != "kind" and value not in (None, ""):
            words.append(f"{key.replace('_', ' ')}: {value}")
    return "; ".join(words)


def corpus_figure(facts: Mapping[str, Any]) -> "Figure":
    """Left: what became of each domain's text. Right: repetition before and after. `facts`: the manifest's."""
    domains, stages, repetition = list(facts["domains"]), facts["funnel"], facts["repetition"]
    canvas, (left, right) = new_figure(1, 2, width=5.6, height=1.6 + 0.42 * len(domains))
    places = range(len(domains))

    first = [max(stages[0]["characters"][domain], 1) for domain in domains]
    shares = [100 * stages[-1]["characters"][d] / whole for d, whole in zip(domains, first, strict=True)]
    left.barh(places, shares, color=COLORS[0], label="kept")
    start = shares
    for number in range(len(stages) - 1, 0, -1):
        lost = [
            100 * (stages[number - 1]["characters"][domain] - stages[number]["characters"][domain]) / whole
            for domain, whole in zip(domains, first, strict=True)
        ]
        left.barh(places, lost, left=start, color=COLORS[number], label=stages[number]["step"])
        start = [a + b for a, b in zip(start, lost, strict=True)]
    megabytes = [stages[-1]["characters"][domain] / 1e6 for domain in domains]
    left.set_yticks(places, [f"{d} ({size:.1f} M kept)" for d, size in zip(domains, megabytes, strict=True)])
    left.invert_yaxis()
    left.set_xlim(0, 100)
    left.set_xlabel("share of the characters read (%)")
    left.set_title("What is kept, and what each step drops")
    left.legend(ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.3))

    series = [("training text that repeats", "train"), ("validation text seen in training", "validation")]
    for offset, (label, split) in zip((-0.2, 0.2), series, strict=True):
        before, after = ([100 * repetition[when][domain][split] for domain in domains] for when in ("before", "after"))
        color = COLORS[0] if split == "train" else COLORS[1]
        right.barh([p + offset for p in places], before, 0.36, color=color, alpha=0.35, label=label)
        right.barh([p + offset for p in places], after, 0.36, color=color)
        marks = {"color": color, "markersize": 5, "clip_on": False, "label": "of it kept"}
        right.plot(after, [p + offset for p in places], "D", **marks)
    right.set_yticks(places, domains)
    right.invert_yaxis()
    right.set_xlim(0, 100)
    right.set_xlabel(f"stretches of {repetition['frame']} words and marks (%)")
    right.set_title("Repetition")
    handles, labels = right.get_legend_handles_labels()
    order = sorted(range(4), key=lambda place: labels[place] == "of it kept")  # a row a split: its bar, its diamond
    right.legend(
        [handles[place] for place in order], [labels[place] for place in order], fontsize=8, loc="upper center",
        bbox_to_anchor=(0.5, -0.3), ncols=2,
    )  # fmt: skip
    return canvas
