"""The page of one pretrained model: how good it is, how it learned, what it writes, and what it was made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maquette.artifacts.page import Fact, Page, Picture
from maquette.evaluation.baselines import ALL, NGRAM, UNIFORM, UNIGRAM, BaselineScore
from maquette.evaluation.training_runs import run_figures
from maquette.tracking.listing import short
from maquette.training.callbacks.progress import duration
from maquette.training.record import RunRecord

SPLIT_EXAMPLES = ("spelt right", "misspelt", "number", "neighbours", "code, four spaces", "Thai")
"""Of the tokenizer's report, the texts whose tokens are shown."""


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

    def baseline_bits(self, baseline: str, domain: str) -> float:
        """Bits per byte of a baseline on a domain."""
        return next(s.bits_per_byte for s in self.scores if (s.baseline, s.domain) == (baseline, domain))


def build_page(report: RunReport) -> Page:
    """The whole page."""
    record = report.record
    page = Page(
        f"A language model of {short(record.spec.size)} parameters",
        eyebrow="Maquette demo",
        lead=f"Trained from random numbers in {duration(record.seconds)} ({record.hardware}), on "
        f"{short(record.spec.tokens)} tokens of {_origin(report.corpus)}.",
        footer=f"Run `{record.name}`, seed {record.spec.seed}, finished {record.finished}. "
        "All numbers are from its folder.",
    )
    add_model(page, report)
    return page


def add_model(page: Page, report: RunReport) -> None:
    """All sections on the model: results, learning, samples, text, tokens, and where to look."""
    add_results(page, report)
    add_learning(page, report)
    add_samples(page, report)
    add_corpus(page, report)
    add_tokenizer(page, report)
    add_places(page, report)


def add_results(page: Page, report: RunReport) -> None:
    """The numbers at a glance, and the comparison with the baselines."""
    record, bits = report.record, report.model_bits
    page.section("What came out")
    page.facts(
        [
            Fact("Parameters, N", short(record.spec.size), "core and head"),
            Fact("Tokens, D", short(record.spec.tokens), f"{record.spec.tokens / record.spec.size:.0f} a parameter"),
            Fact("Compute, C", f"{record.spec.compute:.2e}".replace("e+", "e"), "FLOPs, forward and backward"),
            Fact("Loss", f"{record.validation_loss:.3f}", "nats per held-out token"),
            Fact("Bits per byte", f"{bits[ALL]:.2f}", f"a 5-gram model needs {report.baseline_bits(NGRAM, ALL):.2f}"),
            Fact("Tokens a second", f"{record.tokens_per_second or 0:,.0f}", f"{record.mfu or 0:.0%} of matmul peak"),
        ]
    )  # fmt: skip
    page.text(verdict(report))
    page.pictures(
        Picture(
            run_figures.bits_figure(report.scores, bits),
            "Bits that each model needs for a byte of text it has never seen; a byte stored as it is takes 8. All were "
            "made from the same training tokens and are judged on the same held-out ones.",
            "Bars of bits per byte of uniform bytes, unigram, 5-gram and this model, by domain",
        )
    )
    page.table(
        ["bits per byte", UNIFORM, UNIGRAM, NGRAM, "this model", "perplexity of a token"],
        [
            [
                "all text" if domain == ALL else domain,
                *(_fixed(report.baseline_bits(name, domain)) for name in (UNIFORM, UNIGRAM, NGRAM)),
                _fixed(value),
                (_perplexity(record, domain), f"{_perplexity(record, domain):.1f}"),
            ]
            for domain, value in bits.items()
        ],
        caption="“All text” weighs the domains as training did. The best of each row is marked.",
        best="min",
        compared=[UNIFORM, UNIGRAM, NGRAM, "this model"],
    )


def verdict(report: RunReport) -> str:
    """How the model stands against the 5-gram model, in a sentence or two."""
    bits = report.model_bits
    gains = {domain: 1 - bits[domain] / report.baseline_bits(NGRAM, domain) for domain in bits}
    domains = {domain: gain for domain, gain in gains.items() if domain != ALL}
    lost = [domain for domain, gain in domains.items() if gain <= 0]
    known = (
        "The strongest baseline is a **Kneser-Ney 5-gram model**, which has counted every run of up to five tokens in "
        "the same text."
    )
    if gains[ALL] <= 0:
        return f"{known} Over all text the model still needs {-gains[ALL]:.0%} more bits than it: give it more compute."
    best = max(domains, key=domains.__getitem__)
    where = f" It is behind in {', '.join(lost)}." if lost else " It is ahead in every domain."
    return (
        f"{known} The model needs **{gains[ALL]:.0%} fewer bits** than it over all text, and {gains[best]:.0%} fewer "
        f"in `{best}`.{where}"
    )


def add_learning(page: Page, report: RunReport) -> None:
    """Curves of the loss."""
    record = report.record
    page.section("How it learned")
    passes = max((values.get("epochs", 0.0) for values in record.domains.values()), default=0.0)
    page.text(
        f"{record.spec.steps:,} steps of {record.spec.batch_size_tokens:,} tokens. The learning rate rose to "
        f"{record.spec.learning_rate:.2g} over the first {record.spec.warmup:.0%} and fell from there to the end. "
        + ("No text was seen twice." if passes <= 1 else f"Some text was seen up to {passes:.1f} times.")
    )
    page.pictures(
        Picture(
            run_figures.loss_figure(report.history, report.scores),
            "Loss on training text (mean of each interval) and on held-out text. Dashed: what the baselines reach.",
        ),
        Picture(
            run_figures.domains_figure(report.history, list(record.domains)),
            "Bits per byte of each domain’s held-out text while the model learns; the last point reads more text.",
        ),
    )


def add_samples(page: Page, report: RunReport) -> None:
    """What the model wrote at the first, a middle and the last validation, prompt by prompt."""
    rows = [row["samples"] for row in report.history if row.get("samples")]
    if not rows:
        return
    page.section("What it writes")
    page.text(
        "The same prompts, continued during training with the same random seed. A model of this size learns how text "
        "looks long before what it means."
    )
    stages = [rows[0], rows[len(rows) // 2], rows[-1]] if len(rows) > 2 else rows[-1:]
    for index, last in enumerate(rows[-1]):
        page.heading(f"`{last['prompt'].strip()} …`" if last["prompt"].strip() else "Without a prompt")
        page.samples(
            [
                (sample["prompt"], sample["text"], f"after {sample['step'] / report.record.spec.steps:.0%} of training")
                for sample in (samples[index] for samples in stages)
            ]
        )


def add_corpus(page: Page, report: RunReport) -> None:
    """Where the text is from, how much of it was kept, and how much it repeats."""
    facts, weights = report.corpus, report.weights
    repetition = facts["repetition"]
    total = sum(split["bytes"] for domain in facts["domains"].values() for split in domain.values())
    page.section("Its text")
    page.text(
        f"{total / 1e6:.1f} MB of {_origin(facts)}, in {len(facts['domains'])} domains. A model that copies looks "
        "better than it is on text that repeats itself, so duplicate and near-duplicate paragraphs were dropped, and "
        f"held-out text shares no run of {repetition['window']} words or marks with training text."
    )
    page.pictures(
        Picture(
            run_figures.corpus_figure(facts),
            f"Left: text read and kept. Right: stretches of {repetition['frame']} words or marks that repeat a run of "
            f"{repetition['window']} seen before, in all text that was read and in what was kept.",
        )
    )
    splits = ("train", "validation", "test")
    page.table(
        ["domain", "documents", *(f"{split}, MB" for split in splits), "share of training", "epochs"],
        [
            [
                name,
                sum(split["documents"] for split in sizes.values()),
                *(_fixed(sizes[split]["bytes"] / 1e6) for split in splits),
                (weights.get(name, 0.0), f"{weights.get(name, 0.0):.1%}"),
                _fixed(report.record.domains.get(name, {}).get("epochs", 0.0)),
            ]
            for name, sizes in facts["domains"].items()
        ],
        caption="An epoch is one pass over a domain’s training text.",
    )


def add_tokenizer(page: Page, report: RunReport) -> None:
    """How texts are cut, and what another vocabulary would do."""
    facts = report.tokenizer
    page.section("Its tokens")
    page.text(
        f"{facts['vocabulary']:,} tokens, learned from the training text; one stands for "
        f"{facts['bytes_per_token']:.2f} bytes on average. Any text, in any script, comes back exactly as it was."
    )
    page.pieces([(name, facts["splits"][name]) for name in SPLIT_EXAMPLES if name in facts["splits"]])
    if len(facts["sweep"]) > 1:
        page.pictures(
            Picture(
                run_figures.vocabulary_figure(facts["sweep"], facts["vocabulary"]),
                "A larger vocabulary makes text shorter, which saves steps and attention. But its two matrices grow "
                "with it, and in a small model they soon are most of the parameters.",
                "Tokens for 1,000 bytes of each domain, fewer as the vocabulary grows",
            )
        )


def add_places(page: Page, report: RunReport) -> None:
    """Where everything lies, and what to type next."""
    page.section("Where to look")
    page.table(["what", "where"], [[name, f"`{place}`"] for name, place in report.places.items()])
    for why, command in report.commands.items():
        page.text(why)
        page.code(command)


def _origin(corpus: Mapping[str, Any]) -> str:
    if corpus.get("source", {}).get("kind") == "installed":
        return "text that was on this machine already: the documentation, code and licences of installed packages"
    return "your own text"


def _perplexity(record: RunRecord, domain: str) -> float:
    return math.exp(record.validation_loss or math.nan) if domain == ALL else record.domains[domain]["perplexity"]


def _fixed(value: float) -> tuple[float, str]:
    """A cell with two digits after the point."""
    return value, f"{value:.2f}"
