"""Settings of a corpus: where documents come from, what is dropped, how they are split; and of curation.

Every rule of curation is a named threshold; `null` turns a single threshold off.
"""

import re
from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting


@dataclass
class SourceConfig:
    kind: str = setting(
        "installed",
        "where documents come from",
        choices=("installed", "jsonl", "parquet", "text", "huggingface", "warc", "synthetic_web"),
    )
    path: str | None = setting(
        None, "folder or file with the documents; for huggingface the data set's name or folder", first=True
    )
    text_field: str = setting("text", "field that holds the text")
    domain_field: str | None = setting("domain", "field that holds the domain, where rows have one")
    domain: str = setting("web", "domain of documents that name none")
    license_field: str | None = setting(None, "field that holds the licence of a document (SPDX), where rows have one")
    subset: str | None = setting(None, "huggingface: the data set's configuration")
    split: str = setting("train", "huggingface: the data set's split")
    limit: int | None = setting(
        None,
        "read at most so many documents; installed: of all packages alike; synthetic_web: good pages to make",
        minimum=1,
    )
    extractor: str = setting(
        "resiliparse", "warc: what finds the main text of a page", choices=("resiliparse", "trafilatura")
    )
    max_page_bytes: int = setting(2_000_000, "warc: larger pages are left out", minimum=1000)

    @property
    def is_crawl(self) -> bool:
        """Whether the documents are web pages as a crawler found them."""
        return self.kind in ("warc", "synthetic_web")

    def validate(self) -> None:
        """Raises `ConfigError` where the source needs a path and has none."""
        if self.kind not in ("installed", "synthetic_web") and not self.path:
            raise ConfigError(f"source.path is needed with source={self.kind}.", "Give it as source.path=<folder>.")


@dataclass
class CorpusConfig:
    deduplicate: bool = setting(True, "drop documents, paragraphs and runs of words that stand earlier")
    name: str | None = setting(None, "name of the artifact; by default the source and a digest")
    near_duplicates: float = setting(
        0.8,
        "paragraphs whose estimated Jaccard similarity is at least this are kept once; 1 keeps all",
        minimum=0.3,
        maximum=1,
    )
    window: int = setting(
        24, "longest run of words that training text may repeat or share with held-out text", minimum=8
    )
    validation: float = setting(0.03, "share of each domain held out for validation", minimum=0.0, maximum=0.4)
    test: float = setting(0.03, "share of each domain held out for test", minimum=0.0, maximum=0.4)
    held_out_characters: int = setting(
        60_000, "of small domains more is held out: so much for each split, or a tenth of the domain", minimum=0
    )
    minimum_characters: int = setting(80, "shorter documents are dropped", minimum=1)
    licenses: list[str] = setting(
        list,
        "keep text under these licences alone: permissive, weak_copyleft, copyleft, unknown, or SPDX identifiers such "
        "as MIT; by default all",
    )
    validation_source: str | None = setting(
        None,
        "JSONL or Parquet file whose documents take the place of an own validation split, so that several corpora are "
        "validated on one text; clean: with source=synthetic_web, texts that stand on none of its pages",
    )
    workers: int | None = setting(None, "processes that read and clean; by default the number of cores", minimum=1)


@dataclass
class UrlConfig:
    block_lists: list[str] = setting(
        list, "files of hosts, domains and paths to leave out, beside the list that ships; or folders of such files"
    )
    shipped_list: bool = setting(True, "use the list that ships")


@dataclass
class LanguageConfig:
    keep: list[str] = setting(lambda: ["en"], "languages (ISO 639-1) to keep; empty: all")
    confidence: float = setting(0.65, "and with at least this probability", minimum=0.0, maximum=1.0)


@dataclass
class GopherConfig:
    """Rae et al. 2021, table A1 and section A.1.1; words are split on white space."""

    min_words: int | None = setting(50, "words at least", minimum=0)
    max_words: int | None = setting(100_000, "words at most", minimum=1)
    min_word_length: float | None = setting(3.0, "mean word length at least", minimum=0.0)
    max_word_length: float | None = setting(10.0, "mean word length at most", minimum=0.0)
    symbols: float | None = setting(0.1, "hash signs or ellipses per word at most", minimum=0.0)
    bullet_lines: float | None = setting(0.9, "share of lines that begin with a bullet at most", minimum=0.0)
    ellipsis_lines: float | None = setting(0.3, "share of lines that end with an ellipsis at most", minimum=0.0)
    alphabetic_words: float | None = setting(0.8, "share of words with a letter at least", minimum=0.0, maximum=1.0)
    stop_words: int | None = setting(2, "of the, be, to, of, and, that, have, with: different ones at least", minimum=0)
    duplicate_lines: float | None = setting(0.30, "share of lines that stand earlier at most", minimum=0.0)
    duplicate_paragraphs: float | None = setting(0.30, "share of paragraphs that stand earlier at most", minimum=0.0)
    duplicate_line_characters: float | None = setting(0.20, "the same in characters", minimum=0.0)
    duplicate_paragraph_characters: float | None = setting(0.20, "the same in characters", minimum=0.0)
    top_2_gram: float | None = setting(0.20, "share of characters in the commonest 2-gram at most", minimum=0.0)
    top_3_gram: float | None = setting(0.18, "share of characters in the commonest 3-gram at most", minimum=0.0)
    top_4_gram: float | None = setting(0.16, "share of characters in the commonest 4-gram at most", minimum=0.0)
    duplicate_5_grams: float | None = setting(0.15, "share of characters in 5-grams that stand earlier", minimum=0.0)
    duplicate_6_grams: float | None = setting(0.14, "of 6-grams", minimum=0.0)
    duplicate_7_grams: float | None = setting(0.13, "of 7-grams", minimum=0.0)
    duplicate_8_grams: float | None = setting(0.12, "of 8-grams", minimum=0.0)
    duplicate_9_grams: float | None = setting(0.11, "of 9-grams", minimum=0.0)
    duplicate_10_grams: float | None = setting(0.10, "of 10-grams", minimum=0.0)


@dataclass
class C4Config:
    """Raffel et al. 2020, section 2.2. The rules on lines work on prose; code and tables need them off."""

    min_sentences: int | None = setting(3, "lines that end like a sentence, or sentences, at least", minimum=0)
    placeholder_text: bool = setting(True, "drop pages with lorem ipsum")
    script_lines: bool = setting(True, "take out lines that ask for JavaScript or cookies, or name the terms of use")
    curly_brackets: bool = setting(False, "drop pages with a curly bracket (as published: loses all code)")
    punctuated_lines_only: bool = setting(False, "keep only lines that end in a mark (as published: loses code, lists)")


@dataclass
class FineWebConfig:
    """Penedo et al. 2024, section 3.6."""

    punctuated_lines: float | None = setting(0.12, "share of lines that end in a mark at least", minimum=0.0)
    duplicate_line_characters: float | None = setting(
        0.1, "share of characters in lines that stand earlier at most", minimum=0.0
    )
    short_lines: float | None = setting(0.67, "share of lines under 30 characters at most", minimum=0.0)


@dataclass
class OutlierConfig:
    """Against the corpus's own statistics: how far from the median, in robust standard deviations (1.4826 MAD)."""

    word_length: float | None = setting(6.0, "of the mean word length", minimum=1.0)
    token_surprise: float | None = setting(
        6.0, "of the nats per token under the corpus's own unigram distribution", minimum=1.0
    )
    soft_404: bool = setting(True, "drop short pages that say they were not found")


@dataclass
class BoilerplateLinesConfig:
    pages: int | None = setting(4, "take out lines that stand on so many pages of a host", minimum=2)
    share: float = setting(0.2, "and on at least this share of its pages", minimum=0.0, maximum=1.0)


@dataclass
class PiiConfig:
    replace: bool = setting(True, "replace e-mail, phone, IP, card numbers, keys and tokens by placeholders")


@dataclass
class SafetyConfig:
    action: str = setting("drop", "what to do with unsafe pages", choices=("drop", "tag", "off"))
    words: float | None = setting(0.02, "share of words that stand on the word list, from which on", minimum=0.0)
    classifier: float | None = setting(
        0.9, "probability from which on; learned from the pages that block lists name", minimum=0.0, maximum=1.0
    )


@dataclass
class QualityConfig:
    examples: str | None = setting(
        None, "JSONL or Parquet file (or folder) of reference-like documents; by default the pages that `cited_by` cite"
    )
    cited_by: list[str] = setting(
        lambda: ["wikipedia.org", "britannica.com", "encyclopaedia.example"],
        "domains whose links point to reference-like pages",
    )
    threshold: float | None = setting(None, "drop pages whose score is below this", minimum=0.0, maximum=1.0)
    sample: float | None = setting(
        None,
        "keep a page with score s with a chance that falls like a Pareto law of this shape (GPT-3: 9)",
        minimum=0.1,
    )
    high: float = setting(0.8, "pages from this quantile of the scores on form the high-quality subset", minimum=0.0)


@dataclass
class DomainsConfig:
    examples: str | None = setting(None, "JSONL or Parquet file with documents that name their domain")
    confidence: float = setting(0.0, "below this probability a page stays in source.domain", minimum=0.0, maximum=1.0)


@dataclass
class NearDuplicatesConfig:
    """MinHash with locality-sensitive hashing, as FineWeb sets it: similarity s is found with 1 - (1 - s^8)^14."""

    bands: int = setting(14, "bands; 0 turns the search off", minimum=0)
    rows: int = setting(8, "hashes in a band", minimum=1)
    shingle: int = setting(5, "tokens in a shingle", minimum=1)


@dataclass
class CurationConfig:
    enabled: bool | None = setting(None, "curate; by default where pages come from a crawl")
    label: str = setting("web", "what this choice is called where several are compared")
    url: UrlConfig = setting(UrlConfig, "addresses")
    language: LanguageConfig = setting(LanguageConfig, "language")
    boilerplate_lines: BoilerplateLinesConfig = setting(BoilerplateLinesConfig, "headers, footers and menus")
    gopher: GopherConfig = setting(GopherConfig, "Gopher's rules")
    c4: C4Config = setting(C4Config, "C4's rules")
    fineweb: FineWebConfig = setting(FineWebConfig, "FineWeb's rules")
    outliers: OutlierConfig = setting(OutlierConfig, "outliers")
    pii: PiiConfig = setting(PiiConfig, "personal data (PII)")
    safety: SafetyConfig = setting(SafetyConfig, "unsafe content")
    quality: QualityConfig = setting(QualityConfig, "quality model")
    domains: DomainsConfig = setting(DomainsConfig, "domain labels")
    near_duplicates: NearDuplicatesConfig = setting(NearDuplicatesConfig, "documents that are almost the same")


@dataclass
class ExecutorConfig:
    """Where the passes over shards run. The documents kept are the same everywhere."""

    kind: str = setting(
        "local",
        "local: processes of this machine; datatrove: the same as datatrove pipelines; slurm: those on a cluster",
        choices=("local", "datatrove", "slurm"),
    )
    seconds_per_page: float = setting(
        5.0,
        "a page that takes more of a core's time is passed over, by ending the process that parses it",
        minimum=0.1,
    )
    near_duplicates: str = setting(
        "memory",
        "where near-duplicates are found; disk: by datatrove's MinHash buckets, for more documents than memory "
        "has room for (about 205 bytes each)",
        choices=("memory", "disk"),
    )
    partition: str | None = setting(None, "slurm: partition; outputs must lie on a file system that its machines see")
    time: str = setting("08:00:00", "slurm: time limit of a task, which is one shard")
    memory_gb: int = setting(4, "slurm: memory of a task in GB", minimum=1)
    workers: int | None = setting(None, "slurm: tasks at once at most; by default as many as there is room for",
                                  minimum=1)  # fmt: skip
    qos: str | None = setting(None, "slurm: quality of service")
    max_array_size: int = setting(
        1001, "slurm: tasks in one job array at most (MaxArraySize of the cluster)", minimum=1
    )
    setup: str | None = setting(None, "slurm: shell command before a task; by default it uses this Python")
    sbatch: dict[str, str] = setting(dict, "slurm: further options of sbatch, such as {account: nlp}")

    def validate(self) -> None:
        """Raises `ConfigError` for a time that Slurm does not take."""
        if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", self.time, re.ASCII):
            raise ConfigError(f"executor.time={self.time} is not a time.", "Write it like 08:00:00 or 2-12:00:00.")
