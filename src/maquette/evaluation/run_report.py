"""One pretrained model as its page shows it: how good it is, how it learned, what it writes, what it was made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maquette.corpus.report import corpus_figure
from maquette.evaluation.baselines import ALL, NGRAM, UNIFORM, UNIGRAM, BaselineScore
from maquette.reports.figures import COLORS, curve, new_figure
from maquette.text.report_figures import vocabulary_sizes
from maquette.training.energy import energy_words
from maquette.training.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODEL = "this model"

_MODEL_COLOR = "#c8552b"
_COLORS = {UNIFORM: "#cfc8bd", UNIGRAM: "#a89f92", NGRAM: "#5f7f9f", MODEL: _MODEL_COLOR}


@dataclass(frozen=True)
class RunReport:
    """What a page is made from.

    `history`: rows of the run's `metrics.jsonl`; `weights`: each domain's share of training; `corpus`: facts of the
    corpus; `tokenizer`: the tokenizer's report; `places`: what lies where; `commands`: why to type what next.
    """

    record: RunRecord
    history: Sequence[Mapping[str, Any]]
    scores: Sequence[BaselineScore]
    weights: Mapping[str, float]
    corpus: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    places: Mapping[str, str]
    commands: Mapping[str, str]

    @property
    def model_bits(self) -> dict[str, float]:
        """Bits per byte of the model on text mixed as in training (`ALL`), and on each domain."""
        domains = {name: values for name, values in self.record.domains.items() if "bits_per_byte" in values}
        everything = {} if self.record.bits_per_byte is None else {ALL: self.record.bits_per_byte}
        return everything | {name: values["bits_per_byte"] for name, values in domains.items()}

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Bits per byte of each baseline, by domain."""
        losses: dict[str, dict[str, float]] = {}
        for score in self.scores:
            losses.setdefault(score.baseline, {})[score.domain] = score.bits_per_byte
        return losses

    @property
    def energy(self) -> tuple[str, str]:
        """What training drew, and its carbon with where both come from."""
        if self.record.energy is None:
            return "unknown", "not metered"
        amount, _, rest = energy_words(self.record.energy).partition(", ")
        return amount, rest

    @property
    def perplexities(self) -> dict[str, float]:
        """Perplexity of a token of the model, as `model_bits`."""
        everything = {ALL: math.exp(self.record.validation_loss or math.nan)}
        return everything | {name: values["perplexity"] for name, values in self.record.domains.items()}

    @property
    def epochs(self) -> float:
        """How often the domain that was read most was read."""
        return max((values.get("epochs", 0.0) for values in self.record.domains.values()), default=0.0)

    @property
    def samples(self) -> list[tuple[str, list[Mapping[str, Any]]]]:
        """Each prompt, with what the model wrote after it at the first, a middle and the last validation."""
        rows = [row["samples"] for row in self.history if row.get("samples")]
        stages = [rows[0], rows[len(rows) // 2], rows[-1]] if len(rows) > 2 else rows[-1:]
        return [
            (last["prompt"].strip(), [samples[place] for samples in stages])
            for place, last in enumerate(rows[-1] if rows else [])
        ]

    @property
    def corpus_bytes(self) -> int:
        """Bytes of the corpus, all domains and splits together."""
        return sum(split["bytes"] for domain in self.corpus["domains"].values() for split in domain.values())

    @property
    def gains(self) -> dict[str, float]:
        """By how much fewer bits than the 5-gram model this one needs, as a share, by domain as `model_bits`."""
        return {domain: 1 - bits / self.baselines[NGRAM][domain] for domain, bits in self.model_bits.items()}

    def figures(self) -> dict[str, "Figure"]:
        """Every figure of the page, by name."""
        drawn = {
            "bits": bits_figure(self.scores, self.model_bits),
            "loss": loss_figure(self.history, self.scores),
            "domains": domains_figure(self.history, list(self.record.domains)),
            "corpus": corpus_figure(self.corpus),
        }
        if len(self.tokenizer["sweep"]) > 1:
            drawn["vocabulary"] = vocabulary_sizes(self.tokenizer["sweep"], self.tokenizer["vocabulary"])
        return drawn


def bits_figure(scores: Sequence[BaselineScore], model: Mapping[str, float]) -> "Figure":
    """Bits per byte of every baseline and of the model (`model`, with the mixture as `ALL`), by domain."""
    domains = list(model)
    names = [UNIFORM, UNIGRAM, NGRAM, MODEL]
    values = {(score.baseline, score.domain): score.bits_per_byte for score in scores}
    values |= {(MODEL, domain): bits for domain, bits in model.items()}
    figure, axes = new_figure(width=8.4, height=0.9 + 0.82 * len(domains))
    height = 0.19
    for index, name in enumerate(names):
        places = [place + (index - 1.5) * height for place in range(len(domains))]
        lengths = [values.get((name, domain), 0.0) for domain in domains]
        axes.barh(places, lengths, height * 0.88, color=_COLORS[name], label=name)
        for place, length in zip(places, lengths, strict=True):
            weight = "bold" if name == MODEL else "normal"
            axes.text(length + 0.06, place, f"{length:.2f}", va="center_baseline", fontsize=8.5, fontweight=weight)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(domains)), ["all text" if domain == ALL else domain for domain in domains])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 8.6)
    axes.set_xlabel("bits per byte of held-out text (less is better)")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, frameon=False)
    return figure


def loss_figure(history: Sequence[Mapping[str, Any]], scores: Sequence[BaselineScore]) -> "Figure":
    """Training and validation loss over tokens, and what the baselines reach on the same text."""
    figure, axes = new_figure(width=4.8, height=3.5)
    training, validation = (curve(history, "tokens", f"{split}/loss") for split in ("train", "validation"))
    axes.plot(*training, color="#b9b0a3", linewidth=1.1, label="training")
    axes.plot(*validation, color=_MODEL_COLOR, marker="o", markersize=4, linewidth=1.8, label="held-out text")
    for score in scores:
        if score.domain == ALL and score.baseline != UNIFORM:
            axes.axhline(score.loss, color=_COLORS[score.baseline], linestyle=(0, (5, 3)), linewidth=1.3)
            axes.annotate(
                score.baseline, (0, score.loss), xycoords=("axes fraction", "data"), xytext=(4, 3),
                textcoords="offset points", fontsize=8.5,
            )  # fmt: skip
    _token_axis(axes)
    axes.set_ylabel("loss (nats per token)")
    axes.legend(fontsize=9, frameon=False)
    return figure


def domains_figure(history: Sequence[Mapping[str, Any]], domains: Sequence[str]) -> "Figure":
    """Bits per byte of each domain's held-out text while the model learns."""
    figure, axes = new_figure(width=4.8, height=3.5)
    for number, domain in enumerate(domains):
        tokens, bits = curve(history, "tokens", f"validation/{domain}/bits_per_byte")
        if tokens:
            axes.plot(tokens, bits, color=COLORS[number % len(COLORS)], marker="o", markersize=3, linewidth=1.6,
                      label=domain)  # fmt: skip
    axes.legend(fontsize=9, frameon=False)
    _token_axis(axes)
    axes.set_ylabel("bits per byte")
    return figure


def _token_axis(axes: "Axes") -> None:
    axes.set_xlabel("million tokens seen")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")
    axes.set_xlim(0, None)
