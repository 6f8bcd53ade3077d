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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.kills import fork, leftovers

from maquette.artifacts.files import digest, file_digest, listed
from maquette.artifacts.manifest import verify_files

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
_RESULTS = (
    "model.safetensors", "*.parquet", "*.npy", "*.bin", "preferences.jsonl", "tokenizer.json", "runs.csv",
)  # fmt: skip
"""Files whose bytes do not depend on when and where they are made."""


@dataclass
class Tally:
    """What came of the trials of one line."""

    kills: int = 0
    before: int = 0
    """Kills that came after the line had ended; they are not counted."""
    lost: list[str] = field(default_factory=list)


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
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("N", "D", "loss", "C"))
        for compute in (1e16, 1e17, 1e18):
            for share in (0.2, 0.5, 1.0, 2.0, 5.0):
                params = share * (compute / 120) ** 0.5
                tokens = compute / 6 / params
                table.writerow((params, tokens, 1.7 + 400 / params**0.34 + 410 / tokens**0.28, compute))


def lines(root: Path) -> dict[str, list[str]]:
    """The command lines by name, in an order in which each finds what it needs."""
    source = ["source=jsonl", f"source.path={root / 'documents'}", "corpus.near_duplicates=1.0",
              "corpus.validation=0.1", "corpus.test=0.1", "corpus.workers=1"]  # fmt: skip
    text = [*source, "shards.workers=1", "shards.held_out_window=0", "tokenizer.vocab_size=300"]
    short = ["data.sequence_length=32", "data.batch_size_tokens=256", "num_validations=2", "threads=1", "compile=off",
             "callbacks.samples.prompts=[]"]  # fmt: skip
    pretraining = [*text, *short, "data.validation_tokens=512"]
    model = f"checkpoint={root / 'start'}"
    examples = ["data.sequence_length=32", "num_validations=1", "threads=1", "compile=off",
                "callbacks.samples.prompts=[]", "logger=none", "data.batch_size_tokens=128"]  # fmt: skip
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
        "export": ["export", model, f"to={root / 'outputs' / 'exported'}"],
        "import": ["import", f"path={root / 'start'}"],
    }  # fmt: skip


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
    for path in listed(outputs, "evaluations/*/evaluation.json"):
        actual[str(path.relative_to(outputs))] = digest(json.loads(path.read_text())["scores"])
    actual |= {f"prediction {n}": "" for n, _ in enumerate(listed(outputs, "predictions/*.json"))}
    return actual


class Attack:
    """Prepares `root` (documents, two models), and remembers what is there before and after each line."""

    def __init__(self, root: Path, seed: int, only: list[str], say: Callable[[str], None]) -> None:
        self.root, self.outputs, self.only = root, root / "outputs", only
        self.numbers = random.Random(f"{seed} lines")
        self.log, self._say = root / "log", say
        data(root)
        self.outputs.mkdir()
        self._models()
        self.lines = lines(root)
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, str]] = {}
        for number, (name, arguments) in enumerate(self.lines.items()):
            if only and name not in only:
                continue
            shutil.copytree(self.outputs, root / "before" / str(number), symlinks=True)
            began = time.monotonic()
            _, status = os.waitpid(run_line(arguments, self.outputs, self.log), 0)
            if status:
                raise RuntimeError(f"{name} fails undisturbed: {self.log.read_text()[-2000:]}")
            self.seconds[name] = time.monotonic() - began
            self.expected[name] = results(self.outputs)
            say(f"  {name}: {self.seconds[name]:.1f} s, {len(self.expected[name])} results")

    def _models(self) -> None:
        from maquette.model import LanguageModel, TransformerConfig, hf
        from maquette.text import train_tokenizer
        from maquette.text.config import TokenizerConfig

        tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
        shape = TransformerConfig(tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                  max_position_embeddings=64)  # fmt: skip
        hf.save(LanguageModel(shape, seed=0), tokenizer, self.root / "start")

        def judge() -> None:
            from maquette.cli import main

            main(["train", "objective=reward", f"preferences.path={self.root / 'preferences.jsonl'}",
                  f"checkpoint={self.root / 'start'}", "data.sequence_length=32", "num_validations=1", "logger=none",
                  "threads=1", f"outputs={self.root / 'first'}"])  # fmt: skip

        os.waitpid(fork(judge), 0)
        [made] = listed(self.root / "first" / "runs")
        shutil.copytree(made, self.root / "judge")

    def trial(self, name: str, tally: Tally) -> None:
        """One kill of the line at a random moment, and the line again."""
        number = list(self.lines).index(name)
        shutil.rmtree(self.outputs)
        shutil.copytree(self.root / "before" / str(number), self.outputs, symlinks=True)
        kills = 0
        while kills < self.numbers.choice((1, 1, 2)):
            child = run_line(self.lines[name], self.outputs, self.log)
            time.sleep(self.seconds[name] * self.numbers.uniform(0.02, 1.0))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                tally.before += 1
                break
            kills += 1
        if not kills:
            return
        tally.kills += kills
        began = time.monotonic()
        _, status = os.waitpid(run_line(self.lines[name], self.outputs, self.log), 0)
        self.seconds[name] = 0.7 * self.seconds[name] + 0.3 * max(time.monotonic() - began, 0.1)
        try:
            actual = results(self.outputs) if status == 0 else {}
        except Exception as error:
            tally.lost.append(f"{type(error).__name__}: {error}")
            return
        if status:
            tally.lost.append(f"the second time: {self.log.read_text()[-600:]}")
        elif actual != self.expected[name]:
            others = sorted(
                key for key in {*actual, *self.expected[name]} if actual.get(key) != self.expected[name].get(key)
            )
            if not all(other.startswith("prediction ") for other in others):  # one more: killed after it was written
                tally.lost.append(f"other results: {others[:4]}")
        elif left := leftovers(self.outputs):
            tally.lost.append(f"left for ever: {[str(one.relative_to(self.outputs)) for one in left[:4]]}")

    def run(self, trials: int, seconds: float) -> dict[str, Tally]:
        """Up to `trials` of each line, in turn, for some seconds."""
        until = time.monotonic() + seconds
        tallies = {name: Tally() for name in self.expected if not self.only or name in self.only}
        for _ in range(trials):
            for name, tally in tallies.items():
                if time.monotonic() > until:
                    return tallies
                lost = len(tally.lost)
                self.trial(name, tally)
                for line in tally.lost[lost:]:
                    self._say(f"  LOST {name}: {line}")
        return tallies


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
