"""What training makes: the same each time, special tokens in their places, cuts where they belong."""

import collections
import subprocess
import sys

import pytest

from maquette.artifacts import StageError
from maquette.text import SPECIAL_TOKENS, Tokenizer, effective_settings, train_tokenizer
from maquette.text.config import TokenizerConfig, idle_settings
from maquette.text.training import CHUNK_CHARACTERS, spread_sample, training_sample


def split(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token_bytes(id).decode() for id in tokenizer.encode(text)]


def cut(tokenizer: Tokenizer, text: str) -> list[str]:
    """The pieces before merging (written in characters that stand for bytes: Ġ is a space, Ċ a line end)."""
    return [piece for piece, _ in tokenizer.backend.pre_tokenizer.pre_tokenize_str(text)]


def test_special_tokens_have_their_ids_in_every_kind(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids == {name: id for id, name in enumerate(SPECIAL_TOKENS)}
    assert SPECIAL_TOKENS[:6] == (
        "<|document|>", "<|padding|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end_of_turn|>",
    )  # fmt: skip
    assert (tokenizer.document_id, tokenizer.padding_id, tokenizer.end_of_turn_id) == (0, 1, 5)
    assert tokenizer.stop_ids == {0, 5}
    assert tokenizer.byte_lengths()[:16].tolist() == [0] * 16
    assert (tokenizer.byte_lengths()[16:] > 0).all()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "byte"])
def test_same_text_same_digest(kind: str, texts: list[str], trained: dict[tuple[str, str], Tokenizer]) -> None:
    config = TokenizerConfig(kind=kind, vocab_size=400)
    assert train_tokenizer(iter(texts), config).digest == trained[kind, "gpt4"].digest


def test_a_sample_trains_as_the_whole() -> None:
    config = TokenizerConfig(vocab_size=400, training_bytes=100_000)
    texts = [f"line {number} of text\n" * (number % 900) for number in range(1000)]
    sample = training_sample(texts, config)
    assert 90_000 < sum(map(len, sample)) <= 100_000
    assert train_tokenizer(sample, config).digest == train_tokenizer(texts, config).digest


def test_digests_differ(trained: dict[tuple[str, str], Tokenizer]) -> None:
    assert len({tokenizer.digest for tokenizer in trained.values()}) == len(trained)


@pytest.mark.slow(reason="two more processes that train tokenizers")
def test_same_text_same_digest_in_another_process() -> None:
    """Hash tables of the library are ordered again in each process; the tokenizer must not show it."""
    program = (
        "import inspect, argparse, tarfile, typing\n"
        "from maquette.text import train_tokenizer\n"
        "from maquette.text.config import TokenizerConfig\n"
        "texts = [inspect.getsource(module) for module in (argparse, tarfile, typing)]\n"
        "for kind in ('bpe', 'unigram'):\n"
        "    print(train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=2048)).digest)\n"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(outputs) == 1 and len(outputs.pop().split()) == 2


def test_vocabulary_is_as_asked_or_smaller(tokenizer: Tokenizer) -> None:
    assert 272 <= tokenizer.vocab_size <= 400


def test_merges_follow_frequency() -> None:
    """Worked by hand: "ab" 3 times as often as "bc"; then "abd"; nothing that is seen once is merged."""
    tokenizer = train_tokenizer(["ab " * 6 + "abd " * 3 + "bc " * 2 + "xy"], TokenizerConfig(vocab_size=400))
    merged = [tokenizer.token_bytes(id).decode() for id in range(272, tokenizer.vocab_size)]
    assert merged[0] == "ab"
    assert {" ab", "abd", " abd"} & set(merged) and " bc" in merged
    assert "xy" not in merged
    assert split(tokenizer, "xy ab") == ["x", "y", " ab"]


def test_byte_kind_is_the_bytes(trained: dict[tuple[str, str], Tokenizer]) -> None:
    tokenizer = trained["byte", "gpt4"]
    assert tokenizer.vocab_size == 272
    assert tokenizer.encode("Aé") == [16 + byte for byte in "Aé".encode()]


def test_char_kind_keeps_the_commonest_characters() -> None:
    tokenizer = train_tokenizer(["bbbaac" + "dz"], TokenizerConfig(kind="char", vocab_size=276))
    assert [tokenizer.token_bytes(id).decode() for id in range(272, 276)] == ["b", "a", "c", "d"]
    assert tokenizer.encode("bz") == [272, 16 + ord("z")]


@pytest.mark.parametrize(
    ("digits", "expected"),
    [(1, ["1", "2", "3", "4", "5", "6", "7"]), (2, ["12", "34", "56", "7"]), (3, ["123", "456", "7"])],
)
@pytest.mark.parametrize("pretokenizer", ["gpt4", "code"])
def test_digits_are_cut_in_groups(pretokenizer: str, digits: int, expected: list[str], texts: list[str]) -> None:
    config = TokenizerConfig(pretokenizer=pretokenizer, digits=digits, vocab_size=300)
    assert cut(train_tokenizer(texts, config), "1234567") == expected


def test_cuts_of_gpt4(trained: dict[tuple[str, str], Tokenizer]) -> None:
    tokenizer = trained["bpe", "gpt4"]
    assert cut(tokenizer, "It's 327, isn't it?\n\n  ok") == [
        "It", "'s", "Ġ", "327", ",", "Ġisn", "'t", "Ġit", "?ĊĊ", "Ġ", "Ġok"
    ]  # fmt: skip
    assert cut(tokenizer, "    return") == ["ĠĠĠ", "Ġreturn"]


def test_marks_stay_with_their_letters(trained: dict[tuple[str, str], Tokenizer]) -> None:
    for pretokenizer in ("gpt4", "code"):
        assert len(cut(trained["bpe", pretokenizer], "ไม่เว้นวรรค")) == 1
        assert len(cut(trained["bpe", pretokenizer], "cafe\u0301")) == 1


def test_cuts_of_code(trained: dict[tuple[str, str], Tokenizer]) -> None:
    tokenizer = trained["bpe", "code"]
    assert cut(tokenizer, "if x:\n        return 1\n\ty\n      z\n    \nend") == [
        "if", "Ġx", ":Ċ", "ĠĠĠĠĠĠĠĠ", "return", "Ġ", "1", "Ċ", "ĉ", "y", "Ċ", "ĠĠĠĠ", "Ġ", "Ġz", "Ċ", "ĠĠĠĠ", "Ċ", "end"
    ]  # fmt: skip
    assert cut(tokenizer, "    first line\r\n\t\tlast") == ["ĠĠĠĠ", "first", "Ġline", "čĊ", "ĉĉ", "last"]
    assert cut(tokenizer, "a    b") == ["a", "ĠĠĠ", "Ġb"]  # not at the beginning of a line


def test_indentation_becomes_one_token(trained: dict[tuple[str, str], Tokenizer]) -> None:
    assert split(trained["bpe", "code"], "\n    total")[:2] == ["\n", "    "]
    assert split(trained["bpe", "code"], "\n        if")[:2] == ["\n", "        "]


def test_cuts_of_whitespace(trained: dict[tuple[str, str], Tokenizer]) -> None:
    tokenizer = trained["bpe", "whitespace"]
    assert cut(tokenizer, "f(x): 12345  ok") == ["f(x):", "Ġ12345", "Ġ", "Ġok"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("pretokenizer", ["gpt4", "code", "whitespace"])
def test_a_corpus_full_of_special_tokens_text_learns_none(kind: str, pretokenizer: str) -> None:
    """A merge that spells `<|document|>` would take its id, and text could begin documents."""
    config = TokenizerConfig(kind=kind, pretokenizer=pretokenizer, vocab_size=400)
    tokenizer = train_tokenizer(["<|document|> <|user|><|end_of_turn|> a<|document|>b\n" * 200], config)
    ids = tokenizer.encode("<|document|><|user|> a<|end_of_turn|>")
    assert min(ids) >= 16 and tokenizer.decode(ids) == "<|document|><|user|> a<|end_of_turn|>"


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_one_clear_error(kind: str, texts: list[str]) -> None:
    with pytest.raises(StageError, match="no text to train"):
        train_tokenizer(texts, TokenizerConfig(kind=kind))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "byte"])
@pytest.mark.parametrize("text", ["a", " ", "\x00", "ab" * 50])
def test_tiny_texts_train(kind: str, text: str) -> None:
    tokenizer = train_tokenizer([text], TokenizerConfig(kind=kind, vocab_size=280))
    assert tokenizer.vocab_size <= 280
    assert tokenizer.decode(tokenizer.encode("é ab")) == "é ab"


def test_a_surrogate_in_the_corpus_is_named() -> None:
    with pytest.raises(StageError, match=r"Document 2 has a lone surrogate '\\udc80'"):
        train_tokenizer(["fine", "bad \udc80"], TokenizerConfig())


def test_settings_without_effect() -> None:
    byte = TokenizerConfig(kind="byte", vocab_size=2048, digits=1)
    assert effective_settings(byte) == {"kind": "byte"}
    assert idle_settings(byte) == ["vocab_size", "digits"]
    assert idle_settings(TokenizerConfig(pretokenizer="whitespace", digits=1)) == ["digits"]
    assert idle_settings(TokenizerConfig(kind="char", pretokenizer="code", vocab_size=300)) == ["pretokenizer"]
    assert idle_settings(TokenizerConfig(vocab_size=4096, digits=1, pretokenizer="code")) == []


class TestSample:
    def test_everything_is_kept_where_it_fits(self) -> None:
        texts = ["a" * 10, "", "é" * 20, "x\n" * CHUNK_CHARACTERS]
        assert "".join(spread_sample(texts, 10 + 40 + 2 * CHUNK_CHARACTERS)) == "".join(texts)

    def test_spread_over_all_domains_in_order_and_in_the_limit(self) -> None:
        texts = [domain * 1000 for domain in "abcd" for _ in range(500)]
        sample = spread_sample(iter(texts), 400_000)
        assert 399_000 <= sum(map(len, sample)) <= 400_000
        counts = collections.Counter(text[0] for text in sample)
        assert list(counts) == ["a", "b", "c", "d"]
        assert all(60 < count < 140 for count in counts.values())  # 100 expected, standard deviation under 9
        assert sample == spread_sample(texts, 400_000)

    def test_long_documents_have_their_share(self) -> None:
        texts = ["a" * 100 * CHUNK_CHARACTERS, *("b" * CHUNK_CHARACTERS for _ in range(100))]
        sample = spread_sample(texts, 100 * CHUNK_CHARACTERS)
        assert 25 < sum(text[0] == "a" for text in sample) < 75

    def test_a_tiny_limit_keeps_one_chunk(self) -> None:
        assert len(spread_sample(["one", "two", "three"], 1)) == 1
        assert spread_sample([], 1) == []

    def test_long_texts_are_cut_behind_a_line(self) -> None:
        sample = spread_sample(["line of text\n" * 5000], 10**6)
        assert all(chunk.endswith("\n") and len(chunk) <= CHUNK_CHARACTERS for chunk in sample)

    def test_limits_count_bytes(self) -> None:
        assert len(spread_sample(["é" * 10] * 10, 100)) == 5
