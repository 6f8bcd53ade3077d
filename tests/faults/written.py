"""The files that the program writes and reads again: a changed byte of any of them must be noticed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.faults.fuzz import Format

from maquette.artifacts.manifest import build
from maquette.artifacts.reading import load_arrays, load_sealed, write_sealed
from maquette.corpus.curation.journal import read_journal, write_journal
from maquette.corpus.curation.shards import store
from maquette.corpus.document import SPLITS, Document, read_file, write_documents
from maquette.data import TokenShards, encode_corpus
from maquette.data.config import ShardsConfig
from maquette.data.conversations import ExampleFiles, Preference, write_preferences
from maquette.data.example_data import PreferenceData
from maquette.data.examples import encode_preferences
from maquette.evaluation.completions import sampled_completions
from maquette.evaluation.suite import find_held_out
from maquette.feedback.annotators.language_model import AnswerCache
from maquette.feedback.config import PromptsConfig
from maquette.feedback.study.measurement import Measurement, PolicyResult, read_measurement
from maquette.statistics import IntervalEstimate
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

_WORDS = ["the hen sees a door", "a clock stands in the river", "def main(): return 1", "Zażółć gęślą jaźń"]
_QUESTION = [{"role": "user", "content": "What is a hen?"}]
_PREFERENCES = [
    Preference(_QUESTION, *([{"role": "assistant", "content": text}] for text in ("A bird.", f"A fish {number}.")))
    for number in range(40)
]


def _built(kind: str, root: Path, make: Callable[[Path], Any]) -> Path:
    return build(kind, root, name="one", label="one", config={}, inputs={}, make=lambda place: make(place) or {},
                 say=lambda _: None)  # fmt: skip


def _corpus(place: Path) -> None:
    for split in SPLITS:
        write_documents(place / f"{split}.parquet", [Document(split + text, text, domain="web") for text in _WORDS])


def _tokens(folder: Path) -> Path:
    corpus, tokenizer = folder / "corpus", train_tokenizer([], TokenizerConfig(kind="byte"))
    corpus.mkdir()
    _corpus(corpus)
    made = _built("tokens", folder, lambda to: encode_corpus(corpus, tokenizer, ShardsConfig(), to, name="byte"))
    return made / "web" / "train-00000.npy"


def _read_tokens(file: Path) -> Any:
    shards = TokenShards(file.parents[1])
    stream = shards.stream("web")
    return stream.read(0, len(stream)).tolist(), vars(shards.documents("web"))


def _examples(folder: Path) -> Path:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    made = _built("examples", folder, lambda to: encode_preferences(
        _PREFERENCES, tokenizer, to, longest=99, validation=0.1))  # fmt: skip
    return made / "train" / "tokens.npy"


def _read_examples(file: Path) -> Any:
    data = PreferenceData(
        file.parents[1], train_tokenizer([], TokenizerConfig(kind="byte")), batch_size=2, micro_batches=1, steps=1,
        seed=0, batch_size_tokens=99,
    )  # fmt: skip
    data.setup()
    return data.training.tokens.tolist()


def _completions(folder: Path) -> Path:
    write_sealed(folder / "answers.json", {"completions": {"one": ["a bird", "a fish"]}})
    return folder / "answers.json"


def _read_completions(file: Path) -> Any:
    sampled_completions({}, file, PromptsConfig(), count=1, max_completion_length=1, temperature=1.0, seed=0)
    return load_sealed(file)


def _study(folder: Path) -> Path:
    point = {"gold": IntervalEstimate(0.5, 0.4, 0.6)}
    policy = PolicyResult("sft", "sft", {}, 1e9, 1.0, 0.1, 3.0, 1.0, point, point, point, point, ["one two"])
    Measurement("sft", [policy], [], ["pick two"], 10).save(folder / "results.json")
    return folder / "results.json"


def _curated(folder: Path) -> Path:
    write_documents(folder / "00000.parquet", [Document(text, text, domain="web", meta={"n": 1}) for text in _WORDS])
    return folder / "00000.parquet"


def _journal(folder: Path) -> Path:
    write_journal(folder / "journal.parquet", [{"id": text, "reason": "", "characters": 3} for text in _WORDS])
    return folder / "journal.parquet"


def _numbers(folder: Path) -> Path:
    np.savez(folder / "00000.npz", bands=np.arange(40, dtype=np.uint64), urls=np.ones(3))
    return folder / "00000.npz"


def _stored(folder: Path) -> Path:
    store([Document(text, text) for text in _WORDS], folder)
    return folder / "shards.json"


def _tokenizer(folder: Path) -> Path:
    made = _built("tokenizer", folder, train_tokenizer(_WORDS * 20, TokenizerConfig(vocab_size=300)).save)
    return made / "tokenizer.json"


def _held_out(folder: Path) -> Path:
    return _built("corpus", folder / "artifacts", _corpus) / "test.parquet"


def _annotation(folder: Path) -> Path:
    made = _built("annotation", folder, lambda to: dict(n=write_preferences(to / "rows.jsonl", _PREFERENCES[:3])))
    return made / "rows.jsonl"


def _replies(folder: Path) -> Path:
    cache = AnswerCache(folder / "judged.sqlite")
    cache.put("which?", {"text": "the first one, by far", "asked": 12})
    cache.close()
    return folder / "judged.sqlite"


def _read_replies(file: Path) -> Any:
    cache = AnswerCache(file)
    try:
        return cache.get("which?") or {"text": "the first one, by far", "asked": 12}  # not known: it is asked again
    finally:
        cache.close()


WRITTEN = (
    Format("tokens", _tokens, _read_tokens, sealed=True),
    Format("documents of tokens", lambda folder: _tokens(folder).with_name("train.documents.parquet"), _read_tokens,
           sealed=True),
    Format("examples", _examples, _read_examples, sealed=True),
    Format("held-out documents", _held_out, lambda file: find_held_out(str(file.parent), "", file).documents(),
           sealed=True),
    Format("tokenizer of an artifact", _tokenizer, lambda file: Tokenizer.load(file.parent).encode("the hen"),
           sealed=True),
    Format("annotation", _annotation, lambda file: list(ExampleFiles(file, "preferences").examples()), sealed=True),
    Format("completions", _completions, _read_completions, sealed=True),
    Format("replies of judges", _replies, _read_replies, sealed=True),
    Format("study", _study, read_measurement, sealed=True),
    Format("curation's documents", _curated, lambda file: list(read_file(file)), sealed=True),
    Format("curation's journal", _journal, lambda file: read_journal(file)[["id", "characters"]].to_dict(),
           sealed=True),
    Format("curation's numbers", _numbers,
           lambda file: {key: value.tolist() for key, value in load_arrays(file).items()}, sealed=True),
    Format("curation's shards", _stored, lambda file: [one.size for one in store([], file.parent)], sealed=True),
)  # fmt: skip
