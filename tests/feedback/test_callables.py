"""A user's reward and annotator in the current folder: found before anything is loaded, errors that name them."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli import annotate
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.data.conversations import read_preferences, write_preferences
from maquette.feedback.annotators.custom import CallableAnnotator
from maquette.feedback.building import build_annotator, build_reward
from maquette.feedback.comparison import Comparison, Judgement, preferences_of
from maquette.feedback.config import FeedbackConfig, RewardConfig
from maquette.objectives.completions import Completion

MODULE = "my_feedback_of_tests"
SOURCE = """import threading
def reward(completions):
    return [len(one.answer) for one in completions]

def broken(completions):
    return [1 / len(one.answer) for one in completions]

def few(completions):
    return [1.0]

class Reward:
    def __call__(self, completions):
        return [2.0] * len(completions)

def shorter(comparisons):
    return [None if one.first == one.second else float(len(one.first) < len(one.second)) for one in comparisons]

def wild(comparisons):
    return [7] * len(comparisons)

class Judge:
    def judge(self, comparisons):
        raise RuntimeError("tired")

NUMBER = 3

def text(completions):
    return "ab"

def texts(completions):
    return ["1.5", "2"]

def nothing(completions):
    return None

def nan(completions):
    return [1.0, float("nan")]

def shape(completions):
    return [[1.0], [2.0]]

def one(completions):
    return 1.0

def table(completions):
    return {1: 1.0, 2: 2.0}

def huge(completions):
    return [10**5000, 1]

def exits(completions):
    raise SystemExit(0)

class Mute(Exception):
    def __str__(self):
        raise RuntimeError

def mute(completions):
    raise Mute

def hangs(given):
    threading.Event().wait(30)
"""
ODD = ("text", "texts", "nothing", "nan", "shape", "one", "table", "huge")


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop(MODULE, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def completion(answer):
    return Completion((), answer, (), (), True)


def pair(first, second):
    return Comparison(({"role": "user", "content": "?"},), first, second)


def test_a_function_and_a_class_are_rewards():
    reward = build_reward(RewardConfig(callable=f"{MODULE}:reward"), "outputs")
    assert reward([completion("ab"), completion("")]) == [2.0, 0.0]
    assert build_reward(RewardConfig(callable=f"{MODULE}.Reward"), "outputs")([completion("ab")]) == [2.0]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("broken", StageError, [f"{MODULE}:broken", f"{MODULE}.py:6", "ZeroDivisionError"]),
        ("few", StageError, [f"{MODULE}:few", f"{MODULE}.py:8", "1 values", "2 completions"]),
        *((name, StageError, [f"{MODULE}:{name}", f"{MODULE}.py:", "number"]) for name in ODD),
        ("exits", StageError, [f"{MODULE}:exits failed", f"{MODULE}.py:", "SystemExit"]),
        ("mute", StageError, [f"{MODULE}:mute failed", f"{MODULE}.py:", "Mute"]),
        ("NUMBER", ConfigError, [f"reward.callable={MODULE}:NUMBER", "called"]),
        ("rewrad", ConfigError, [f"reward.callable={MODULE}:rewrad", "Did you mean reward"]),
    ],
)
def test_what_is_wrong_with_a_reward_names_it(name, error, words):
    with pytest.raises(error) as caught:
        build_reward(RewardConfig(callable=f"{MODULE}:{name}"), "outputs")([completion("ab"), completion("")])
    for word in words:
        assert word in str(caught.value)


def test_ctrl_c_ends_a_function_that_hangs():
    """Nobody else waits for it: what is finished is kept, and the command says how to resume."""
    reward = build_reward(RewardConfig(callable=f"{MODULE}:hangs"), "outputs")
    judge = CallableAnnotator(f"{MODULE}:hangs").judge
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's workers ignore it
    try:
        for call, given in ((reward, [completion("ab")]), (judge, [pair("a", "b")])):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                call(given)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_annotator_gives_preferences_or_judgements():
    annotator = build_annotator(FeedbackConfig(kind="callable", callable=f"{MODULE}:shorter"), "outputs", [])
    assert annotator.name == f"{MODULE}:shorter"
    judged = annotator.judge([pair("a", "bb"), pair("aa", "b"), pair("a", "a")])
    assert judged == [Judgement(1.0), Judgement(0.0), Judgement(None)]
    with pytest.raises(StageError, match=rf"{MODULE}:wild .*{MODULE}.py:\d+. gave the preference 7"):
        CallableAnnotator(f"{MODULE}:wild").judge([pair("a", "b")])
    with pytest.raises(StageError, match=rf"{MODULE}:Judge failed at .*{MODULE}.py:\d+ in judge: RuntimeError: tired"):
        CallableAnnotator(f"{MODULE}:Judge").judge([pair("a", "b")])


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("train", ["objective=ppo", f"reward.callable={MODULE}:rewrad"]),
        ("train", ["objective=ppo", f"reward.callable={MODULE}x:reward"]),
        ("annotate", ["feedback=callable", f"feedback.callable={MODULE}:shortest"]),
        ("compare", ["models=[a,b]", "feedback=callable", f"feedback.callable={MODULE}:shortest"]),
        ("annotate", ["feedback=callable"]),
        ("annotate", ["feedback=gold", f"feedback.callable={MODULE}:shorter"]),
        ("train", ["objective=ppo", "reward.checkpoint=x", f"reward.callable={MODULE}:reward"]),
    ],
)  # fmt: skip
def test_what_is_missing_is_a_wrong_setting_when_the_line_is_read(stage, words):
    with pytest.raises(ConfigError) as caught:
        compose(STAGES[stage], words)
    assert ".callable" in str(caught.value)


def test_a_missing_reward_is_told_without_torch():
    code = (
        "import sys\nfrom maquette.artifacts import ConfigError\n"
        "from maquette.cli.command_line.registry import STAGES\n"
        "from maquette.cli.command_line.composition import compose\n"
        f"try:\n    compose(STAGES['train'], ['objective=ppo', 'reward.callable={MODULE}:rewrad'])\n"
        "except ConfigError:\n    sys.exit(2 if 'torch' not in sys.modules else 3)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 2


def test_pairs_are_annotated_by_a_function_and_its_edit_makes_new_labels(tmp_path):
    pairs = [pair("a" * (1 + i % 3), "b" * (1 + (i + 1) % 3)) for i in range(12)]
    write_preferences(tmp_path / "given.jsonl", preferences_of(pairs, [Judgement(1.0)] * 12, "somebody"))
    words = ["given=given.jsonl", "tracking=none", "feedback=callable", f"feedback.callable={MODULE}:shorter"]
    folder = annotate.run(compose(STAGES["annotate"], words))
    rows = read_preferences(folder / "preferences.jsonl")
    assert rows and {row.annotator for row in rows} == {f"{MODULE}:shorter"}
    assert all(len(row.chosen[-1]["content"]) < len(row.rejected[-1]["content"]) for row in rows)
    assert annotate.run(compose(STAGES["annotate"], words)) == folder
    Path(f"{MODULE}.py").write_text(SOURCE + "\n# edited\n")
    assert annotate.run(compose(STAGES["annotate"], words)) != folder
