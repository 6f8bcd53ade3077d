"""Settings of a corpus: where documents come from, what is dropped, how they are split."""

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
    validation_source: str | None = setting(
        None,
        "JSONL or Parquet file whose documents take the place of an own validation split, so that several corpora are "
        "validated on one text; clean: with source=synthetic_web, texts that stand on none of its pages",
    )
    workers: int | None = setting(None, "processes that read and clean; by default the number of cores", minimum=1)
