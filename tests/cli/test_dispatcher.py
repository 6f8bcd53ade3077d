import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.registry import STAGES


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra makes a folder for each command, below the current one."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every stage only records the settings it was given."""
    seen: list[Any] = []
    monkeypatch.setattr(type(STAGES["train"]), "run", lambda self, settings: seen.append((self.name, settings)))
    return seen


def test_alone_it_lists_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    printed = capsys.readouterr().out
    for stage in STAGES.values():
        assert stage.name in printed and stage.help in printed


@pytest.mark.parametrize("name", list(STAGES))
def test_each_stage_has_help_and_composes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name, "--help") == 0
    assert "force=false" in capsys.readouterr().out
    assert call(name, "--show") == 0
    assert "outputs: outputs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["trian"], ["no stage 'trian'", "'train'"]),
        (["train", "lerning_rate=1"], ["unknown key 'lerning_rate'", "learning_rate"]),
        (["train", "data.sequence_lenght=128"], ["data.sequence_lenght", "data.sequence_length"]),
        (["train", "optimizer=adm"], ["optimizer=adm", "adamw, muon"]),
        (["train", "~optimizer=1"], ["~optimizer=1 is not known", "Write ~optimizer alone"]),
        (["leaderboard", "~feedback=[1]"], ["~feedback=[1] is not known"]),
        (["train", "precision=fp33"], ["fp33", "fp32"]),
        (["train", "tokenizer.kind=x"], ["tokenizer.kind=x", "bpe, unigram, char, byte"]),
        (["train", "data.sequence_length=abc"], ["data.sequence_length=abc", "whole number"]),
        (["train", "data.sequence_length=2"], ["data.sequence_length=2", "at least 8"]),
        (["train", "data.sequence_length=null"], ["data.sequence_length", "null"]),
        (["train", "size=big"], ["size=big", "300k"]),
        (["train", "source=jsonl"], ["source.path"]),
        (["train", "word"], ["'word'", "key=value"]),
        (["train", "--wat"], ["--wat"]),
        (["train", "--size", "30k"], ["'--size' is not an option", "size=30k"]),
        (["train", "--data.sequence-length=64"], ["is not an option", "data.sequence_length=64"]),
        (["train", "-m", "+sweep=isoflop", "sweep.budgets=3e9"], ["is not a list", "sweep.budgets=[3e9]"]),
        (["train", "--config-dir", "/does/not/exist"], ["/does/not/exist"]),
        (["train", "mixture.weights={code:"], ["can't read"]),
        (["train", "-m", "size=100k,big"], ["size=big"]),
        (["train", "+sweep=isoflop"], ["A sweep is many runs", "maquette train -m +sweep=isoflop"]),
    ],
)
def test_mistakes_get_an_answer_and_exit_code_2(
    arguments: list[str], overrides: list[str], recorded: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    for override in overrides:
        assert override in printed
    assert recorded == []


def test_overrides_words_and_json_reach_the_stage(recorded: list[Any]) -> None:
    assert call("score", "the mouse ate the cheese", "a = b", "seed", "--json") == 0
    assert recorded[-1][1].sentences == ["the mouse ate the cheese", "a = b", "seed"] and recorded[-1][1].json
    assert call("train", "size=1m", "model=qwen3", "mixture=code", "mixture.weights.docs=0.5") == 0
    settings = recorded[-1][1]
    assert settings.size == "1m" and settings.model.qk_norm and not settings.model.token_shift
    assert settings.mixture.weights == {"code": 0.7, "docs": 0.5}
    # What is a sweep to train is one study of an alignment, and the demo's own family.
    assert call("alignment", "+sweep=kl_frontier") == 0 and recorded[-1][1].title == "KL frontier"
    assert call("demo", "sweep.budgets=[1e9,2e9]") == 0 and len(recorded[-1][1].sweep.budgets) == 2
    assert call("train", "mixture=code", "mixture.weights={docs: 1}") == 0
    assert recorded[-1][1].mixture.weights == {"docs": 1.0}


def test_a_folder_of_ones_own_adds_options(
    tmp_path: Path, recorded: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mixture").mkdir()
    (tmp_path / "mixture" / "books.yaml").write_text("weights: {books: 1.0}\n")
    assert call("train", "mixture=books", "--config-dir", str(tmp_path)) == 0
    assert recorded[-1][1].mixture.weights == {"books": 1.0}
    assert call("train", "--help", "--config-dir", str(tmp_path)) == 0
    assert "books" in capsys.readouterr().out
    (tmp_path / "mixture" / "books.yaml").write_text("weihgts: {books: 1.0}\n")
    assert call("train", "mixture=books", f"--config-dir={tmp_path}") == 2
    assert "mixture.weights" in capsys.readouterr().err


@pytest.mark.slow(reason="composes two sweeps of six jobs, in a new MLflow store")
def test_multirun_runs_each_combination_and_survives_a_failing_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int]] = []
    given: list[Any] = []

    def run(self: Any, settings: Any) -> None:
        seen.append((settings.size, settings.seed))
        given.append(settings)
        if settings.size == "200k":
            raise cli.MaquetteError("this one fails", "on purpose")

    monkeypatch.setattr(type(STAGES["train"]), "run", run)
    for module in ("jobs", "work"):  # no forecast
        monkeypatch.setattr(f"maquette.cli.sweeps.{module}.trains_on_text", lambda stage, settings: False)
    monkeypatch.setattr("maquette.cli.sweeps.stored.data_digests", lambda line: None)  # no data
    code = call("train", "-m", "size=100k,200k,300k", "seed=0,1", f"outputs={tmp_path}")
    assert seen == [(size, seed) for size in ("100k", "200k", "300k") for seed in (0, 1)]
    printed = capsys.readouterr().err
    assert code == 1 and "4 of 6 jobs done" in printed and "this one fails" in printed
    (folder,) = (tmp_path / "sweeps").glob("train-*")
    outcomes = [json.loads(path.read_text()) for path in sorted((folder / "jobs").iterdir())]
    assert [outcome["status"] for outcome in outcomes] == ["finished"] * 2 + ["failed"] * 2 + ["finished"] * 2
    assert outcomes[2]["job"] == ["size=200k", "seed=0"] and "on purpose" in outcomes[2]["error"]

    call("train", "-m", "size=100k,200k,300k", "seed=0,1", f"outputs={tmp_path}")
    assert len(seen) == 12 and list((tmp_path / "sweeps").glob("train-*")) == [folder]  # the same line, the same sweep
    parents = {settings.logger["mlflow"].parent_run_id for settings in given}
    assert len(parents) == 1 and None not in parents  # one parent run, found again


def test_unexpected_errors_are_one_line_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Any, settings: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(type(STAGES["train"]), "run", run)
    assert call("train") == 1
    assert "ZeroDivisionError: oh" in capsys.readouterr().err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(self: Any, settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(STAGES["train"]), "run", run)
    assert call("train") == 130
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["--help", "no-such-stage"])
def test_nobody_reading_ends_it_without_a_word(line: str) -> None:
    """`maquette runs | head`, and with 2>&1: the shell's code of a broken pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "maquette", line]
    whole = line == "no-such-stage"
    ended = subprocess.run(command, stdout=writer, stderr=writer if whole else subprocess.PIPE, timeout=60)
    os.close(writer)
    assert ended.returncode == 128 + signal.SIGPIPE and not ended.stderr


def test_another_pipe_that_breaks_is_an_error_that_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The signal stays ignored: a worker's pipe would end the process with it."""

    def breaks(self: Any, settings: Any) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.write(writer, b"a job for a worker that is gone")

    monkeypatch.setattr(type(STAGES["runs"]), "run", breaks)
    assert call("runs") == 1
    assert "Broken pipe" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


def test_help_and_config_modules_import_nothing_heavy() -> None:
    heavy = (
        "torch",
        "numpy",
        "lightning",
        "mlflow",
        "hydra",
        "omegaconf",
        "pandas",
        "tokenizers",
        "matplotlib",
        "rich",
    )
    program = (
        "import sys\n"
        "from maquette.cli.command_line import dispatcher as cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [name for name in {heavy!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"
