"""The tokenizer report: what a tokenizer makes of held-out text, as a page, as facts and as figures.

Four questions: how long do sequences become in each domain; is the vocabulary used; what would a smaller or larger
one cost; how are the known trouble-makers (numbers, indentation, misspelt words, rare scripts) split?
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import load_table
from maquette.reports import render
from maquette.reports.overview import PAGE
from maquette.reports.pages import is_current
from maquette.text.config import TokenizerConfig
from maquette.text.measure import Fit, fit, number_splits, pieces, together, visible
from maquette.text.tokenizer import Tokenizer
from maquette.text.training import spread_sample, train_tokenizer, training_sample

MEASURED_BYTES = 2_000_000
"""At most so much of each domain's held-out text is measured, spread evenly."""

SWEEP_BYTES = 1_000_000
"""The vocabularies of the sweep are trained on so much of the training text, and measured on so much held-out text."""

_LONGEST = 20  # tokens that are shown

EXAMPLES = {
    "number": "327",
    "neighbours": "326 327 328",
    "long number": "1234567.89",
    "sum": "327 + 58 = 385",
    "date": "2024-11-05",
    "spelt right": "the definition of a separate tokenizer",
    "misspelt": "teh defintion of a seperate tokeniser",
    "code, four spaces": "def f(x):\n    if x > 0:\n        return x\n",
    "code, tabs": "if x:\n\treturn x\n",
    "Thai": "ภาษาไทยไม่เว้นวรรค",
    "emoji": "👩🏽‍🚀 🎉",
    "control characters": "\x1b[0m\x00",
    "a special token's text": "<|document|>",
}


def train_and_report(
    folder: Path,
    config: TokenizerConfig,
    texts: Iterable[str],
    held_out: Mapping[str, Iterable[str]],
    measured_on: str,
) -> dict[str, Any]:
    """Trains the tokenizer on `texts` into `folder`, with its report (see `write_report`); returns the facts."""
    sample = training_sample(texts, config)
    tokenizer = train_tokenizer(sample, config)
    tokenizer.save(folder)
    if tokenizer.vocab_size < config.vocab_size and config.kind != "byte":
        say(f"The text fills {tokenizer.vocab_size:,} of {config.vocab_size:,} tokens.")
    facts = write_report(folder, tokenizer, config, sample, held_out, measured_on)
    say(f"tokenizer: {facts['vocabulary']:,} tokens, {facts['bytes_per_token']:.2f} bytes a token")
    return {"kind": config.kind, "measured_on": measured_on, **facts}


def write_report(
    folder: Path | str,
    tokenizer: Tokenizer,
    config: TokenizerConfig,
    training: Iterable[str],
    held_out: Mapping[str, Iterable[str]],
    measured_on: str = "validation",
) -> dict[str, Any]:
    """Writes report.md, report.json and figures/ into `folder`; returns the facts for its manifest.

    `training`, or a sample of it, is for the sweep of vocabulary sizes, `held_out` (domain -> texts) for everything
    else; `measured_on` is what the report calls the latter. Domains without text are left out.
    """
    from maquette.text import report_figures

    folder = Path(folder)
    samples = {domain: spread_sample(texts, MEASURED_BYTES) for domain, texts in held_out.items()}
    samples = {domain: sample for domain, sample in sorted(samples.items()) if sample}
    size = sum(len(text.encode()) for sample in samples.values() for text in sample)
    with progress("Measuring the tokenizer", size, unit="bytes") as advance:
        fits = {domain: fit(tokenizer, sample, advance) for domain, sample in samples.items()}
    points = sweep(config, training, samples)
    numbers = {digits: number_splits(tokenizer, digits) for digits in range(1, 5)}
    splits = {name: pieces(tokenizer, text) for name, text in EXAMPLES.items()}

    figures = folder / "figures"
    report_figures.compression(fits, figures / "compression")
    use = report_figures.use_facts(fits, _learned(tokenizer))
    report_figures.save_figure(report_figures.vocabulary_use(use), figures / "vocabulary_use")
    if len(points) > 1:
        drawn = report_figures.vocabulary_sizes(points, tokenizer.vocab_size)
        report_figures.save_figure(drawn, figures / "vocabulary_sizes")
    report_figures.splits(splits, figures / "splits")

    facts = _facts(tokenizer, fits)
    longest = np.argsort(-tokenizer.byte_lengths(), kind="stable").tolist()
    words = (token for id in longest if (token := tokenizer.token_bytes(id)).strip())  # not those of spaces alone
    details = {
        "measured_on": measured_on, "sweep": points, "numbers": numbers, "splits": splits, "use": use,
        "longest_tokens": [visible(word) for word in itertools.islice(words, _LONGEST)],
    }  # fmt: skip
    write_json(folder / "report.json", facts | details)
    shown = {**facts, **details, "sweep_megabytes": SWEEP_BYTES / 1e6}
    write_text(folder / "report.md", render("tokenizer.md.j2", shown))
    return facts


def write_tokenizer_page(folder: Path, *, force: bool = False) -> None:
    """Writes a tokenizer's index.html from its report.json and figures, unless it is there already."""
    from maquette.text.report_figures import vocabulary_sizes, vocabulary_use

    report = folder / "report.json"
    if report.exists() and (force or not is_current(folder / PAGE, [report])):
        content = load_table(report)
        several = len(content["sweep"]) > 1
        figures = {"sizes": vocabulary_sizes(content["sweep"], content["vocabulary"])} if several else {}
        if "use" in content:  # not in reports of earlier versions
            figures["use"] = vocabulary_use(content["use"])
        shown = {**content, "sweep_megabytes": SWEEP_BYTES / 1e6}
        write_text(folder / PAGE, render("tokenizer.html.j2", {**shown, "figures": figures}))


def sweep(
    config: TokenizerConfig, training: Iterable[str], samples: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Trains the same kind of tokenizer with smaller and larger vocabularies; the first point is plain bytes.

    A point is its `vocabulary` and `tokens_per_kilobyte`: tokens for 1,000 bytes of held-out text, of all and by
    `domains`. All are trained on one sample of the training text and measured on the same held-out text, so they
    compare; a size that the sample does not fill is left out.
    """
    share = {domain: spread_sample(sample, SWEEP_BYTES // len(samples)) for domain, sample in samples.items()}
    configs = [dataclasses.replace(config, kind="byte")]
    if config.kind != "byte":
        sizes = [round(config.vocab_size * factor) for factor in (0.25, 0.5, 1, 2, 4)]
        configs += [dataclasses.replace(config, vocab_size=size) for size in sizes if size >= 280]
    sample = spread_sample(training, SWEEP_BYTES)
    points: list[dict[str, Any]] = []
    with progress("Training vocabularies to compare", len(configs), unit="vocabularies") as advance:
        for each in configs:
            tokenizer = train_tokenizer(sample, each, show_progress=False)
            if not points or tokenizer.vocab_size > points[-1]["vocabulary"]:
                fits = {domain: fit(tokenizer, texts) for domain, texts in share.items()}
                rates = {domain: part.tokens_per_kilobyte for domain, part in fits.items()}
                whole = together(fits).tokens_per_kilobyte
                points.append({"vocabulary": tokenizer.vocab_size, "tokens_per_kilobyte": whole, "domains": rates})
            advance(1)
    return points


def _facts(tokenizer: Tokenizer, fits: Mapping[str, Fit]) -> dict[str, Any]:
    """What the manifest and other pages want to know."""
    learned = _learned(tokenizer)
    return {
        "digest": tokenizer.digest,
        "vocabulary": tokenizer.vocab_size,
        **together(fits).rates(learned),
        "domains": {
            domain: {name: getattr(part, name) for name in ("bytes", "tokens", "tokens_per_kilobyte")}
            | part.rates(learned)
            for domain, part in fits.items()
        },
    }


def _learned(tokenizer: Tokenizer) -> int:
    """Tokens that text can use: all but the special ones."""
    return int(np.count_nonzero(tokenizer.byte_lengths()))
