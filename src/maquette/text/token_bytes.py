"""Which bytes of text a token stands for, read from the `decoder` part of a tokenizer.json.

Two families give text back exactly. *Byte-level* ones (GPT-2, Llama 3, Qwen, this project's bpe, unigram and byte)
write each byte as one printable character. *SentencePiece-like* ones (Llama 2, Mistral, Gemma, this project's char)
write characters, a sign for the space, and `<0x0A>` for bytes of characters they do not know.
"""

import re
from collections.abc import Callable
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


def byte_reader(document: dict[str, Any]) -> tuple[Callable[[str], bytes], bool]:
    """From a tokenizer.json: token of the model's vocabulary -> the bytes it stands for; and whether the tokenizer
    puts a space before each text, which is taken off again when a text is decoded (SentencePiece's dummy prefix).

    Raises `StageError` for a tokenizer from whose tokens the text can't be had back exactly (WordPiece and such).
    """
    steps = _steps(document.get("decoder"))
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return _read_byte_level, False
    if not kinds or not kinds <= _SENTENCEPIECE_STEPS:
        raise StageError(
            f"The tokenizer's decoder ({', '.join(sorted(kinds)) or 'none'}) does not give back the exact text.",
            "Use a byte-level or SentencePiece-like tokenizer (as of Llama, Qwen, GPT-2, Mistral, Gemma).",
        )
    replacements = [
        (step["pattern"]["String"], step["content"])
        for step in steps
        if step["type"] == "Replace" and "String" in step["pattern"]
    ]
    replacements += [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]
    has_byte_tokens = "ByteFallback" in kinds

    def read(token: str) -> bytes:
        byte_token = _BYTE_TOKEN.fullmatch(token) if has_byte_tokens else None
        if byte_token:
            return bytes([int(byte_token[1], 16)])
        for sign, content in replacements:
            token = token.replace(sign, content)
        return token.encode()

    leading_space = any(
        (step["type"] == "Strip" and step.get("start", 0) > 0)
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )
    return read, leading_space


_BYTES = byte_alphabet()


def _read_byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:  # a token that is not written in the alphabet stands for its own text
        return token.encode()


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _steps(part)]
    return [decoder]
