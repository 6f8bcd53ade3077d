"""Training tokenizers of four kinds on a stream of text. The same text and settings give the same tokenizer.

All write any string exactly: `bpe` (byte-pair encoding, Sennrich et al. 2016) and `unigram` (the likeliest pieces,
Kudo 2018) work on bytes; `char` writes characters it does not have as bytes; `byte` has the 256 bytes and no more.

A pre-tokenizer (`pattern`) cuts text into pieces before merging; a token never reaches over a cut. The patterns are for
Oniguruma, the engine of `tokenizers`: `++` and `*+` are possessive (no backtracking, so that a megabyte of spaces stays
linear). Each cuts any string into pieces without losing a character, and each cuts `<|document|>` at least into `<|`,
`document` and `|>`: no learned token can be a special token's text.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from maquette.artifacts import StageError
from maquette.artifacts.progress import console, progress
from maquette.text.config import TokenizerConfig
from maquette.text.special import DOCUMENT, SPECIAL_TOKENS
from maquette.text.token_bytes import byte_alphabet
from maquette.text.tokenizer import Tokenizer


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig, *, show_progress: bool = True) -> Tokenizer:
    """Trains a tokenizer on texts, of which at most `config.training_bytes` are kept, spread evenly over all.
    `show_progress`: whether the trainer draws bars of its own at a terminal; false where another bar is shown.

    The vocabulary is smaller than asked for where the text does not have so many pieces (pairs seen once are not
    merged). Raises `StageError` where there is no text.
    """
    if config.kind == "byte":
        return _byte_tokenizer()
    sample = training_sample(texts, config)
    if not sample:
        raise StageError("There is no text to train a tokenizer on.", "Check what the corpus stage has kept.")
    train = {"bpe": _train_bpe, "unigram": _train_unigram, "char": _train_char}[config.kind]
    return train(sample, config, show_progress and console.is_terminal)


def training_sample(texts: Iterable[str], config: TokenizerConfig) -> list[str]:
    """What `train_tokenizer` trains on: text it may be given in place of the whole, with the same result."""
    if config.kind == "byte":
        return []
    with progress("Reading text for the tokenizer", None, unit="bytes") as advance:
        return spread_sample(texts, config.training_bytes, advance)


def _train_bpe(sample: list[str], config: TokenizerConfig, show_progress: bool) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = _byte_level(config)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=show_progress,
    )
    backend.train_from_iterator(sample, trainer, length=len(sample))
    return _finish(backend.model, _byte_level(config), decoders.ByteLevel())


def _train_unigram(sample: list[str], config: TokenizerConfig, show_progress: bool) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = _byte_level(config)
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=show_progress,
    )
    backend.train_from_iterator(sample, trainer, length=len(sample))
    pieces = _canonical(json.loads(backend.to_str())["model"]["vocab"])
    never = pieces[-1][1] - 100.0  # special tokens stand in the vocabulary but are never the likeliest piece of text
    model = models.Unigram([(token, never) for token in SPECIAL_TOKENS] + pieces, unk_id=None, byte_fallback=False)
    return _finish(model, _byte_level(config), decoders.ByteLevel())


def _canonical(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same pieces and scores (log-probabilities) however the trainer's hash tables happened to be ordered.

    `tokenizers` finds the same pieces each time, but sums their probabilities in a random order (last digits differ),
    and gives the bytes that are no piece of their own the lowest score plus 0.0001 for each, in a random order.
    """
    lowest = min(score for _, score in pieces)
    unlearned = lowest + 0.0001 * (len(byte_alphabet()) + 1)
    scores = {piece: round(lowest if len(piece) == 1 and score <= unlearned else score, 4) for piece, score in pieces}
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))


def _train_char(sample: list[str], config: TokenizerConfig, show_progress: bool) -> Tokenizer:
    counts: Counter[str] = Counter()
    for text in sample:
        counts.update(text)
    tokens = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    commonest = sorted(counts, key=lambda character: (-counts[character], character))
    tokens += commonest[: config.vocab_size - len(tokens)]
    model = models.BPE({token: id for id, token in enumerate(tokens)}, [], byte_fallback=True)
    return _finish(model, None, decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]))


def _byte_tokenizer() -> Tokenizer:
    """Byte b has the id 16 + b."""
    characters = sorted(byte_alphabet().items(), key=lambda entry: entry[1])
    tokens = [*SPECIAL_TOKENS, *(character for character, _ in characters)]
    model = models.BPE({token: id for id, token in enumerate(tokens)}, [])
    return _finish(model, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel())


def _byte_level(config: TokenizerConfig) -> pre_tokenizers.PreTokenizer:
    cut = pre_tokenizers.Split(tokenizers.Regex(pattern(config.pretokenizer, config.digits)), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _finish(model: Any, pre_tokenizer: Any, decoder: Any) -> Tokenizer:
    """Puts the parts together, with the special tokens at the ids that their places in the vocabulary give them."""
    backend = tokenizers.Tokenizer(model)
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoder
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    # Whoever opens the tokenizer with transformers gets the document token before a text, as in training.
    backend.post_processor = processors.TemplateProcessing(
        single=f"{DOCUMENT} $A",
        pair=f"{DOCUMENT} $A {DOCUMENT}:1 $B:1",
        special_tokens=[(DOCUMENT, SPECIAL_TOKENS.index(DOCUMENT))],
    )
    return Tokenizer(json.loads(backend.to_str()))


# Letters with the marks that belong to them: without \p{M} Thai and Devanagari words are cut inside a syllable
# (GPT-4's pattern does that, GPT-4o's no longer).
_LETTER = r"\p{L}\p{M}"
_CONTRACTION = r"'(?i:[sdmt]|ll|ve|re)"
_WORD = rf"[^\r\n{_LETTER}\p{{N}}]?+[{_LETTER}]++"
_SIGNS = rf" ?[^\s{_LETTER}\p{{N}}]++[\r\n]*+"
_SPACES = r"\s+(?!\S)|\s+"  # the last space before a word goes with the word
_INDENTATION = r"(?:\A|(?<=[\r\n]))(?:(?: {4})++|\t++)"


def pattern(name: str, digits: int) -> str:
    """The regular expression of a pre-tokenizer; its matches are the pieces.

    `gpt4`: as GPT-4's (cl100k_base): words with the sign or space before them, contractions, signs with the line ends
    after them, digits in groups of at most `digits` from the left.
    `code`: the same, but at the beginning of a line a run of four-space units or of tabs is a piece of its own (so
    indentation and word never mix: GPT-4's cuts "    return" into three spaces and " return"), and lines that hold
    only spaces are not swallowed by the line end before them.
    `whitespace`: words as they stand between spaces, nothing else; `digits` has no effect.
    """
    numbers = rf"\p{{N}}{{1,{digits}}}"
    if name == "gpt4":
        return "|".join((_CONTRACTION, _WORD, numbers, _SIGNS, r"\s*[\r\n]+", _SPACES))
    if name == "code":
        return "|".join((_INDENTATION, _CONTRACTION, _WORD, numbers, _SIGNS, r"[^\S\r\n]*+[\r\n]++", _SPACES))
    if name == "whitespace":
        return "|".join((r"<\||\|>", r" ?(?:(?!<\||\|>)\S)++", _SPACES))
    raise ValueError(f"no pre-tokenizer is called {name!r}")


CHUNK_CHARACTERS = 8192


def spread_sample(texts: Iterable[str], limit_bytes: int, advance: Callable[[float], None] | None = None) -> list[str]:
    """Chunks of the texts, in their order, of at most `limit_bytes` in UTF-8 (one chunk at least where there is text).

    Where everything fits, everything is kept. Else every chunk has the same chance, so each domain has its share
    whatever the order of the documents; which ones are kept depends only on their places (the chunks with the
    lowest hashes of place), so the same texts give the same sample. Never holds more than the limit and one document.
    Calls `advance(bytes read)` after each text. Raises `StageError` for a text that has lone surrogates.
    """
    sample: list[tuple[int, int, bytes]] = []  # a heap: the highest priority, which goes first, is on top
    held = place = 0
    for number, text in enumerate(texts, start=1):
        read = 0
        for chunk in _chunks(text):
            try:
                data = chunk.encode()
            except UnicodeEncodeError as error:
                raise StageError(
                    f"Document {number:,} has a lone surrogate {error.object[error.start]!a}, which is not Unicode.",
                    'Clean the corpus: read such files with errors="replace".',
                ) from None
            read += len(data)
            held += len(data)
            heapq.heappush(sample, (-_priority(place), place, data))
            while held > limit_bytes and len(sample) > 1:
                held -= len(heapq.heappop(sample)[2])
            place += 1
        if advance is not None:
            advance(read)
    return [data.decode() for _, _, data in sorted(sample, key=lambda entry: entry[1])]


def _chunks(text: str) -> Iterator[str]:
    """Cuts a long text, behind a line end where one is near, so that hardly a word is cut."""
    start = 0
    while start < len(text):
        end = start + CHUNK_CHARACTERS
        if end < len(text):
            end = text.rfind("\n", start + CHUNK_CHARACTERS // 2, end) + 1 or end
        yield text[start:end]
        start = end


def _priority(place: int) -> int:
    return int.from_bytes(hashlib.blake2b(place.to_bytes(8, "big"), digest_size=8).digest(), "big")
