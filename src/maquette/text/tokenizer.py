"""The tokenizer: text to ids and exactly back, over the Rust library `tokenizers`.

Encoding is the library's. Decoding is done here from the bytes that each token stands for: the library reads an added
token such as "é" as if it were written in the byte-level alphabet and loses it.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import digest, write_json
from maquette.artifacts.manifest import verify_file
from maquette.artifacts.reading import short
from maquette.text.chat_template import STOCK, TemplateChat, template_text
from maquette.text.model_files import TEMPLATE, ModelFiles, read_model_files, read_table
from maquette.text.special import (
    CHAT_TOKENS,
    DOCUMENT,
    END_OF_TURN,
    PADDING,
    SPECIAL_TOKENS,
    SpecialIds,
    find_special_ids,
    jinja_template,
    named_tokens,
)
from maquette.text.token_bytes import exact_form

MISSING_FILE = "no_tokenizer.json"
"""In the folder of a model whose tokens came without a tokenizer: see `MissingTokenizer`."""


class Tokenizer:
    """A tokenizer.json (`document`), what tokenizer_config.json says beside it (`settings`; None for our own), and the
    other files of its folder (`files`).

    `vocab_size`: ids; `special_ids`: every special token's name -> its id, by id. Of these `document_id` stands before
    each document (of a foreign tokenizer its begin-of-text token, else its end-of-text token), `end_of_text_id` after
    each in tokens of others, `padding_id` fills up batches, `end_of_turn_id` closes each message of a conversation;
    None where a foreign tokenizer has no such token.
    """

    has_text = True
    files = ModelFiles()
    changes: tuple[str, ...] = ()
    """What the tokenizer does to text elsewhere and not here, so that no text is lost."""

    def __init__(
        self, document: dict[str, Any], settings: dict[str, Any] | None = None, files: ModelFiles | None = None
    ) -> None:
        self._document = document
        self._settings = settings
        self.files = files or ModelFiles()
        settings = self.files.special_tokens | (settings or {})
        self._form = exact_form(document, settings)
        self.leading_space, self.changes = self._form.leading_space, self._form.changes
        self.backend = tokenizers.Tokenizer.from_str(json.dumps(self._form.document))
        # A file can carry a length limit of someone's training; cutting text silently is never wanted here.
        self.backend.no_truncation()
        self.backend.no_padding()
        # Text that happens to hold "<|document|>" is text.
        self.backend.encode_special_tokens = True
        self._vocabulary: dict[str, int] = self.backend.get_vocab(with_added_tokens=True)
        added = self.backend.get_added_tokens_decoder()
        flagged = {token.content: id for id, token in added.items() if token.special}
        self._name_special(find_special_ids(self._vocabulary, flagged, settings))
        self.vocab_size: int = max(self._vocabulary.values()) + 1
        self._bytes = [b""] * self.vocab_size
        for token, id in self._vocabulary.items():
            as_written = self._form.added_as_written and id in added
            self._bytes[id] = token.encode() if as_written else self._form.read(token)

    def _name_special(self, special: SpecialIds) -> None:
        self.special_ids = special.all
        self.document_id, self.padding_id = special.document, special.padding
        self.end_of_text_id, self.end_of_turn_id = special.end_of_text, special.end_of_turn
        self._special_set = frozenset(special.all.values())

    def __reduce__(self) -> tuple[Any, ...]:  # the library's own pickling forgets encode_special_tokens
        return Tokenizer, (self._document, self._settings, self.files)

    def __repr__(self) -> str:
        return f"Tokenizer({self._document['model']['type']}, {self.vocab_size:,} tokens, {self.digest[:8]})"

    # Text to ids

    def encode(self, text: str) -> list[int]:
        """The ids of a text. No special token is added, and text that looks like one is encoded as plain text.

        Raises `StageError` for a lone surrogate, which no encoding of Unicode can write, and for text that a foreign
        tokenizer has no token for.
        """
        try:
            return self._exact(text, self.backend.encode(self._given(text), add_special_tokens=False).ids)
        except TypeError as error:
            raise _not_text(text) from error

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, encoded in parallel. Raises `StageError` as `encode` does."""
        try:
            given = [self._given(text) for text in texts]
            encodings = self.backend.encode_batch_fast(given, add_special_tokens=False)
        except TypeError as error:
            raise next((_not_text(text) for text in texts if not _is_text(text)), error) from error
        return [self._exact(text, encoding.ids) for text, encoding in zip(texts, encodings, strict=True)]

    def _given(self, text: str) -> str:
        """The text as the library is given it."""
        return " " + text if self.leading_space and text else text

    def _exact(self, text: str, ids: list[int]) -> list[int]:
        """The ids of a text, from what the library makes of it."""
        if (sign := self._form.space_sign) is not None and sign in text:
            ids = self._encode_sign(self._given(text), sign)
        if not self._form.complete and self.decode(ids) != text:
            raise StageError(
                f"The tokenizer has no tokens for a part of {short(repr(text), 60)}.",
                "Leave such text out, or use a byte-level tokenizer.",
            )
        return ids

    def _encode_sign(self, text: str, sign: str) -> list[int]:
        """The ids of a text that holds the sign which stands for a space: the sign by its bytes."""
        names = [f"<0x{byte:02X}>" for byte in sign.encode()]
        if not all(name in self._vocabulary for name in names):
            raise StageError(f"The tokenizer can't write {sign!r}: it stands for a space.", "Leave such text out.")
        written = [self._vocabulary[name] for name in names]
        first, *others = (self.backend.encode(part, add_special_tokens=False).ids for part in text.split(sign))
        return first + [id for part in others for id in (*written, *part)]

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of text out of a chat template, as `transformers` gives them: special tokens are recognised, and
        what the tokenizer does to text elsewhere (NFC, a space put before it) is done. Raises as `encode`."""
        try:
            return self._as_elsewhere.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise _not_text(text) from error

    @cached_property
    def _as_elsewhere(self) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(json.dumps(self._document))
        backend.no_truncation()
        backend.no_padding()
        return backend

    # Ids to text

    def token_bytes(self, id: int, *, skip_special: bool = False) -> bytes:
        """The bytes that are decoded for an id: a special token's own name, or b"" with `skip_special`.

        Ids above the vocabulary (models from elsewhere have padded matrices) stand for nothing. Raises `IndexError`
        for a negative id.
        """
        if id < 0:
            raise IndexError(f"{id} is not the id of a token")
        if id >= self.vocab_size or (skip_special and id in self._special_set):
            return b""
        return self._bytes[id]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of ids. `decode(encode(text)) == text` for any text; bytes that are no UTF-8 become U+FFFD."""
        data = b"".join(self.token_bytes(int(id), skip_special=skip_special) for id in ids)
        return (data.removeprefix(b" ") if self.leading_space else data).decode("utf-8", "replace")

    def byte_lengths(self) -> npt.NDArray[np.int32]:
        """(V,) bytes of text that each id stands for; 0 for special tokens and for ids that have no token.

        Summed over `encode(text)` this is the text's length in UTF-8; one more for the space that a
        tokenizer with `leading_space` puts before it.
        """
        lengths = np.fromiter(map(len, self._bytes), dtype=np.int32, count=self.vocab_size)
        lengths[list(self._special_set)] = 0
        return lengths

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids at which a generated text is over: the next document's begin, the end of text, the end of a turn, and
        those that the folder's generation_config.json and config.json name as eos_token_id."""
        ids = (self.document_id, self.end_of_text_id, self.end_of_turn_id)
        return frozenset(id for id in ids if id is not None) | self.files.stop_ids

    # On disk

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical tokenizer.json (keys sorted, no spaces), as it stands in its file."""
        return digest(self._document)

    def save(self, folder: Path | str) -> None:
        """Writes tokenizer.json, tokenizer_config.json (with the chat template) and the other files that came with it,
        as `transformers` reads them."""
        write_json(Path(folder) / "tokenizer.json", self._document)
        write_json(Path(folder) / "tokenizer_config.json", self._config())
        # A template of ours is in the settings; `transformers` would prefer one in a file.
        self.files.save(Path(folder), templates=not self._has_our_template)

    @cached_property
    def template_chat(self) -> TemplateChat | None:
        """How the model writes conversations, where it is not as text/chat.py does: by a template of its own."""
        source = self._template
        if self._has_our_template or source is None:
            return None
        return TemplateChat(source, self, named_tokens(self.files.special_tokens | (self._settings or {})))

    @property
    def _template(self) -> str | None:
        """chat_template.jinja, else the default one of tokenizer_config.json."""
        source = self.files.templates.get(TEMPLATE) or (self._settings or {}).get("chat_template")
        if isinstance(source, list):  # several, by their purpose
            source = next((one.get("template") for one in source if one.get("name") == "default"), None)
        return source if isinstance(source, str) and source.strip() else None

    @property
    def chat_digest(self) -> str:
        """SHA-256 of all that decides the ids of a conversation."""
        return self.digest if self.template_chat is None else digest([self.digest, self._template])

    @property
    def _has_our_template(self) -> bool:
        return self.document_id is not None and all(name in self.special_ids for name in CHAT_TOKENS)

    def _config(self) -> dict[str, Any]:
        if self._settings is None:
            return {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": DOCUMENT,
                "eos_token": DOCUMENT,
                "pad_token": PADDING,
                "additional_special_tokens": [END_OF_TURN],
                "clean_up_tokenization_spaces": False,
                "chat_template": jinja_template(DOCUMENT),
            }
        config = dict(self._settings)
        if self._has_our_template and self.document_id is not None:
            config["chat_template"] = jinja_template(self._bytes[self.document_id].decode())
        return config

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Reads a folder that has a tokenizer.json, or the file itself; of this project or a foreign one.

        A foreign one's tokenizer_config.json and the files of `ModelFiles` are read from beside it where there are
        any. Raises `StageError` where a file is missing or damaged, where they contradict each other, or where the
        tokenizer can't give back the exact text.

        Text is encoded as it stands: a tokenizer that would normalise it (NFC) gives other ids than in `transformers`
        where that changes the text, and one that puts a space before a text does so here even where the text begins
        with a space already. The files keep both.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.exists() and (file.parent / MISSING_FILE).exists():
            known = _read_json(file.parent / MISSING_FILE)
            return MissingTokenizer(known["vocab_size"], known["eos_token_id"])
        if not file.exists() and (file.parent / "tokenizer.model").exists():
            raise StageError(
                f"{file.parent} has a SentencePiece tokenizer.model but no tokenizer.json.",
                "Write one with transformers: AutoTokenizer.from_pretrained(<folder>).save_pretrained(<folder>).",
            )
        settings_file = file.with_name("tokenizer_config.json")
        for one in (file, settings_file):
            verify_file(one)
        document = _read_json(file)
        settings = _read_json(settings_file) if settings_file.exists() else {}
        files = read_model_files(file.parent)
        try:
            tokenizer = cls(document, None if _is_own(document) else settings, files)
            files.check_added(tokenizer._vocabulary, settings, file.parent)
            return tokenizer
        except (KeyError, TypeError, ValueError) as error:
            raise StageError(f"{file} is not a tokenizer: {short(error)}.") from error
        except StageError as error:
            raise StageError(f"{file}: {error.message}", error.hint) from None
        except Exception as error:  # the library raises bare Exception
            raise StageError(f"{file} is not a tokenizer that this version reads: {short(error)}.") from error

    # More tokens

    def add_tokens(self, tokens: Sequence[str], *, special: bool = False) -> "Tokenizer":
        """A tokenizer with more tokens behind the old ones, whose ids stay. This one is not changed.

        An ordinary token (a word of a field, say) is found in text before anything is merged. A special one is never
        found in text; its id, `special_ids[name]`, is put there by a program. Raises `ConfigError` for an empty token,
        one that is given twice, or one that the vocabulary already has.
        """
        for place, token in enumerate(tokens):
            if not token or not _is_text(token):
                raise ConfigError(f"{token!r} can't be a token.", "A token is a text of at least one character.")
            if token in tokens[:place]:
                raise ConfigError(f"{token!r} is given twice.", "Name each new token once.")
            # The library would give the new token the old one's id, even where that is written in the byte alphabet
            # and stands for other text ("é" there is the byte E9).
            if token in self._vocabulary:
                raise ConfigError(f"{token!r} is already token {self._vocabulary[token]}.", "Add only new tokens.")
        backend = tokenizers.Tokenizer.from_str(json.dumps(self._document))
        backend.add_tokens([tokenizers.AddedToken(token, normalized=False, special=special) for token in tokens])
        return Tokenizer(json.loads(backend.to_str()), self._settings, self.files)

    def with_chat(self, name: str) -> "Tokenizer":
        """This tokenizer with another chat template, by its name (`STOCK`) or from a file, and the special tokens that
        it lacks. Raises as `template_text`, and `ConfigError` for a tokenizer that has this project's chat tokens."""
        if self._has_our_template:
            raise ConfigError(f"chat={name}: this model has Maquette's own chat tokens.", "Leave chat out.")
        source = template_text(name)
        lacking = [token for token in STOCK.get(name, ()) if token not in self._vocabulary]
        grown = self.add_tokens(lacking, special=True) if lacking else self
        settings = {**(self._settings or {}), "chat_template": source}
        if self.end_of_text_id is not None:
            settings.setdefault("eos_token", self.token_bytes(self.end_of_text_id).decode())
        chatty = Tokenizer(grown._document, settings, dataclasses.replace(self.files, templates={}))
        assert chatty.template_chat is not None
        chatty.template_chat.ids(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], open_assistant=False
        )
        stops = {
            name: {**content, "eos_token_id": self.files.with_ends(content, chatty.stop_ids, chatty.end_of_turn_id)}
            for name in ("generation", "ids")
            if "eos_token_id" in (content := getattr(self.files, name))
        }  # so that other programs stop where an answer ends, too
        return Tokenizer(grown._document, settings, dataclasses.replace(chatty.files, **stops))


class MissingTokenizer(Tokenizer):
    """A vocabulary of `vocab_size` ids, of which `document_id` (if any) separates documents."""

    has_text = False
    leading_space = False

    def __init__(self, vocab_size: int, document_id: int | None) -> None:
        self.vocab_size = vocab_size
        self._name_special(SpecialIds({}, document_id, padding=None, end_of_text=document_id, end_of_turn=None))

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingTokenizer, (self.vocab_size, self.document_id)

    def __repr__(self) -> str:
        return f"MissingTokenizer({self.vocab_size:,} ids)"

    def __getattr__(self, name: str) -> Any:  # what only text has: what all that reads or writes it begins with
        if name in ("backend", "_bytes", "_vocabulary", "_document"):
            raise _no_text()
        raise AttributeError(name)

    template_chat = None

    def byte_lengths(self) -> npt.NDArray[np.int32]:
        """Zeros: unknown."""
        return np.zeros(self.vocab_size, dtype=np.int32)

    def _values(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "eos_token_id": self.document_id}

    @cached_property
    def digest(self) -> str:
        return digest({"missing": self._values()})

    def save(self, folder: Path | str) -> None:
        """Writes a file that says what is known; no tokenizer.json, so that nothing takes it for one."""
        write_json(Path(folder) / MISSING_FILE, self._values())


def _is_own(document: dict[str, Any]) -> bool:
    added = {entry["content"]: entry["id"] for entry in document.get("added_tokens", [])}
    return all(added.get(name) == id for id, name in enumerate(SPECIAL_TOKENS))


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and not any("\ud800" <= character <= "\udfff" for character in text)


def _not_text(text: Any) -> StageError:
    """The clear words for what `tokenizers` calls a TypeError."""
    if not isinstance(text, str):
        return StageError(f"A text must be a string, got {type(text).__name__} {text!r:.60}.")
    place = next((place for place, character in enumerate(text) if "\ud800" <= character <= "\udfff"), 0)
    return StageError(
        f"The text has a lone surrogate U+{ord(text[place]):04X} at character {place:,}: that is not Unicode text.",
        'Repair it: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
    )


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise StageError(f"{file} is missing.", "Give a folder that has a tokenizer.json.")
    return read_table(file, "Restore the file, or rebuild the tokenizer.")


def _no_text() -> StageError:
    return StageError(
        "The tokens of this model came without a tokenizer: there is no text to read or write.",
        "Name it with pretokenized.tokenizer=<folder with tokenizer.json> and train again.",
    )
