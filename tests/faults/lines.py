"""SIGKILL at random moments in whole command lines, then the command again: what it makes must be what it makes when
nobody interrupts it, and nothing half written may be left.

Each line runs in a forked child, so that nothing is imported twice. The lines follow each other in one folder; before
each trial the folder is what it was before the line.
"""

import csv
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.kills import fork, leftovers
from tests.faults.record import Outcome, Record
from tests.support.chat_server import ChatServer

from maquette.artifacts.files import digest, file_digest, listed
from maquette.artifacts.manifest import verify_files
from maquette.cli.command_line.overrides import literal

_WORDS = (
    "mouse",
    "cat",
    "dog",
    "owl",
    "fox",
    "hen",
    "cow",
    "bee",
    "door",
    "lamp",
    "river",
    "stone",
    "letter",
    "window",
)
PART = "killed command lines"

_RESULTS = (
    "model.safetensors", "*.parquet", "*.npy", "*.bin", "preferences.jsonl", "tokenizer.json", "runs.csv",
    "ratings.json", "answers.json", "leaderboard.html", "instructions/*/instructions.jsonl", "rejected.jsonl",
)  # fmt: skip
"""Files whose bytes do not depend on when and where they are made."""


def data(root: Path) -> None:
    """Documents, instructions, preferences, prompts and a table of runs, all small."""
    numbers = random.Random(0)
    (root / "documents").mkdir(parents=True)
    with (root / "documents" / "some.jsonl").open("w") as file:
        for number in range(80):
            text = " ".join(
                f"{(word := numbers.choice(_WORDS))} {word.upper()} {numbers.randrange(999)}." for _ in range(60)
            )
            file.write(json.dumps({"id": str(number), "text": text, "domain": numbers.choice("ab")}) + "\n")

    def turn(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text}

    asked = [turn("user", f"{one}?") for one in _WORDS]
    rows: dict[str, list[Any]] = {
        "instructions": [{"messages": [one, turn("assistant", one["content"].upper())]} for one in asked],
        "preferences": [
            {"prompt": [one], "chosen": [turn("assistant", "yes")], "rejected": [turn("assistant", "no no")],
             "annotator": "Ada"}
            for one in asked
        ],
        "prompts": [{"prompt": [one]} for one in asked],
    }  # fmt: skip
    for name, values in rows.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
    from maquette.data.conversations import write_preferences
    from maquette.feedback.annotators.simulated import AnnotatorProfile, SimulatedAnnotator
    from maquette.feedback.comparison import Comparison, preferences_of
    from maquette.feedback.tasks import Exercises, demonstrate

    exercises = Exercises(["pick"]).take(40)
    completions = [demonstrate(exercises, "easy", seed=seed) for seed in (1, 2)]
    pairs = [
        Comparison(tuple(one.messages), *both, one.facts()) for one, *both in zip(exercises, *completions, strict=True)
    ]
    judged = SimulatedAnnotator(AnnotatorProfile(noise=2.0)).judge(pairs)
    write_preferences(root / "pairs.jsonl", preferences_of(pairs, judged, "noisy"))
    with (root / "battles.jsonl").open("w") as file:
        for _ in range(90):
            one, other = numbers.sample(["alpha", "beta", "gamma"], 2)
            winner = "model_a" if numbers.random() < 0.4 + 0.3 * (one < other) else "model_b"
            file.write(json.dumps({"model_a": one, "model_b": other, "winner": winner}) + "\n")
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("N", "D", "loss", "C"))
        for compute in (1e16, 1e17, 1e18):
            for share in (0.2, 0.5, 1.0, 2.0, 5.0):
                params = share * (compute / 120) ** 0.5
                tokens = compute / 6 / params
                table.writerow((params, tokens, 1.7 + 400 / params**0.34 + 410 / tokens**0.28, compute))


def written_tasks(messages: list[Any]) -> str:
    """Two tasks of an author, which depend on what it is asked alone; the second is often too near another."""
    numbers = random.Random(messages[-1]["content"])
    first, second = numbers.sample(_WORDS, 2)
    tasks = [
        (f"Describe how a {first} and {numbers.randrange(10**6)} {second}s would meet.", f"Near the {second}."),
        (f"Name something that a {second} needs.", "Rest."),
    ]
    return "\n\n".join(
        f"Task {number}\nInstruction: {instruction}\nInput: (none)\nOutput: {output}"
        for number, (instruction, output) in enumerate(tasks, 4)
    )


def lines(root: Path, author: str) -> dict[str, list[str]]:
    """The command lines by name, in an order in which each finds what it needs. `author`: the address of a server that
    writes instructions."""
    source = ["source=jsonl", f"source.path={root / 'documents'}", "corpus.near_duplicates=1.0",
              "corpus.validation=0.1", "corpus.test=0.1", "corpus.workers=1"]  # fmt: skip
    text = [*source, "shards.workers=1", "shards.held_out_window=0", "tokenizer.vocab_size=300"]
    # Without checkpoints at every few steps a killed run would only ever begin again.
    steady = ["threads=1", "compile=off", "callbacks.samples.prompts=[]", "callbacks.checkpoint.every_n_train_steps=3"]
    short = ["data.sequence_length=32", "data.batch_size_tokens=256", "num_validations=2", *steady]
    pretraining = [*text, *short, "data.validation_tokens=512"]
    model = f"checkpoint={root / 'start'}"
    examples = ["data.sequence_length=32", "num_validations=1", "logger=none", "data.batch_size_tokens=128", *steady]
    return {
        "corpus": ["corpus", *source],
        "tokenizer": ["tokenizer", *source, "tokenizer.vocab_size=300"],
        "tokens": ["tokens", *text],
        "pretrain": ["train", "size=5k", "tokens=6k", *pretraining, "logger=none"],
        "pretrain, MLflow": ["train", "size=5k", "tokens=7k", *pretraining],
        "sweep": ["train", "-m", "size=5k,7k", "tokens=4k", *pretraining, "logger=none", "hydra/launcher=basic"],
        "sft": ["train", "objective=sft", f"instructions.path={root / 'instructions.jsonl'}", model, *examples],
        "reward": ["train", "objective=reward", f"preferences.path={root / 'preferences.jsonl'}", model, *examples],
        "dpo": ["train", "objective=dpo", f"preferences.path={root / 'preferences.jsonl'}", model, *examples],
        "ppo": ["train", "objective=ppo", f"prompts.path={root / 'prompts.jsonl'}", model, *examples,
                f"reward.checkpoint={root / 'judge'}", "objective.rollout_batch_size=16", "objective.num_iterations=4"],
        "fit": ["fit", f"runs={root / 'table.csv'}", "bootstrap=100", "tracking=none"],
        "predict": ["predict", "compute=1e19", "tracking=none"],
        "evaluate": ["evaluate", model, "suite.embedded=[arithmetic]", "suite.items=20", "suite.documents=2",
                     "protocol.orders=2", "protocol.resamples=50", "tracking=none"],
        "annotate": ["annotate", f"given={root / 'pairs.jsonl'}", "feedback=alpacafarm", "tracking=none"],
        "leaderboard": ["leaderboard", "tracking=none"],
        "compare": ["compare", f"models=[{root / 'start'},{root / 'other'}]",
                    "feedback=gold", "count=10", "max_completion_length=4", "tracking=none"],
        "ratings": ["ratings", f"battles={root / 'battles.jsonl'}", "bootstrap=30", "tracking=none"],
        "alignment": ["alignment", *study(root), "tracking=none"],
        "export": ["export", model, f"to={root / 'outputs' / 'exported'}"],
        "import": ["import", f"path={root / 'start'}"],
        "instruct": ["instruct", f"author.url={author}", "author.model=server", "author.workers=2", "count=12",
                     "tasks_per_request=2", "tracking=none"],
    }  # fmt: skip


CHANGED: dict[str, list[list[str]]] = {
    "corpus": [["corpus.test=0.2"]],
    "tokens": [["tokenizer.vocab_size=310"], ["corpus.test=0.2"]],
    "pretrain": [["seed=2"], ["callbacks.checkpoint.every_n_train_steps=2"], ["optimizer.lr=0.01"], ["tokens=7k"],
                 ["num_validations=3"]],
    "sweep": [["size=5k,9k"], ["seed=2"]],
    "sft": [["seed=2"], ["callbacks.checkpoint.every_n_train_steps=2"]],
    "reward": [["objective.centering=0.1"]],
    "dpo": [["objective.beta=0.3"], ["seed=2"]],
    "ppo": [["objective.num_iterations=3"], ["objective.kl_coefficient=0.2"]],
    "fit": [["seed=2"]],
    "compare": [["count=8"], ["seed=2"]],
    "instruct": [["count=15"], ["seed=2"]],
}  # fmt: skip
"""Settings with which a line is given between its kill and its end: of another run, or of the same one."""


def study(root: Path) -> list[str]:
    """Settings of a study of alignment that is over in seconds."""
    step = {"threads": 1, "compile": "off", "num_validations": 2}
    short = {"batch_size": 16, "epochs": 1}
    parts: dict[str, Any] = {
        "base": {
            "source": "jsonl", "source.path": str(root / "documents"), "tokenizer": "byte",
            "corpus": {"near_duplicates": 1.0, "validation": 0.1, "test": 0.1, "workers": 1},
            "shards": {"held_out_window": 0, "workers": 1}, "size": "13k", "tokens": "4k",
            "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            "data": {"sequence_length": 192, "batch_size_tokens": 768, "validation_tokens": 512}, **step},
        "sft": {"instructions": {"count": 64, "held_out": 16}, "objective": {**short, "max_completion_length": 8},
                **step},
        "labels": {"count": 40, "max_completion_length": 8, "repeats": 3, "feedback": {"noise": 1}},
        "reward": {"objective": short, **step},
        "dpo": {"objective": {**short, "sample_prompts": 2, "max_completion_length": 8}, **step},
        "ppo": {"objective": {"num_iterations": 2, "rollout_batch_size": 8, "max_completion_length": 8,
                              "normalize_scores": 8}, **step},
        "betas": [0.1], "kl_coefficients": [0.0], "figures": ["gold", "frontier"], "prompts": 12,
        "max_completion_length": 8, "best_of": 2,
    }  # fmt: skip
    return [f"{key}={literal(value)}" for key, value in parts.items()]


def run_line(arguments: list[str], outputs: Path, log: Path) -> int:
    """A child that runs the command line; its process number."""

    def work() -> None:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(outputs.parent)
        from maquette.cli import main

        main([*arguments, f"outputs={outputs}"])

    return fork(work)


def killed_after(child: int, seconds: float) -> float | None:
    """Lets a child work for so long and kills it; None, or after how many seconds it had ended by itself."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        if os.waitpid(child, os.WNOHANG)[0]:
            return time.monotonic() - began
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else seconds


def results(outputs: Path) -> dict[str, str]:
    """Digests of what has been made, by path. Raises where an artifact is damaged."""
    actual = {
        str(path.relative_to(outputs)): file_digest(path)
        for pattern in _RESULTS
        for path in listed(outputs, f"**/{pattern}")
        if not {"mlartifacts", "hydra"} & {*path.parts}
    }
    for path in listed(outputs, "**/manifest.json"):
        if not {"mlartifacts", "hydra"} & {*path.parts}:
            verify_files(path.parent)
    for path in listed(outputs, "runs/*/run.json"):
        record = json.loads(path.read_text())
        outcome = {key: record.get(key) for key in ("status", "step", "validation_loss", "parameters", "metrics")}
        actual[str(path.relative_to(outputs))] = digest(outcome)
    for path in listed(outputs, "runs/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        curves = [[row["step"], *(row.get(key) for key in ("train/loss", "validation/loss"))] for row in rows]
        actual[str(path.relative_to(outputs))] = digest(curves)
    for path in listed(outputs, "comparisons/*/comparison.json"):
        result = json.loads(path.read_text())
        actual[str(path.relative_to(outputs))] = digest({key: result[key] for key in result if key != "seconds"})
    for path in listed(outputs, "evaluations/*/evaluation.json"):
        actual[str(path.relative_to(outputs))] = digest(json.loads(path.read_text())["scores"])
    actual |= {f"prediction {n}": "" for n, _ in enumerate(listed(outputs, "predictions/*.json"))}
    return actual


class Attack:
    """Prepares `root` (documents, two models), and remembers what is there before and after each line."""

    def __init__(self, root: Path, only: list[str], say: Callable[[str], None]) -> None:
        self.root, self.outputs, self.only, self.log = root, root / "outputs", only, root / "log"
        data(root)
        self.outputs.mkdir()
        self._models()
        server = ChatServer()
        server.reply_to = written_tasks
        self.lines = lines(root, server.url)
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, str]] = {}
        self.failed: dict[str, str] = {}
        for number, (name, arguments) in enumerate(self.lines.items()):
            if only and name not in only:
                continue
            shutil.copytree(self.outputs, root / "before" / str(number), symlinks=True)
            began = time.monotonic()
            _, status = os.waitpid(run_line(arguments, self.outputs, self.log), 0)
            if status:
                self.failed[name] = f"fails undisturbed: {self.log.read_text()[-2000:]}"
                say(f"  {name} {self.failed[name]}")
                continue
            self.seconds[name] = time.monotonic() - began
            self.expected[name] = results(self.outputs)
            say(f"  {name}: {self.seconds[name]:.1f} s, {len(self.expected[name])} results")

    def _models(self) -> None:
        from maquette.model import LanguageModel, TransformerConfig, hf
        from maquette.text import train_tokenizer
        from maquette.text.config import TokenizerConfig

        tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
        shape = TransformerConfig(tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                  max_position_embeddings=128)  # fmt: skip
        for seed, name in enumerate(("start", "other")):
            hf.save(LanguageModel(shape, seed=seed), tokenizer, self.root / name)

        def judge() -> None:
            from maquette.cli import main

            main(["train", "objective=reward", f"preferences.path={self.root / 'preferences.jsonl'}",
                  f"checkpoint={self.root / 'start'}", "data.sequence_length=32", "num_validations=1", "logger=none",
                  "threads=1", f"outputs={self.root / 'first'}"])  # fmt: skip

        os.waitpid(fork(judge), 0)
        [made] = listed(self.root / "first" / "runs")
        shutil.copytree(made, self.root / "judge")

    def trial(self, name: str, numbers: random.Random) -> Outcome:
        """One kill or two of the line at random moments, and the line again. A kill after its end is none.

        Where the line is in `CHANGED`, it is sometimes given with other settings in between, and killed or not; these
        are given again at the end.
        """
        number = list(self.lines).index(name)
        shutil.rmtree(self.outputs)
        shutil.copytree(self.root / "before" / str(number), self.outputs, symlinks=True)
        kills, wanted = 0, numbers.choice((1, 1, 2))
        while kills < wanted:
            child = run_line(self.lines[name], self.outputs, self.log)
            if (ended := killed_after(child, self.seconds[name] * numbers.uniform(0.02, 1.0))) is not None:
                self.seconds[name] = ended
                break
            kills += 1
        if not kills:
            return 0, []
        changed = numbers.choice([*CHANGED.get(name, []), [], []])
        if changed:
            child = run_line([*self.lines[name], *changed], self.outputs, self.log)
            kills += killed_after(child, self.seconds[name] * numbers.uniform(0.2, 3.0)) is None
        began = time.monotonic()
        _, status = os.waitpid(run_line(self.lines[name], self.outputs, self.log), 0)
        self.seconds[name] = 0.7 * self.seconds[name] + 0.3 * max(time.monotonic() - began, 0.1)
        if changed and not status:
            _, status = os.waitpid(run_line([*self.lines[name], *changed], self.outputs, self.log), 0)
        return kills, [f"{changed} {line}" if changed else line for line in self._lost(name, status, bool(changed))]

    def _lost(self, name: str, status: int, more: bool) -> list[str]:
        """What is missing or other after the line was given again. `more`: there may be more than is expected."""
        if status:
            return [f"the second time: {self.log.read_text()[-600:]}"]
        try:
            actual, expected = results(self.outputs), self.expected[name]
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        compared = {*expected} if more else {*actual, *expected}
        others = sorted(key for key in compared if actual.get(key) != expected.get(key))
        # One prediction more: killed after it was written.
        if others and not all(other.startswith("prediction ") and other in actual for other in others):
            return [f"other results: {others[:4]}"]
        left = leftovers(self.outputs)
        return [f"left for ever: {[str(one.relative_to(self.outputs)) for one in left[:4]]}"] if left else []

    def run(self, record: Record, seed: int, trials: int, seconds: float) -> None:
        """Up to `trials` of each line for some seconds; next comes the line that has had the least time."""
        until = time.monotonic() + seconds
        for name, message in self.failed.items():
            record.attempt(PART, name, seed, "undisturbed", lambda message=message: (1, [message]))  # type: ignore[misc]
        while time.monotonic() < until:
            rows = record.rows(PART)
            spent = {
                name: rows[name].seconds if name in rows else 0.0
                for name in self.expected
                if (name not in rows or rows[name].trials < trials) and (not self.only or name in self.only)
            }
            if not spent:
                return
            name = min(spent, key=lambda name: spent[name])
            trial = sum(one["kind"] == name and one["seed"] == seed for one in record.attempts)
            numbers = random.Random(f"{seed} {name} {trial}")
            record.attempt(PART, name, seed, trial, lambda name=name, numbers=numbers: self.trial(name, numbers))


def imported() -> None:
    """Everything that the lines need, before the first fork."""
    import lightning.pytorch
    import matplotlib.pyplot
    import mlflow
    import pandas
    import scipy.optimize
    import torch

    from maquette.cli.command_line.registry import STAGES

    assert lightning and matplotlib and mlflow and pandas and scipy
    torch.set_num_threads(1)
    for stage in STAGES.values():
        __import__(f"maquette.cli.{stage.module}")
