"""The tokenizer in a GGUF file's metadata, as the tokenizer.json and tokenizer_config.json of a Hugging Face folder.

GGUF keeps a vocabulary, merges or scores, and of how text is split beforehand only a name (`tokenizer.ggml.pre`), which
stands for a pattern in llama.cpp's source. A name that is not in `SPLITS` is refused: another pattern gives other ids
without a word. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from maquette.artifacts import StageError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2, _LLAMA3 = _MODERN.replace("DIGITS", ""), _MODERN.replace("DIGITS", "{1,3}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "starcoder": (r"\p{N}", GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "deepseek-r1-qwen": (_QWEN2,),
    "tekken": (_TEKKEN,),
}
"""tokenizer.ggml.pre -> the patterns that split a text, one after the other, before anything is merged."""

_WHOLE_WORDS_FIRST = ("llama-bpe", "tekken")
"""Where a word that is in the vocabulary is taken whole (`ignore_merges`)."""
_NFC = ("qwen2", "deepseek-r1-qwen")

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_SPACE = "▁"


def tokenizer_files(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tokenizer.json, tokenizer_config.json) from GGUF's `tokenizer.*` keys.

    Raises `StageError` naming the kind of tokenizer, or the way of splitting text, that is not known.
    """
    tokens, kind = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.model"]
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    vocabulary = {
        token: id for id, (token, type) in enumerate(zip(tokens, types, strict=True)) if type != _UNUSED
    }  # unused: "[PAD151936]" and the like, rows without a token
    named = {
        f"{name}_token": tokens[id]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if (id := metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None
    }
    if kind == "gpt2":
        document = _byte_level(vocabulary, metadata["tokenizer.ggml.merges"], metadata.get("tokenizer.ggml.pre"))
    elif kind == "llama":
        spaced = metadata.get("tokenizer.ggml.add_space_prefix", True)
        document = _sentencepiece(vocabulary, types, metadata["tokenizer.ggml.scores"], named.get("unk_token"), spaced)
    else:
        raise StageError(f"tokenizer.ggml.model={kind} is not supported.", "Known: gpt2 (byte-level BPE) and llama.")
    document["added_tokens"] = [
        {"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": types[id] == _CONTROL}
        for token, id in vocabulary.items() if types[id] in (_CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= named
    if template := metadata.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    return {"version": "1.0", "truncation": None, "padding": None} | document, settings


def _byte_level(vocabulary: dict[str, int], merges: Sequence[str], pre: str | None) -> dict[str, Any]:
    if pre not in SPLITS:
        raise StageError(
            f"tokenizer.ggml.pre={pre} is not known: how this model's text is split can't be told from the file.",
            f"Known: {', '.join(SPLITS)}. Import the model's original folder instead, whose tokenizer.json says it.",
        )
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in SPLITS[pre]
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": {"type": "NFC"} if pre in _NFC else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": pre in _WHOLE_WORDS_FIRST, "vocab": vocabulary,
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }  # fmt: skip


def _sentencepiece(
    vocabulary: dict[str, int], types: Sequence[int], scores: Sequence[float], unknown: str | None, spaced: bool
) -> dict[str, Any]:
    """SentencePiece's BPE joins the pair whose piece has the best score; so a piece's splits, by its score, are the
    merges."""
    pieces = {token: id for token, id in vocabulary.items() if types[id] == _NORMAL}
    merges = sorted(_pairs(pieces), key=lambda pair: -scores[vocabulary[pair[0] + pair[1]]])
    steps = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    decoder: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]  # fmt: skip
    if spaced:
        steps.insert(0, {"type": "Prepend", "prepend": _SPACE})
        decoder.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoder},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocabulary, "merges": [list(pair) for pair in merges],
        },
    }  # fmt: skip


def _pairs(vocabulary: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Every two pieces that make a third; of one piece's pairs, those of early pieces first."""
    for piece in vocabulary:
        cuts = ((piece[:place], piece[place:]) for place in range(1, len(piece)))
        known = [pair for pair in cuts if pair[0] in vocabulary and pair[1] in vocabulary]
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
