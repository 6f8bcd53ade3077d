"""Tokenizers from elsewhere, built here as Llama, GPT-2, Qwen, Mistral and Gemma lay theirs out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from maquette.artifacts import StageError
from maquette.text import CHAT_TOKENS, StreamDecoder, Tokenizer, chat, special

SNIPPETS = [
    " ",
    "  ",
    "\u2581",
    "\u0120",
    "<0x41>",
    "</s>",
    "e\u0301",
    "\u1112\u1161",
    "\u212b",
    "na\u00efve",
    "\U0001f389",
    "\x00",
    "\r\n",
    "the mouse",
]
ANY_TEXT = st.one_of(st.text(), st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=3))).map("".join))
SAMPLES = ["The mouse ate the cheese", " two  spaces ", "", "naïve 🎉 ภาษาไทย", "a\nb\tc", "</s> as text"]


def byte_level(texts: list[str], special: list[str], normalizer: Any = None) -> Backend:
    """As GPT-2 and Qwen."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens(special)
    return backend


def sentencepiece(texts: list[str], *, prefix: bool = True, metaspace: bool = False) -> Backend:
    """As Llama 2 and Mistral (a space before each text), or with `prefix=False` as Gemma."""
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    learner = Backend(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    tokens = [*special, *bytes_, *learned["vocab"]]
    vocabulary = {token: id for id, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(pair) for pair in learned["merges"]]
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        spaces = normalizers.Replace(" ", "▁")
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def write(folder: Path, backend: Backend, settings: dict[str, Any] | None = None) -> Tokenizer:
    backend.save(str(folder / "tokenizer.json"))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.load(folder)


def check_bytes(tokenizer: Tokenizer, samples: list[str] = SAMPLES, extra: int = 0) -> None:
    lengths = tokenizer.byte_lengths()
    for text in filter(None, samples):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text == tokenizer.backend.decode(ids)
        assert lengths[ids].sum() == len(text.encode()) + extra
        stream = StreamDecoder(tokenizer)
        assert "".join(map(stream.push, ids)) + stream.flush() == text
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_gpt2(tmp_path: Path, texts: list[str]) -> None:
    tokenizer = write(tmp_path, byte_level(texts, ["<|endoftext|>"]), {"bos_token": "<|endoftext|>"})
    check_bytes(tokenizer)
    end = tokenizer.special_ids["<|endoftext|>"]
    assert (tokenizer.document_id, tokenizer.padding_id, tokenizer.end_of_turn_id) == (end, None, None)
    assert tokenizer.stop_ids == {end}
    assert tokenizer.byte_lengths()[end] == 0
    assert end not in tokenizer.encode("<|endoftext|>")


def test_qwen(tmp_path: Path, texts: list[str]) -> None:
    backend = byte_level(texts, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC())
    settings = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": "theirs"}
    tokenizer = write(tmp_path, backend, settings)
    check_bytes(tokenizer)
    ids = tokenizer.special_ids
    assert tokenizer.document_id == ids["<|endoftext|>"] == tokenizer.padding_id
    assert tokenizer.end_of_turn_id == ids["<|im_end|>"]
    assert tokenizer.stop_ids == {ids["<|endoftext|>"], ids["<|im_end|>"]}
    tokenizer.save(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text()) == settings


def with_prefix_space(texts: list[str]) -> Backend:
    """As OPT, and RoBERTa before it."""
    backend = byte_level(texts, ["</s>"])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return backend


def with_inverted_split(texts: list[str]) -> Backend:
    """As Phi 4 and others made from tiktoken's files."""
    backend = byte_level(texts, ["<|endoftext|>"])
    cut = pre_tokenizers.Split(Regex(r" ?\w+| ?[^\s\w]+|\s+"), "removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return backend


EXACT: dict[str, Callable[[list[str]], Backend]] = {
    "gpt2": lambda texts: byte_level(texts, ["<|endoftext|>"]),
    "qwen": lambda texts: byte_level(texts, ["<|im_end|>"], normalizers.NFC()),
    "opt": with_prefix_space,
    "phi": with_inverted_split,
    "llama 2": sentencepiece,
    "mistral": lambda texts: sentencepiece(texts, metaspace=True),
    "gemma": lambda texts: sentencepiece(texts, prefix=False),
}


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_any_text_comes_back(name: str, text: str, tmp_path: Path, texts: list[str]) -> None:
    """Not composed, with spaces first, with the sign for a space, with what looks like a token: all of it, its bytes
    counted."""
    if not (tmp_path / "tokenizer.json").exists():
        write(tmp_path, EXACT[name](texts))
    tokenizer = Tokenizer.load(tmp_path)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "a"]) == [ids, tokenizer.encode("a")]
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode()) + (tokenizer.leading_space and text != "")
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.flush() == text


@pytest.mark.parametrize("name", EXACT)
def test_ids_are_those_of_the_library(name: str, tmp_path: Path, texts: list[str]) -> None:
    """Of any text that is composed and does not begin with a space; only the others get ids of our own."""
    tokenizer, backend = write(tmp_path, EXACT[name](texts)), Backend.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*texts, "The mouse", "na\u00efve", "a\n b  c "]:
        assert tokenizer.encode(text) == backend.encode(text, add_special_tokens=False).ids
    assert bool(tokenizer.changes) == (name in ("qwen", "opt", "mistral"))
    decomposed = "nai\u0308ve"
    assert (tokenizer.encode(decomposed) == backend.encode(decomposed, add_special_tokens=False).ids) == (
        name != "qwen"
    )


LOSSY: dict[str, tuple[Any, Any, str]] = {
    "lower case": (normalizers.Lowercase(), None, r"normalizer \(Lowercase\)"),
    "compatibility": (normalizers.Sequence([normalizers.NFC(), normalizers.NFKC()]), None, r"normalizer \(NFKC\)"),
    "decomposed": (normalizers.NFD(), None, r"normalizer \(NFD\)"),
    "accents": (normalizers.StripAccents(), None, r"normalizer \(StripAccents\)"),
    "ends": (normalizers.Strip(), None, r"normalizer \(Strip\)"),
    "quotes": (normalizers.Replace("``", '"'), None, r"normalizer \(Replace\)"),
    "spaces": (None, pre_tokenizers.WhitespaceSplit(), r"pre-tokenizer \(WhitespaceSplit\)"),
    "cut out": (None, pre_tokenizers.Split(" ", "removed"), r"pre-tokenizer \(Split\)"),
}


@pytest.mark.parametrize("name", LOSSY)
def test_what_loses_text_is_refused_by_name(name: str, tmp_path: Path, texts: list[str]) -> None:
    normalizer, cut, message = LOSSY[name]
    backend = byte_level(texts, [], normalizer)
    if cut is not None:
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    with pytest.raises(StageError, match=rf"tokenizer\.json: The tokenizer's {message} does not give back"):
        write(tmp_path, backend)


def test_text_without_tokens_is_refused(tmp_path: Path) -> None:
    backend = Backend(models.Unigram([("<unk>", 0.0), ("\u2581", -2.0), ("a", -3.0)], 0, False))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = write(tmp_path, backend)
    assert tokenizer.decode(tokenizer.encode(" a  a")) == " a  a"
    with pytest.raises(StageError, match="no tokens for a part of 'abc'"):
        tokenizer.encode_batch(["a", "abc"])
    with pytest.raises(StageError, match="can't write '\u2581'"):
        tokenizer.encode("a\u2581a")


def test_spaces_beside_an_added_token_stay(tmp_path: Path, texts: list[str]) -> None:
    backend = byte_level(texts, [])
    backend.add_tokens([AddedToken("<x>", lstrip=True, rstrip=True, normalized=False)])
    tokenizer = write(tmp_path, backend)
    assert tokenizer.decode(tokenizer.encode("a  <x> b")) == "a  <x> b"


def test_two_files_that_differ_on_the_prefix_are_refused(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(StageError, match=r"add_prefix_space=False, tokenizer\.json True"):
        write(tmp_path, with_prefix_space(texts), {"add_prefix_space": False})


@pytest.mark.parametrize("metaspace", [False, True])
def test_llama(tmp_path: Path, texts: list[str], metaspace: bool) -> None:
    settings = {"bos_token": {"content": "<s>", "special": True}, "eos_token": "</s>", "pad_token": None}
    tokenizer = write(tmp_path, sentencepiece(texts, metaspace=metaspace), settings)
    check_bytes(tokenizer, extra=1)  # the space that stands before each text
    assert tokenizer.leading_space
    assert (tokenizer.document_id, tokenizer.padding_id) == (1, None)
    assert tokenizer.stop_ids == {1, 2}
    assert tokenizer.byte_lengths()[3 : 3 + 256].tolist() == [1] * 256
    assert tokenizer.token_bytes(3 + 0x41) == b"A"


def test_llama_goes_on_from_a_prompt(tmp_path: Path, texts: list[str]) -> None:
    """A continuation keeps its first space; a whole text loses the one that was put before it."""
    tokenizer = write(tmp_path, sentencepiece(texts))
    ids = tokenizer.encode("cheese")
    assert tokenizer.decode(ids) == "cheese"
    stream = StreamDecoder(tokenizer, continues=True)
    assert "".join(map(stream.push, ids)) == " cheese"


def test_gemma(tmp_path: Path, texts: list[str]) -> None:
    tokenizer = write(tmp_path, sentencepiece(texts, prefix=False))
    check_bytes(tokenizer)
    assert not tokenizer.leading_space
    assert tokenizer.document_id == 1


def test_unigram_with_metaspace(tmp_path: Path, texts: list[str]) -> None:
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in "abc"), ("▁ab", -1.0)]
    backend = Backend(models.Unigram(pieces, 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = write(tmp_path, backend)
    assert tokenizer.decode(tokenizer.encode("ab c")) == "ab c"
    assert tokenizer.byte_lengths()[tokenizer.encode("ab c")].sum() == 5


def test_settings_of_someones_training_do_not_cut_or_pad(tmp_path: Path, texts: list[str]) -> None:
    backend = byte_level(texts, ["<|endoftext|>"])
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    tokenizer = write(tmp_path, backend)
    assert tokenizer.decode(tokenizer.encode("a" * 100)) == "a" * 100


def test_vocabulary_with_holes(tmp_path: Path) -> None:
    backend = Backend(models.BPE({"a": 0, "b": 7}, []))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.ByteLevel()
    tokenizer = write(tmp_path, backend)
    assert tokenizer.vocab_size == 8
    assert tokenizer.byte_lengths().tolist() == [1, 0, 0, 0, 0, 0, 0, 1]
    assert tokenizer.decode([0, 3, 7]) == "ab"


def test_conversations_after_adding_the_chat_tokens(tmp_path: Path, texts: list[str]) -> None:
    foreign = write(tmp_path, sentencepiece(texts))
    messages: list[chat.Message] = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": " hi"}]
    with pytest.raises(StageError, match=r"no token <\|system\|>, <\|user\|>"):
        chat.render(foreign, messages)
    tokenizer = foreign.add_tokens(CHAT_TOKENS, special=True)
    conversation = chat.render(tokenizer, messages)
    assert conversation.ids[0] == tokenizer.document_id == 1
    ids, end = tokenizer.special_ids, tokenizer.end_of_turn_id
    turns = [ids["<|user|>"], *tokenizer.encode("hello"), end, ids["<|assistant|>"], *tokenizer.encode(" hi"), end]
    assert conversation.ids == [1, *turns] and tokenizer.decode(tokenizer.encode(" hi")) == " hi"
    np.testing.assert_array_equal(tokenizer.byte_lengths()[: foreign.vocab_size], foreign.byte_lengths())
    tokenizer.save(tmp_path / "tuned")
    settings = json.loads((tmp_path / "tuned" / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == special.jinja_template("<s>")
    assert Tokenizer.load(tmp_path / "tuned").digest == tokenizer.digest
