"""How a tokenizer.json is run so that the exact text comes back, and which bytes of text each token stands for.

Two families give text back exactly. *Byte-level* ones (GPT-2, Llama 3, Qwen, this project's bpe, unigram and byte)
write each byte as one printable character. *SentencePiece-like* ones (Llama 2, Mistral, Gemma, this project's char)
write characters, a sign for the space, and `<0x0A>` for bytes of characters they do not know.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from maquette.artifacts import StageError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SENTENCEPIECE_STEPS = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies: character -> byte.

    Bytes that print in Latin-1 stand for themselves, the others for characters from U+0100 on, in their order
    (Radford et al. 2019, `bytes_to_unicode` of GPT-2's code).
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(0x100 + place): byte for place, byte in enumerate(rest)}


@dataclass(frozen=True)
class ExactForm:
    """A tokenizer.json as it is run here, so that the exact text comes back.

    - `document`: without what changes text: no NFC (Qwen's), and no space put before a text
    - `leading_space`: put a space before each text instead, always, and take it off when text is decoded
    - `space_sign`: stands for a space, so that the sign itself can only be written by its bytes
    - `read`: token -> the bytes it stands for
    - `added_as_written`: whether an added token stands for its own text, not for what `read` makes of it
    - `changes`: where ids differ from those of `transformers` because of this, in words
    - `complete`: whether there are tokens for every text; otherwise what is encoded is decoded and compared
    """

    document: dict[str, Any]
    leading_space: bool
    space_sign: str | None
    read: Callable[[str], bytes]
    added_as_written: bool
    changes: tuple[str, ...]
    complete: bool


def exact_form(document: dict[str, Any], settings: Mapping[str, Any]) -> ExactForm:
    """From a tokenizer.json and its tokenizer_config.json.

    Raises `StageError` naming the part of a tokenizer that loses text in a way that can't be undone (lower case,
    NFKC, WordPiece, pre-tokenizers that drop spaces), and for an add_prefix_space on which the two files differ.
    """
    model, vocabulary = document["model"], document["model"]["vocab"]
    tokens = {piece[0] for piece in vocabulary} if isinstance(vocabulary, list) else set(vocabulary)
    decoder = _steps(document.get("decoder"), "decoders")
    kinds = {step["type"] for step in decoder}
    byte_level = "ByteLevel" in kinds
    if not byte_level and (not kinds or not kinds <= _SENTENCEPIECE_STEPS):
        raise _loses_text(f"decoder ({', '.join(sorted(kinds)) or 'none'})")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _loses_text(f"marks of parts of words ({key}={model[key]})")
    normalizer = _Changes(document.get("normalizer"), "normalizers", _normalizer)
    pre_tokenizer = _Changes(document.get("pre_tokenizer"), "pretokenizers", _pre_tokenizer)
    wanted = settings.get("add_prefix_space")
    if isinstance(wanted, bool) and pre_tokenizer.byte_level and wanted != pre_tokenizer.prefix:
        raise StageError(
            f"tokenizer_config.json says add_prefix_space={wanted}, tokenizer.json {pre_tokenizer.prefix}.",
            "Which one counts depends on the library: make them equal.",
        )
    signs = normalizer.signs | pre_tokenizer.signs
    read = _read_byte_level if byte_level else _sentencepiece_reader(decoder, signs)
    if byte_level:
        complete = (normalizer.byte_level or pre_tokenizer.byte_level) and _BYTES.keys() <= tokens
        complete &= model["type"] in ("BPE", "Unigram")
    else:
        complete = model["type"] == "BPE" and bool(model.get("byte_fallback")) and "ByteFallback" in kinds
        complete &= {f"<0x{byte:02X}>" for byte in range(256)} <= tokens
    run = dict(document, normalizer=normalizer.rest, pre_tokenizer=pre_tokenizer.rest)
    # Spaces beside an added token would be swallowed.
    run["added_tokens"] = [{**token, "lstrip": False, "rstrip": False} for token in document.get("added_tokens", [])]
    prefix = normalizer.prefix or pre_tokenizer.prefix
    changes = ["normalisation of text to NFC"] * normalizer.nfc
    changes += ["no space before a text that begins with one"] * pre_tokenizer.prefix
    return ExactForm(run, prefix, next(iter(signs), None), read, byte_level, tuple(changes), complete)


class _Changes:
    """What the steps of a normalizer or pre-tokenizer do to a text; `rest`: the steps that lose nothing."""

    def __init__(self, part: dict[str, Any] | None, key: str, step_of: Callable[[Any, "_Changes"], Any]) -> None:
        self.prefix, self.nfc, self.byte_level, self.signs = False, False, False, set[str]()
        steps = [step for step in (step_of(step, self) for step in _steps(part, key)) if step is not None]
        self.rest = {"type": "Sequence", key: steps} if steps else None


def _normalizer(step: dict[str, Any], changes: _Changes) -> dict[str, Any] | None:
    kind = step["type"]
    if kind == "NFC":
        changes.nfc = True
        return None
    if kind == "Prepend" and step["prepend"] in ("\u2581", " "):
        changes.prefix = True
        return None
    if kind == "Replace" and step["pattern"].get("String") == " ":
        changes.signs.add(step["content"])
        return step
    if kind != "ByteLevel":
        raise _loses_text(f"normalizer ({kind})")
    changes.byte_level = True
    return step


def _pre_tokenizer(step: dict[str, Any], changes: _Changes) -> dict[str, Any]:
    kind = step["type"]
    if kind == "ByteLevel":
        changes.byte_level = True
        changes.prefix |= step.get("add_prefix_space", True)
        return {**step, "add_prefix_space": False}
    if kind == "Metaspace":
        scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
        changes.prefix |= scheme != "never"
        changes.signs.add(step["replacement"])
        return {key: value for key, value in step.items() if key != "add_prefix_space"} | {"prepend_scheme": "never"}
    if kind == "Split" and step["behavior"] == "Removed" and step["invert"]:  # Phi 4: what matches is a piece
        return {**step, "behavior": "Isolated", "invert": False}  # and so is what does not
    if kind not in ("Split", "Punctuation", "Digits", "UnicodeScripts") or step.get("behavior") == "Removed":
        raise _loses_text(f"pre-tokenizer ({kind})")
    return step


def _loses_text(part: str) -> StageError:
    return StageError(
        f"The tokenizer's {part} does not give back the exact text.",
        "Use a byte-level or SentencePiece-like tokenizer (as of Llama, Qwen, GPT-2, Mistral, Gemma).",
    )


def _sentencepiece_reader(decoder: list[dict[str, Any]], signs: set[str]) -> Callable[[str], bytes]:
    replacements = [
        (step["pattern"]["String"], step["content"])
        for step in decoder
        if step["type"] == "Replace" and "String" in step["pattern"]
    ]
    replacements += [(step["replacement"], " ") for step in decoder if step["type"] == "Metaspace"]
    if len(signs) > 1 or not signs <= {sign for sign, content in replacements if content == " "}:
        raise _loses_text(f"sign for a space ({', '.join(sorted(signs))})")
    has_byte_tokens = any(step["type"] == "ByteFallback" for step in decoder)

    def read(token: str) -> bytes:
        byte_token = _BYTE_TOKEN.fullmatch(token) if has_byte_tokens else None
        if byte_token:
            return bytes([int(byte_token[1], 16)])
        for sign, content in replacements:
            token = token.replace(sign, content)
        return token.encode()

    return read


_BYTES = byte_alphabet()


def _read_byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:  # a token that is not written in the alphabet stands for its own text
        return token.encode()


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a part, those of sequences in their places."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for inner in part[key] for step in _steps(inner, key)]
    return [part]
