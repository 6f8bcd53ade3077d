"""The adapter for lm-evaluation-harness: the same numbers as its own `hf` backend on the exported folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maquette.artifacts import StageError
from maquette.cli.command_line import dispatcher
from maquette.cli.command_line.registry import STAGES
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

pytest.importorskip("lm_eval", reason="needs the extra evaluation")
pytest.importorskip("accelerate", reason="the hf backend needs it")
import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from maquette.evaluation.harness import HarnessModel

TASK = """
task: local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = ["the mouse ate the cheese and the cat saw it all, " * 30, "one two three four five six seven " * 30]
    tokenizer = train_tokenizer(text, TokenizerConfig(vocab_size=320))
    shape = TransformerConfig(
        tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
    )
    model = LanguageModel(shape, seed=3)
    for weight in model.parameters():  # far from uniform, so that differences would show
        weight.data.mul_(2.0)
    return hf.save(model, tokenizer, tmp_path_factory.mktemp("harness") / "model")


@pytest.fixture(scope="module")
def backends(folder: Path) -> tuple[HarnessModel, HFLM]:
    return HarnessModel(folder), HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=row, idx=i) for i, row in enumerate(arguments)]


def test_log_likelihoods(backends: tuple[HarnessModel, HFLM]) -> None:
    pairs = [
        ("the mouse ate", " the cheese"), ("the mouse ate ", "the cat"), ("", "one two"), ("one two three", " A"),
        ("one two three", " B"), ("the cat " * 60, " saw it all"), ("x", " héé"),
    ]  # fmt: skip
    requests = instances("loglikelihood", pairs)
    ours, theirs = (backend.loglikelihood(requests, disable_tqdm=True) for backend in backends)
    assert [row[0] for row in ours] == pytest.approx([row[0] for row in theirs], abs=1e-4)
    assert [row[1] for row in ours] == [bool(row[1]) for row in theirs]


def test_rolling(backends: tuple[HarnessModel, HFLM]) -> None:
    requests = instances("loglikelihood_rolling", [("the mouse ate",), ("one two three four five " * 50,), ("x",)])
    ours, theirs = (backend.loglikelihood_rolling(requests, disable_tqdm=True) for backend in backends)
    assert ours == pytest.approx(theirs, abs=2e-4, rel=1e-6)


def test_generation(backends: tuple[HarnessModel, HFLM]) -> None:
    greedy = {"until": ["\n\n"], "max_gen_toks": 20, "do_sample": False}
    requests = instances("generate_until", [("the mouse", greedy), ("one two three", greedy), ("a", greedy)])
    ours, theirs = (backend.generate_until(requests, disable_tqdm=True) for backend in backends)
    assert ours == theirs
    stop = ours[0][3:5]
    requests = instances("generate_until", [("the mouse", {"until": [stop], "max_gen_toks": 20})])
    assert backends[0].generate_until(requests, disable_tqdm=True) == [ours[0].partition(stop)[0]]
    with pytest.raises(StageError, match="64 new tokens"):
        backends[0].generate_until(instances("generate_until", [("a", {"max_gen_toks": 64})]), disable_tqdm=True)


@pytest.mark.slow(reason="imports lm-eval and runs a task of it")
def test_a_local_task(backends: tuple[HarnessModel, HFLM], tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    words = ["the", "mouse", "ate", "cheese", "cat", "saw", "one", "two", "three", "four"]
    rows = [
        {
            "question": " ".join(numbers.choice(words, 6)),
            "choices": [" ".join(numbers.choice(words, k)) for k in (1, 2, 3)],
            "answer": int(numbers.integers(3)),
        }
        for _ in range(40)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "local.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = [
        lm_eval.simple_evaluate(
            model=backend, tasks=["local"], task_manager=manager, bootstrap_iters=0, log_samples=True, num_fewshot=1
        )
        for backend in backends
    ]
    ours, theirs = results
    assert ours["results"]["local"]["acc,none"] == theirs["results"]["local"]["acc,none"]
    for one, other in zip(ours["samples"]["local"], theirs["samples"]["local"], strict=True):
        first = [response[0][0] for response in one["resps"]]
        assert first == pytest.approx([response[0][0] for response in other["resps"]], abs=1e-4)


def test_all_words_are_the_harnesss_own(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    words = ["--model_args", f"checkpoint={folder}", "--json", "a=b", "--", "-m"]
    assert dispatcher.parse(STAGES["harness"], words).positional == words
    with pytest.raises(SystemExit) as left:
        dispatcher.main(["harness", "run", "--help"])
    assert left.value.code == 0 and "--include_path" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        dispatcher.main(["harness", "--no-such-option", "x"])
    assert left.value.code == 2 and "--no-such-option" in capsys.readouterr().err


@pytest.mark.slow(reason="imports lm-eval and runs a task of it")
def test_the_stage_runs_a_local_task(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"question": "the mouse ate", "choices": [" the cheese", " one two three"], "answer": 0}
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "local.yaml").write_text(TASK.format(data="data.jsonl"))
    (tmp_path / "outputs" / "artifacts" / "models").mkdir(parents=True)
    (tmp_path / "outputs" / "artifacts" / "models" / "mine").symlink_to(folder)
    words = ["--model_args", "checkpoint=mine", "--tasks", "local", "--include_path", ".", "--output_path", "results"]
    with pytest.raises(SystemExit) as left:
        dispatcher.main(["harness", *words])
    assert not left.value.code
    [file] = (tmp_path / "results").rglob("results_*.json")
    results = json.loads(file.read_text())
    assert results["results"]["local"]["acc,none"] in (0, 1) and results["config"]["model"] == "maquette"
