"""Tokens that others wrote, read where they lie: formats, boundaries, splits, and what is wrong said by name."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli import tokens
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.data import MixtureOrder, TokenShards, TrainingBatches, validation_batches
from maquette.data.config import MixtureConfig
from maquette.data.token_files import map_file
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.text.tokenizer import MissingTokenizer

VOCABULARY, EOS = 50_257, 50_256


def ids(count, seed=0, every=50):
    """Documents of `every` tokens, each ended by the separator."""
    tokens = np.random.default_rng(seed).integers(0, EOS, count)
    tokens[every - 1 :: every] = EOS
    return tokens


def made(path, *words, outputs="out", vocabulary=True):
    settings = [f"outputs={outputs}", f"pretokenized.path={path}", *words]
    if vocabulary:
        settings += [f"pretokenized.vocab_size={VOCABULARY}", f"pretokenized.eos_token_id={EOS}"]
    return tokens.run(compose(STAGES["tokens"], settings))


def stream(shards, domain, split="train"):
    return np.asarray(shards.read(domain, split, 0, shards.tokens(split)[domain]))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_datasets(folder, rows, *, kind=None, files=2):
    """What `datasets`' save_to_disk leaves: Arrow streams and a state.json."""
    folder.mkdir(parents=True)
    names = []
    for number, some in enumerate(np.array_split(np.arange(len(rows)), files)):
        table = pa.table({"input_ids": pa.array([list(rows[i]) for i in some], kind or pa.list_(pa.int32()))})
        names.append(f"data-{number:05d}-of-{files:05d}.arrow")
        with pa.OSFile(str(folder / names[-1]), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def test_nanogpts_files_are_mapped_where_they_lie(folder):
    train, validation = ids(5000), ids(600, seed=1)
    (folder / "openwebtext").mkdir()
    train.astype(np.uint16).tofile("openwebtext/train.bin")
    validation.astype(np.uint16).tofile("openwebtext/val.bin")
    result = made("openwebtext")
    assert result.corpus is None
    shards = TokenShards(result.folder, Tokenizer.load(result.tokenizer).digest)
    assert shards.domains == ("openwebtext",) and shards.vocab_size == VOCABULARY and shards.document_id == EOS
    assert (stream(shards, "openwebtext") == train).all()
    assert (stream(shards, "openwebtext", "validation") == validation).all()
    assert not list(result.folder.rglob("*.npy")) and not list(result.folder.rglob("*.bin"))
    documents = shards.documents("openwebtext")
    assert documents.starts.tolist() == [0, *range(49, 4950, 50)]
    assert shards.document_ids("openwebtext", "train", 45, 10) == ["train.bin:0", "train.bin:49"]


def test_olmos_files_with_and_without_numpys_header_and_the_end_held_out(folder):
    (folder / "dolma").mkdir()
    parts = [ids(2000, seed=seed).astype(np.uint32) for seed in range(3)]
    parts[0].tofile("dolma/part-0.npy")
    np.save("dolma/part-1.npy", parts[1])
    parts[2].tofile("dolma/part-2.npy")
    result = made("dolma", "pretokenized.dtype=uint32", "pretokenized.validation=0.1")
    shards = TokenShards(result.folder)
    held_out = shards.tokens("validation")["dolma"]
    assert 500 <= held_out <= 650  # a tenth, from the beginning of a document on
    both = np.concatenate([stream(shards, "dolma"), stream(shards, "dolma", "validation")])
    assert (both == np.concatenate(parts)).all()
    assert stream(shards, "dolma", "validation")[0] == EOS  # which also begins the next document
    assert shards.documents("dolma", "validation").starts[0] == 0


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.uint16(), 40)])
def test_a_datasets_folder_is_mapped_and_its_rows_are_documents(folder, kind):
    rows = [np.random.default_rng(i).integers(0, EOS, 40) for i in range(30)]
    save_datasets(folder / "data" / "train", rows, kind=kind)
    save_datasets(folder / "data" / "test", rows[:4], kind=kind, files=1)
    (folder / "data" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    result = made("data")
    shards = TokenShards(result.folder)
    assert (stream(shards, "data", "test") == np.concatenate(rows[:4])).all()
    train = np.concatenate([stream(shards, "data"), stream(shards, "data", "validation")])
    assert (train == np.concatenate(rows)).all()
    assert shards.documents("data").starts.tolist() == list(range(0, shards.tokens()["data"], 40))
    assert shards.tokens("validation")["data"] % 40 == 0
    mapped = map_file(next(iter(_files(result))))
    assert not any(part.flags.owndata for part in mapped)


def _files(result):
    from maquette.data.config import PretokenizedConfig
    from maquette.data.pretokenized import source_files

    return source_files(PretokenizedConfig(path="data", vocab_size=VOCABULARY))["data"]["train"]


def test_datasets_itself_writes_what_is_read(folder):
    datasets = pytest.importorskip("datasets")
    rows = [{"input_ids": ids(30, seed=i, every=30).tolist()} for i in range(20)]
    datasets.Dataset.from_list(rows).save_to_disk("saved")
    shards = TokenShards(made("saved", "pretokenized.validation=0").folder)
    assert (stream(shards, "saved") == np.concatenate([row["input_ids"] for row in rows])).all()
    assert shards.tokens("validation") == {"saved": 0}
    state = json.loads(Path("saved/state.json").read_text())
    Path("saved/state.json").write_text(json.dumps(state | {"_indices_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(StageError, match="flatten_indices"):
        made("saved")


def test_folders_below_are_domains(folder):
    for name in ("code", "web"):
        (folder / "mix" / name).mkdir(parents=True)
        ids(1000, seed=len(name)).astype(np.uint16).tofile(f"mix/{name}/train.bin")
    shards = TokenShards(made("mix").folder)
    assert shards.domains == ("code", "web") and shards.tokens("validation")["web"] > 0


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_bytes_of_text_are_known_with_a_tokenizer_only(folder, with_tokenizer):
    text = "def f(x):\n    return x\n" * 40
    tokenizer = train_tokenizer([text], TokenizerConfig(kind="byte"))
    tokenizer.save("tok")
    encoded = [*tokenizer.encode(text), tokenizer.document_id] * 3
    np.array(encoded, dtype=np.uint16).tofile("train.bin")
    words = ["pretokenized.tokenizer=tok"] if with_tokenizer else [f"pretokenized.vocab_size={tokenizer.vocab_size}"]
    result = made("train.bin", *words, "pretokenized.validation=0", vocabulary=False)
    shards = TokenShards(result.folder)
    assert shards.document_id == (tokenizer.document_id if with_tokenizer else None)
    assert shards.text_bytes()["train"] == (3 * len(text.encode()) if with_tokenizer else 0)
    assert len(shards.documents("train").ids) == (3 if with_tokenizer else 1)
    assert Tokenizer.load(result.tokenizer).has_text == with_tokenizer


def _write(name, values, dtype=np.uint16):
    np.asarray(values).astype(dtype).tofile(name)


@pytest.mark.parametrize(
    ("write", "words", "message"),
    [
        (lambda: _write("a.bin", [1, 2, 50_300, 4]), [], ["a.bin", "50,300", "position 2", "50,257"]),
        (lambda: Path("a.bin").write_bytes(b"abc"), [], ["a.bin", "3 bytes", "uint16"]),
        (lambda: Path("a.bin").write_bytes(b""), [], ["a.bin", "0 bytes"]),
        (lambda: _write("a.bin", ids(400), np.uint32), ["pretokenized.dtype=uint16"], ["a.bin", "uint32"]),
        (lambda: _write("a.bin", ids(400)), ["pretokenized.dtype=uint32"], ["a.bin", "position 0", "dtype"]),
        (lambda: np.save("a.npy", ids(10).astype(np.float32)), [], ["a.npy", "float32"]),
        (lambda: np.save("a.npy", -ids(10).astype(np.int64)), [], ["a.npy", "position 0"]),
        (lambda: None, [], ["pretokenized.path=a.bin", "exist"]),
    ],
)  # fmt: skip
def test_what_can_not_be_tokens_is_refused_by_file_and_place(folder, write, words, message):
    write()
    path = "a.npy" if Path("a.npy").exists() else "a.bin"
    with pytest.raises(StageError) as caught:
        made(path, *words)
    for word in message:
        assert word in str(caught.value), (word, str(caught.value))
    assert not list(Path("out").glob("artifacts/tokens/*/manifest.json"))


def test_settings_that_do_not_go_together_are_refused(folder):
    ids(100).astype(np.uint16).tofile("a.bin")
    for words in ([], ["pretokenized.vocab_size=9", "pretokenized.tokenizer=x"]):
        with pytest.raises(ConfigError, match="vocab_size"):
            made("a.bin", *words, vocabulary=False)
    with pytest.raises(ConfigError, match=r"pretokenized.path"):
        compose(STAGES["tokens"], ["pretokenized.vocab_size=9"])
    with pytest.raises(ConfigError, match=r"eos_token_id=50256"):
        made("a.bin", "pretokenized.vocab_size=100", "pretokenized.eos_token_id=50256", vocabulary=False)
    with pytest.raises(ConfigError, match=r"pretokenized.tokenizer=nowhere"):
        made("a.bin", "pretokenized.tokenizer=nowhere", vocabulary=False)


def test_a_changed_or_missing_file_is_noticed_and_the_same_tokens_elsewhere_are_the_same(folder):
    ids(1000).astype(np.uint16).tofile("train.bin")
    first = made("train.bin")
    assert made("train.bin").folder == first.folder
    (folder / "elsewhere").mkdir()
    os.link("train.bin", "elsewhere/train.bin")
    second = made("elsewhere/train.bin")
    assert second.folder != first.folder and TokenShards(second.folder).digest == TokenShards(first.folder).digest
    content = bytearray(Path("train.bin").read_bytes())
    content[100] ^= 1
    Path("train.bin").write_bytes(content)
    with pytest.raises(StageError, match=r"train.bin"):
        TokenShards(first.folder)
    Path("train.bin").write_bytes(content[:-10])
    with pytest.raises(StageError, match=r"train.bin"):
        TokenShards(first.folder)
    with pytest.raises(StageError, match=r"train.bin"):
        TokenShards(first.folder, verify=False).stream("train", "validation")
    Path("train.bin").unlink()
    with pytest.raises(StageError, match=r"train.bin is missing"):
        TokenShards(first.folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_for_any_workers_and_resume_exactly(folder, workers):
    ids(20_000).astype(np.uint16).tofile("train.bin")
    shards = TokenShards(made("train.bin").folder)
    order = MixtureOrder(MixtureConfig(), shards.tokens(), context=32, token_budget=32 * 80, seed=3)

    def batches(start, workers):
        result = TrainingBatches(
            shards, order, batch_sequences=8, micro_batch_size=4, steps=10, workers=workers, document_masking=True
        )
        result.load_state_dict({**result.state_dict(), "sequences": start * result.batch_sequences})
        return result

    whole = list(batches(0, 0))
    again = list(batches(0, workers))
    resumed = batches(0, workers)
    for _, batch in zip(range(7), resumed, strict=False):
        last = batch
    state = resumed.state_dict()
    rest = batches(0, workers)
    rest.load_state_dict(state)
    for one, other in zip(whole, again, strict=True):
        assert (one.tokens == other.tokens).all() and (one.segments == other.segments).all()
    assert (last.tokens == whole[6].tokens).all()
    for one, other in zip(whole[7:], rest, strict=True):
        assert (one.tokens == other.tokens).all()
    [held_out] = validation_batches(shards, "train", 32, 64, 8)
    assert (held_out.tokens[0].numpy() == shards.read("train", "validation", 0, 33)).all()


def test_documents_without_a_separator_can_not_be_kept_apart(folder):
    ids(2000).astype(np.uint16).tofile("train.bin")
    result = made("train.bin", f"pretokenized.vocab_size={VOCABULARY}", vocabulary=False)
    shards = TokenShards(result.folder)
    order = MixtureOrder(MixtureConfig(), shards.tokens(), context=32, token_budget=320, seed=0)
    with pytest.raises(ConfigError, match="eos_token_id"):
        TrainingBatches(shards, order, batch_sequences=2, micro_batch_size=2, steps=5, document_masking=True)


def test_a_missing_tokenizer_says_so_and_stays_itself(folder):
    tokenizer = MissingTokenizer(300, 7)
    tokenizer.save("tok")
    assert not Path("tok/tokenizer.json").exists()
    for one in (Tokenizer.load("tok"), pickle.loads(pickle.dumps(tokenizer))):
        assert one.digest == tokenizer.digest and one.vocab_size == 300 and one.document_id == 7
        assert not one.has_text and one.stop_ids == {7} and not one.byte_lengths().any()
        for use in (lambda t=one: t.encode("a"), lambda t=one: t.decode([1]), lambda t=one: t.backend):
            with pytest.raises(StageError, match="without a tokenizer"):
                use()
