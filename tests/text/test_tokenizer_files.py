"""Saving, loading, adding tokens; digests; what a damaged or unfit file is told."""

import json
import pickle
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.text import Tokenizer


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path, texts: list[str]) -> None:
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        loaded = Tokenizer.load(path)
        assert loaded.digest == tokenizer.digest
        assert loaded.encode_batch(texts) == tokenizer.encode_batch(texts)
        assert loaded.special_ids == tokenizer.special_ids
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_digest_is_of_the_content_not_of_its_layout(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(document.items())), indent=None))
    assert Tokenizer.load(tmp_path).digest == bpe.digest
    document["model"]["merges"][-1:] = []
    file.write_text(json.dumps(document))
    assert Tokenizer.load(tmp_path).digest != bpe.digest


def test_a_copy_in_another_process_still_reads_special_names_as_text(bpe: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(bpe))
    assert copy.encode("<|document|>") == bpe.encode("<|document|>")
    assert 0 not in copy.encode("<|document|>")


def test_decoding_special_ids(bpe: Tokenizer) -> None:
    ids = [0, *bpe.encode("mouse"), 5]
    assert bpe.decode(ids) == "<|document|>mouse<|end_of_turn|>"
    assert bpe.decode(ids, skip_special=True) == "mouse"


def test_ids_outside_the_vocabulary(bpe: Tokenizer) -> None:
    assert bpe.decode([bpe.vocab_size, 10**6]) == ""
    with pytest.raises(IndexError, match="-100"):
        bpe.decode([-100])


class TestAddedTokens:
    def test_old_ids_stay_and_new_ones_follow(self, tokenizer: Tokenizer) -> None:
        size = tokenizer.vocab_size
        more = tokenizer.add_tokens(["maquette", "MLflow run"])
        assert more.vocab_size == size + 2 and tokenizer.vocab_size == size
        text = "a maquette of an MLflow run"
        assert {size, size + 1} < set(more.encode(text))
        assert more.decode(more.encode(text)) == text
        assert more.encode("the mouse, 327") == tokenizer.encode("the mouse, 327")
        assert more.byte_lengths()[size:].tolist() == [8, 10]
        assert more.byte_lengths()[more.encode(text)].sum() == len(text)
        assert more.digest != tokenizer.digest
        assert more.special_ids == tokenizer.special_ids

    @pytest.mark.parametrize("token", ["né", " a b ", "\n\n\n", "🎉🎉", "ไม่เว้น", "ĠĠx", "▁x"])
    def test_any_text_can_be_a_token(self, tokenizer: Tokenizer, token: str) -> None:
        """The library decodes an added "né" as the byte E9 and loses it."""
        more = tokenizer.add_tokens([token])
        text = f"x{token}y {token}{token}é"
        assert more.vocab_size - 1 in more.encode(text)
        assert more.decode(more.encode(text)) == text

    def test_special_ones_are_never_found_in_text(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        more = tokenizer.add_tokens(["<|tool|>"], special=True)
        new = more.special_ids["<|tool|>"]
        assert new == tokenizer.vocab_size
        assert new not in more.encode("<|tool|>") and more.decode(more.encode("<|tool|>")) == "<|tool|>"
        assert more.byte_lengths()[new] == 0
        assert more.decode([new]) == "<|tool|>" and more.decode([new], skip_special=True) == ""
        more.save(tmp_path)
        assert Tokenizer.load(tmp_path).special_ids == more.special_ids

    def test_one_after_the_other(self, bpe: Tokenizer) -> None:
        more = bpe.add_tokens(["first one"]).add_tokens(["second one"])
        assert more.encode("first onesecond one") == [bpe.vocab_size, bpe.vocab_size + 1]

    @pytest.mark.parametrize(
        ("tokens", "message"),
        [([""], "can't be a token"), (["x y", "x y"], "given twice"), (["<|user|>"], "is already token 3"),
         (["é"], "is already token"), (["a"], "is already token"), (["\ud800"], "can't be a token")],
    )  # fmt: skip
    def test_what_is_refused(self, bpe: Tokenizer, tokens: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            bpe.add_tokens(tokens)


class TestUnfitFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(StageError, match=r"tokenizer\.json is missing"):
            Tokenizer.load(tmp_path)

    def test_only_sentencepiece(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.model").write_bytes(b"x")
        with pytest.raises(StageError, match=r"tokenizer\.model but no tokenizer\.json"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
    def test_damaged(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "tokenizer.json").write_text(content, encoding="latin-1")
        with pytest.raises(StageError, match=r"tokenizer\.json is damaged"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("content", ['{"model": 3}', "{}", '{"version": "1.0", "model": {"type": "New"}}'])
    def test_no_tokenizer(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(StageError, match=r"tokenizer\.json is not a tokenizer"):
            Tokenizer.load(tmp_path)

    def test_damaged_settings(self, bpe: Tokenizer, tmp_path: Path) -> None:
        bpe.save(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text("{")
        with pytest.raises(StageError, match=r"tokenizer_config\.json is damaged"):
            Tokenizer.load(tmp_path)

    def test_cut_file(self, bpe: Tokenizer, tmp_path: Path) -> None:
        bpe.save(tmp_path)
        file = tmp_path / "tokenizer.json"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(StageError, match=r"tokenizer\.json is damaged"):
            Tokenizer.load(file)

    def test_wordpiece_is_refused(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models

        backend = Backend(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
        backend.decoder = decoders.WordPiece()
        backend.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(StageError, match=r"tokenizer\.json: .*decoder \(WordPiece\) does not give back"):
            Tokenizer.load(tmp_path)
