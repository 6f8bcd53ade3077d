"""The files that the program reads, each with a good example and the reader that a command goes through."""

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.faults.fuzz import Format
from tests.faults.written import WRITTEN
from tokenizers import decoders, models, normalizers, pre_tokenizers

from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.manifest import build, verify_files
from maquette.artifacts.reading import load_yaml, write_sealed
from maquette.artifacts.run_file import read_run, write_run
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document, read_documents, write_documents
from maquette.corpus.sources import open_source
from maquette.data.conversations import ExampleFiles
from maquette.evaluation.arena import read_battles
from maquette.evaluation.leaderboard import FILE as EVALUATION
from maquette.evaluation.leaderboard import read_evaluations
from maquette.evaluation.question_files import read_task
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.recipe.recipe_file import load_recipe
from maquette.recipe.rules import HyperparameterRules
from maquette.scaling.fits.table import read_table
from maquette.scaling.predictions.prediction import FOLDER as PREDICTIONS
from maquette.scaling.predictions.prediction import WrittenPrediction, read_prediction, write_prediction
from maquette.serving.arena import BATTLES, Arena
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig
from maquette.text.model_files import ModelFiles
from maquette.training.metrics_file import read_history

_TALK = [{"role": "user", "content": "What is a hen?"}, {"role": "assistant", "content": "A bird."}]
_WORDS = ["the hen sees a door", "a clock stands in the river", "def main(): return 1", "Zażółć gęślą jaźń", "x" * 90]


def _lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _file(name: str, text: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def _source(kind: str) -> Callable[[Path], Any]:
    def read(file: Path) -> Any:
        return [vars_of(one) for one in open_source(SourceConfig(kind=kind, path=str(file))).documents(None)]

    return read


def vars_of(value: Any) -> Any:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


_ROWS = [{"id": str(n), "text": text, "domain": "web", "meta": {"n": n, "x": 1.5}} for n, text in enumerate(_WORDS)]
_PREFERENCES = [
    {"prompt": _TALK[:1], "chosen": _TALK[1:], "rejected": [{"role": "assistant", "content": "A fish."}],
     "annotator": "Ada", "margin": 0.5}
] * 3  # fmt: skip
_ALPACA = [{"instruction": "a", "input": "", "output": "b"}] * 3
_BATTLES = [
    {"model_a": "one", "model_b": "two", "winner": winner, "judge": "Ada", "prompt": "hi", "answer_a": "x",
     "answer_b": "y"}
    for winner in ("model_a", "model_b", "tie")
]  # fmt: skip
_QUESTIONS = [
    {"question": "Which is a bird?", "choices": ["owl", "cow"], "answer": 0},
    {"question": "Which is a fish?", "choices": ["owl", "cod"], "answer": 1},
]
_TARGETS = {"choices": ["an owl", "a cod"], "labels": [0, 1]}
_RUNS = "params,tokens,loss,compute\n" + "".join(
    f"{n},{20 * n},{1.7 + 40 / n**0.34:.4f},{120 * n * n}\n" for n in (10_000, 30_000, 100_000, 300_000)
)


def _artifact(folder: Path) -> Path:
    def make(place: Path) -> dict[str, Any]:
        write_text(place / "data" / "a.txt", "hello")
        return {"words": 1, "shards": [{"file": "data/a.txt", "tokens": 5}]}

    made = build("things", folder, name="one", label="thing", config={"size": 3}, inputs={"corpus": "ab" * 32},
                 make=make, say=lambda _: None)  # fmt: skip
    return made / "manifest.json"


def _run(folder: Path) -> Path:
    write_run(
        folder, {"status": "finished", "step": 20, "validation_loss": 3.25, "spec": {"size": "10k", "tokens": 512}}
    )
    return folder / "run.json"


def _documents(folder: Path) -> Path:
    write_documents(
        folder / "train.parquet", [Document(str(n), text, None, "web", {}) for n, text in enumerate(_WORDS)]
    )
    return folder / "train.parquet"


def _tokenizer(folder: Path) -> Path:
    train_tokenizer(_WORDS * 20, TokenizerConfig(vocab_size=300)).save(folder)
    return folder / "tokenizer.json"


def _model(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
        shape = TransformerConfig(tokenizer.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                  max_position_embeddings=16)  # fmt: skip
        hf.save(LanguageModel(shape, seed=0), tokenizer, folder / "model")
        return folder / "model" / file

    return make


def _read_model(file: Path) -> Any:
    model = hf.load(file.parent)
    return model.config, [tensor.tolist() for tensor in model.state_dict().values()]


def _imported(file: str) -> Callable[[Path], Path]:
    """A folder as others publish it: no checksums, a tokenizer of theirs, weights in two files."""

    def make(folder: Path) -> Path:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = tokenizers.Tokenizer(
            models.BPE({token: id for id, token in enumerate(["<s>", "</s>", *alphabet])}, [])
        )
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        backend.add_special_tokens(["<s>", "</s>"])
        shape = TransformerConfig(258, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_prefix_space": False,
                    "added_tokens_decoder": {"1": {"content": "</s>", "special": True}}}  # fmt: skip
        files = ModelFiles(
            {"eos_token_id": [0, 1], "temperature": 0.6}, {"eos_token_id": 1}, {"eos_token": "</s>"}, {"</s>": 1},
            {"chat_template.jinja": "{{ messages }}"},
        )  # fmt: skip
        tokenizer = Tokenizer(json.loads(backend.to_str()), settings, files)
        place = hf.save(LanguageModel(shape, seed=0), tokenizer, folder / "model")
        (place / "checksums.json").unlink()
        weights = load_file(place / "model.safetensors")
        first = dict(list(weights.items())[:3])
        save_file(first, place / "one.safetensors")
        save_file({name: weights[name] for name in weights.keys() - first.keys()}, place / "two.safetensors")
        (place / "model.safetensors").unlink()
        index = {name: "one.safetensors" if name in first else "two.safetensors" for name in weights}
        write_json(place / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
        return place / file

    return make


def _read_imported(file: Path) -> Any:
    """As `maquette import` does, which also writes what it has read."""
    with tempfile.TemporaryDirectory() as copy:
        model, tokenizer, _ = hf.load_source(file.parent, Path(copy) / "model")
        hf.fill(Path(copy), model, tokenizer)
        written = {path.name: path.read_bytes() for path in Path(copy).iterdir()}
    return sorted(tokenizer.stop_ids), tokenizer.encode("a hen"), sorted(written.items())


def _recipe(folder: Path) -> Path:
    values = {name: getattr(HyperparameterRules(), name) for name in ("learning_rate", "lr_width_exponent", "source")}
    return _file("mine.yaml", yaml.safe_dump(values))(folder)


def _parquet(folder: Path) -> Path:
    import pandas as pd

    pd.DataFrame([{"id": row["id"], "text": row["text"], "domain": "web"} for row in _ROWS]).to_parquet(
        folder / "rows.parquet"
    )
    return folder / "rows.parquet"


def _evaluation(folder: Path) -> Path:
    write_sealed(folder / EVALUATION, {"created": "2026-01-01", "suite": {"name": "s"}, "comparable": "x",
               "digests": {"model": "ab"}, "headline": {"task": {"accuracy": 0.5}}})  # fmt: skip
    return folder / EVALUATION


def _tokens(name: str, values: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.save(folder / name, np.asarray(values))
        return folder / name

    return make


def _checkpoint(folder: Path) -> Path:
    from maquette.training.checkpoint_io import AtomicCheckpointIO, CheckpointFolder

    path = CheckpointFolder(folder).path(3)
    AtomicCheckpointIO().save_checkpoint({"global_step": 3, "state_dict": {"x": torch.arange(30.0)}}, path)
    return path


def _read_checkpoint(file: Path) -> Any:
    from maquette.training.checkpoint_io import AtomicCheckpointIO, CheckpointFolder

    message: list[str] = []
    result = CheckpointFolder(file.parent).newest(message.append)
    if result is None:
        from maquette.artifacts import StageError

        raise StageError(message[0] if message else f"{file}: none")
    return AtomicCheckpointIO().load_checkpoint(result[1])


def _prediction(folder: Path) -> Path:
    draft = WrittenPrediction(
        created="", params=3e6, tokens=6e7, compute=1e15, convention="exact", loss=2.5, interval50=(2.48, 2.52),
        interval90=(2.4, 2.6), form="kaplan", reach=10.0, slope=-0.05, fit="one", fit_digest="f" * 64,
        spec=None, before=None,
        runs=[{"name": "a", "loss": 3.0, "fingerprint": "x"}],
    )  # fmt: skip
    path = folder / PREDICTIONS / f"{write_prediction(draft, folder).id}.json"
    path.chmod(0o644)
    return path


def _votes(folder: Path) -> Path:
    """As the arena writes them down: each line with a checksum."""
    arena = Arena(["one", "two"], folder, seed=0)
    for number in range(3):
        battle = arena.begin([{"role": "user", "content": f"hi {number}"}])
        arena.battle(battle).answers.update(a="x", b="y")
        arena.vote(battle, ("a", "b", "tie")[number], "Ada")
    return folder / BATTLES


FORMATS = (
    Format("manifest.json", _artifact, lambda file: verify_files(file.parent), sealed=True),
    Format("artifact's file", lambda folder: _artifact(folder).parent / "data" / "a.txt",
           lambda file: verify_files(file.parents[1]).files, sealed=True),
    Format("run.json", _run, lambda file: read_run(file.parent), sealed=True),
    Format("metrics.jsonl", _file("metrics.jsonl", _lines([{"step": n, "train/loss": 5 - n / 9} for n in range(9)])),
           read_history),
    Format("checkpoint", _checkpoint, _read_checkpoint, sealed=True),
    Format("corpus parquet", _documents, lambda file: [vars_of(one) for one in read_documents(file.parent)]),
    Format("documents jsonl", _file("rows.jsonl", _lines(_ROWS)), _source("jsonl")),
    Format("documents jsonl.gz", _file("rows.jsonl.gz", gzip.compress(_lines(_ROWS).encode())), _source("jsonl")),
    Format("documents parquet", _parquet, _source("parquet")),
    Format("documents text", _file("rows.txt", "\n\n".join(_WORDS)), _source("text")),
    Format("instructions jsonl", _file("rows.jsonl", _lines([{"messages": _TALK}] * 3)),
           lambda file: list(ExampleFiles(file, "instructions").examples())),
    Format("instructions alpaca", _file("rows.json", json.dumps(_ALPACA)),
           lambda file: list(ExampleFiles(file, "instructions").examples())),
    Format("preferences jsonl", _file("rows.jsonl", _lines(_PREFERENCES)),
           lambda file: list(ExampleFiles(file, "preferences").examples())),
    Format("battles jsonl", _file("battles.jsonl", _lines(_BATTLES)), read_battles),
    Format("battles of the arena", _votes, read_battles),
    Format("battles csv", _file("battles.csv", "model_a,model_b,winner\none,two,model_a\none,two,tie\n"), read_battles),
    Format("questions jsonl", _file("exam.jsonl", _lines(_QUESTIONS)), lambda file: read_task("exam", file)),
    Format("questions truthfulqa",
           _file("exam.jsonl", _lines([{"question": "Why?", "mc1_targets": _TARGETS}] * 2)),
           lambda file: read_task("exam", file)),
    Format("questions csv", _file("exam.csv", "question,A,B,C,D,answer\nWhich?,a,b,c,d,B\nWho?,e,f,g,h,A\n"),
           lambda file: read_task("exam", file)),
    Format("tokenizer.json", _tokenizer, lambda file: Tokenizer.load(file.parent).encode("the hen sees")),
    Format("config.json", _model("config.json"), _read_model, named=("model.safetensors",)),
    Format("model.safetensors", _model("model.safetensors"), _read_model),
    *(
        Format(f"imported {name}", _imported(name), _read_imported,
               named=("model.safetensors", "one.safetensors", "two.safetensors", "tokenizer.json"))
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                     "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
                     "model.safetensors.index.json", "one.safetensors")
    ),
    Format("recipe yaml", _recipe, load_recipe),
    Format("runs csv", _file("runs.csv", _RUNS), lambda file: read_table(file)),
    Format("runs tsv", _file("runs.tsv", _RUNS.replace(",", "\t")), lambda file: read_table(file)),
    Format("prediction", _prediction, read_prediction, sealed=True),
    Format("settings yaml", _file("mine.yaml", "size: 10k\ndata:\n  length: 64\nnames: [a, {b: c}]\n"), load_yaml),
    Format("evaluation", _evaluation, lambda file: read_evaluations([file.parent]), sealed=True),
    *WRITTEN,
)  # fmt: skip
