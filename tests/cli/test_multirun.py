"""`maquette train -m`: what a line means, what it costs, and that stopping, dying and failing lose nothing."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from maquette.artifacts.reading import write_sealed
from maquette.cli import train
from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line import functions
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps import launching, table
from maquette.cli.sweeps.cost import seconds_of_jobs
from maquette.cli.sweeps.forecast import PlannedJob
from maquette.cli.sweeps.jobs import DryPlanner, Sweep, plan, read_line
from maquette.cli.sweeps.view import Bars, Expected, State, View, state_of, time_left
from maquette.cli.sweeps.work import Files
from maquette.optimization.config import short_name
from maquette.tracking import find_runs
from maquette.tracking.environment import hardware_name
from support.small_runs import write_documents

pytestmark = pytest.mark.usefixtures("no_pictures")

STAGE = STAGES["train"]
SMALL = (
    "source=jsonl", "corpus.near_duplicates=1.0", "corpus.validation=0.1", "corpus.test=0", "corpus.workers=1",
    "shards.workers=1", "tokenizer=byte", "shards.held_out_window=0", "data.sequence_length=32",
    "data.batch_size_tokens=256",
    "data.validation_tokens=512", "num_validations=1", "callbacks.samples.prompts=[]", "threads=1",
)  # fmt: skip
ISOFLOP = ("+sweep=isoflop", "sweep.budgets=[2e8]", "sweep.sizes_per_budget=3")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with documents, whose corpus and tokens are made."""
    root = tmp_path_factory.mktemp("sweeps")
    (root / "documents").mkdir()
    write_documents(root / "documents")
    plan(STAGE, line(root, "size=5k"))
    return root


def line(root: Path, *arguments: str) -> list[str]:
    return [*arguments, *SMALL, f"source.path={root / 'documents'}", f"outputs={root / 'outputs'}"]


def planned(root: Path, *arguments: str) -> Sweep:
    return plan(STAGE, line(root, *arguments))


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "-m", *arguments])
    return int(caught.value.code or 0)


# What a line means ----------------------------------------------------------------------------------------------------


@pytest.mark.slow(reason="finds the sizes of ten runs")
def test_isoflop_gives_each_budget_its_own_sizes(prepared: Path) -> None:
    sweep = planned(prepared, "+sweep=isoflop", "sweep.budgets=[1e9,1e11]")
    assert len(sweep.jobs) == 10 and sweep.name.startswith("isoflop-")
    forecasts = [job.forecast for job in sweep.jobs if job.forecast]
    assert [one.compute for one in forecasts] == pytest.approx([1e9] * 5 + [1e11] * 5, rel=0.05)
    assert max(one.size for one in forecasts[:5]) < max(one.size for one in forecasts[5:])
    assert sweep.jobs[0].title.split()[1] == "compute=1e9"


def test_axes_and_overrides_go_with_it(prepared: Path) -> None:
    sweep = planned(prepared, *ISOFLOP, "model=lstm", "optimizer=adamw,muon")
    assert len(sweep.jobs) == 3 * 2
    assert {job.settings.model.kind for job in sweep.jobs} == {"lstm"}
    assert [short_name(job.settings.optimizer) for job in sweep.jobs] == ["adamw"] * 3 + ["muon"] * 3
    assert "model=lstm" not in sweep.jobs[0].arguments and "optimizer=adamw" in sweep.jobs[0].arguments


def test_architectures_have_the_same_sizes_and_budgets(prepared: Path) -> None:
    sweep = planned(prepared, "+sweep=architecture", "sweep.budgets=[1e11]", "sweep.sizes_per_budget=3")
    by_kind: dict[str, list[int]] = {}
    for job in sweep.jobs:
        assert job.forecast
        by_kind.setdefault(job.forecast.kind, []).append(job.forecast.size)
    assert by_kind.keys() == {"transformer, swiglu", "transformer, gelu", "lstm"}
    for sizes in by_kind.values():
        assert len(sizes) == 3
        assert sizes == pytest.approx(by_kind["lstm"], rel=0.8)
    assert not any(job.settings.model.token_shift for job in sweep.jobs if job.settings.model.kind != "lstm")


@pytest.mark.slow(reason="finds six sizes twice")
def test_rates_are_multiples_of_the_recipes(prepared: Path) -> None:
    sweep = planned(prepared, "+sweep=learning_rate", "size=5k,20k", "sweep.rates=[0.5,1,2]")
    rates = [job.settings.optimizer.lr for job in sweep.jobs]
    assert rates[1] / rates[0] == pytest.approx(2, rel=1e-4) and rates[2] / rates[1] == pytest.approx(2, rel=1e-4)
    assert rates[0] > rates[3]  # the standard rate falls with the width
    mup = planned(prepared, "+sweep=learning_rate", "size=5k,20k", "sweep.rates=[0.5,1,2]", "recipe=mup")
    again = [job.settings.optimizer.lr for job in mup.jobs]
    assert again[:3] == again[3:]


@pytest.mark.slow(reason="finds the sizes of eight runs and of four more")
def test_pairs_of_rates_measure_the_recipe_at_both_ends(prepared: Path) -> None:
    sweep = planned(prepared, "+sweep=ladder", "size=5k,10k", "sweep.rate_pairs=true")
    *ladder, first, second, third, fourth = (job.forecast for job in sweep.jobs if job.forecast)
    assert len(ladder) == 8
    for low, high in ((first, second), (third, fourth)):
        (own,) = (one for one in ladder if (one.size, one.tokens) == (low.size, low.tokens))
        assert high.size == low.size and high.tokens == low.tokens
        assert [low.learning_rate, high.learning_rate] == pytest.approx(
            [own.learning_rate / 2, own.learning_rate * 2], rel=1e-5
        )
    assert first.compute == min(one.compute for one in ladder)
    assert 2 * third.compute <= 0.1 * sum(one.compute for one in ladder) and third.compute > first.compute


def test_mixtures_are_tried_at_one_size(prepared: Path) -> None:
    sweep = planned(prepared, "+sweep=mixture", "size=5k", "tokens=20k", "sweep.mixtures=3")
    weights = [job.settings.mixture.weights for job in sweep.jobs]
    assert weights[0] == {"animals": 0.5, "things": 0.5}
    assert len(weights) == 5 and all(sum(one.values()) == pytest.approx(1) for one in weights)
    assert len({job.forecast.compute for job in sweep.jobs if job.forecast}) == 1


def test_shape_keeps_the_size(prepared: Path) -> None:
    sweep = planned(prepared, "+sweep=shape", "size=60k", "model.num_hidden_layers=2,4")
    forecasts = [job.forecast for job in sweep.jobs if job.forecast]
    assert [one.layers for one in forecasts] == [2, 4]
    assert [one.size for one in forecasts] == pytest.approx([60_000] * 2, rel=0.08)


def test_ladder_is_a_product(prepared: Path) -> None:
    sweep = planned(prepared, "+sweep=ladder", "size=5k,10k")
    assert len(sweep.jobs) == 8 and sweep.jobs[-1].arguments == ("tokens_per_parameter=40", "size=10k")


@pytest.mark.slow(reason="composes thirty runs")
def test_bytes_have_one_vocabulary(prepared: Path) -> None:
    sweep = planned(prepared, "tokenizer=byte", "tokenizer.vocab_size=512,1024", "size=5k,10k")
    assert [job.arguments for job in sweep.jobs] == [("size=5k",), ("size=10k",)]
    arguments = [*line(prepared, "+sweep=vocabulary", "seed=0"), "tokenizer=byte,bpe"]
    shown = plan(STAGE, arguments, planner=DryPlanner())
    # bytes and three vocabularies, two budgets with three sizes each
    assert len(shown.jobs) == (1 + 3) * 2 * 3


def test_the_sweeps_of_the_course_are_lists_of_jobs(prepared: Path) -> None:
    def members(*arguments: str) -> list[Any]:
        return [settings for _, settings in read_line(STAGE, line(prepared, *arguments)).members]

    mixtures = [settings.mixture for settings in members("+sweep=code_share", "seed=0")]
    assert [mixture.weights["code"] for mixture in mixtures] == [0, 0.15, 0.3, 0.45, 0.6]
    for mixture in mixtures:  # the rest keeps its proportions
        rest = {
            name: share / (1 - mixture.weights["code"]) for name, share in mixture.weights.items() if name != "code"
        }
        assert rest == pytest.approx({"docs": 0.7, "readme": 0.2, "reference": 0.1})
    evenly, *orders = (settings.mixture for settings in members("+sweep=annealing", "seed=0"))
    assert not evenly.phases and len(orders) == 2
    for mixture in orders:  # as much of each domain in all
        first, second = mixture.phases
        shares = {
            name: second.start * first.weights[name] + (1 - second.start) * second.weights[name]
            for name in evenly.weights
        }
        assert shares == pytest.approx(evenly.weights)
    assert len(members("+sweep=grid")) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+sweep=isoflop", "size=20k"], "size and sweep.budgets are both given"),
        (["+sweep=isoflip"], "Did you mean 'isoflop'"),
        (["+sweep=isoflop", "sweep.bugdets=[1e9]"], "sweep.budgets"),
        (["+sweep=isoflop", "sweep.budgets=[cheap]"], "not a count"),
        (["+sweep=isoflop", "sweep.sizes_per_budget=2"], "at least 3"),
        (["+sweep=learning_rate", "sweep.rates=[0]"], "multiplies the recipe's"),
        (["size=10k,20k", "optimiser=muon"], "unknown key 'optimiser'"),
    ],
)
def test_mistakes_are_told_before_any_work(
    prepared: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert call(*line(prepared, *arguments)) == 2
    assert message in capsys.readouterr().err


def test_a_sweep_without_m_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "+sweep=isoflop"])
    assert caught.value.code == 2
    assert "maquette train -m +sweep=isoflop" in capsys.readouterr().err


# What it costs --------------------------------------------------------------------------------------------------------


def test_show_reads_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = line(tmp_path, *ISOFLOP, "seed=9")  # of documents that are not there
    assert functions.sweep(STAGE, arguments, show=True).exit_code == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "FLOPs in 3 jobs; ? where no speed is known" in printed
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "outputs").mkdir()
    speeds = [[hardware_name(), "transformer, swiglu", "fp32", 10_000, 1e4]]
    (tmp_path / "outputs" / "speeds.json").write_text(json.dumps(speeds))
    assert functions.sweep(STAGE, arguments, show=True).exit_code == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "FLOPs in 3 jobs, about" in printed and "last measured" in printed
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["speeds.json"]


def test_speeds_are_measured_once(tmp_path: Path) -> None:
    one = PlannedJob(10_000, 1_000_000, 10**9, 100, 16, 2, 0.1, 512, "transformer, swiglu", "fp32")
    jobs = [dataclasses.replace(one, size=size) for size in (10_000, 20_000, 40_000, 80_000)]
    measured: list[int] = []

    def measure(job: PlannedJob) -> float:
        measured.append(job.size)
        return 1e9 / job.size

    seconds, source = seconds_of_jobs(jobs, tmp_path, measure)
    assert measured == [10_000, 40_000, 80_000] and "measured now" in source
    assert seconds == pytest.approx([10.0, 20.0, 40.0, 80.0])
    again, source = seconds_of_jobs(jobs[1:2], tmp_path, measure, dry=True)
    assert again == pytest.approx([20.0]) and len(measured) == 3


def test_repeated_text_is_warned_of(prepared: Path) -> None:
    few = planned(prepared, "size=5k", "tokens=10k,20k")
    assert table.repeated_text(few) == []
    many = planned(prepared, "size=5k", "tokens=10k,4m")
    warnings = table.repeated_text(many)
    assert len(warnings) == 2 and all("tokens=4m" in one and "times" in one for one in warnings)


def test_time_left_goes_by_what_was_expected() -> None:
    jobs = [Expected("a", 1e9, 10.0), Expected("b", 3e9, 30.0)]
    before, now = State(0, 0, {}, 0.0, 0.0), State(1, 0, {1: 0.5}, 2.5e9, 25.0)
    assert time_left(jobs, now, before, elapsed=50.0) == pytest.approx(30.0)
    unknown = [Expected("a", 0.0, 0.0)] * 4
    assert time_left(unknown, State(1, 0, {}, 0.0, 0.0), before, elapsed=3.0) == pytest.approx(9.0)
    assert time_left(jobs, before, before, elapsed=5.0) is None
    one_unknown = [Expected("a", 1e9, 10.0), Expected("b", 3e9, 0.0)]
    assert time_left(one_unknown, State(1, 0, {}, 1e9, 10.0), before, elapsed=5.0) == pytest.approx(15.0)


def test_the_state_is_read_from_files(tmp_path: Path) -> None:
    files, jobs = Files(tmp_path), [Expected("a", 1e9, 10.0), Expected("b", 3e9, 30.0), Expected("c", 1e9, 10.0)]
    (tmp_path / "jobs").mkdir()
    write_sealed(files.outcome(0), {"status": "finished"})
    files.tell(1, 5, 10)
    state, _ = state_of(files, jobs)
    assert state == State(done=1, failed=0, running={1: 0.5}, flops=2.5e9, seconds=25.0)


def test_a_terminal_of_80_columns_shows_each_bar_with_its_title_and_the_time_left(tmp_path: Path) -> None:
    jobs = [Expected(f"size={size} compute=3e10", 1e11, 3600.0) for size in (22_500, 33_800, 50_600)]
    files = Files(tmp_path)
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    view, bars = View("sweep isoflop-4ac00468", jobs, files, console), Bars(console)
    task = bars.add_task(view.name, total=1.0, left="")
    (tmp_path / "jobs").mkdir(exist_ok=True)
    files.tell(0, 5, 10)
    files.tell(1, 1, 10)
    view._show(bars, task, state_of(files, jobs)[0], 3_900.0)
    console.print(bars.get_renderable())
    whole, first, second, summary, *_ = console.export_text().splitlines()
    assert view.name in whole and "20%" in whole and "1 h 5 min left" in whole
    assert jobs[0].title in first and "50%" in first and jobs[1].title in second and "10%" in second
    assert summary.rstrip() == "0 done, 2 running, 1 left, 6e+10 of 3e+11 FLOPs (20%)"


# How it is launched ---------------------------------------------------------------------------------------------------


def test_processes_times_threads_is_at_most_the_cores() -> None:
    for cores in (1, 2, 6, 64):
        for threads in (1, 2, 3, 100):
            for jobs in (1, 3, 50):
                result = launching.choose_launching(
                    ["hydra/launcher=joblib"], jobs=jobs, seconds=1e3, threads=threads, cores=cores
                )
                assert result.slots and result.threads and result.slots * result.threads <= cores
                assert f"hydra.launcher.n_jobs={result.slots}" in result.arguments


def test_the_default_follows_the_length_of_the_jobs() -> None:
    def launcher(seconds: float, **changes: Any) -> str:
        settings = {"jobs": 8, "threads": 1, "cores": 2, **changes}
        return launching.choose_launching([], seconds=seconds, **settings).launcher

    assert launcher(3.0) == "basic"
    assert launcher(600.0) == "joblib"
    assert launcher(600.0, cores=1) == launcher(600.0, jobs=1) == launcher(600.0, accelerated=True) == "basic"
    assert launcher(float("nan"), threads=None) == "basic"


def test_a_cluster_needs_a_server(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*line(prepared, "size=5k,10k", "tokens=2k", "hydra/launcher=submitit_slurm")) == 2
    assert "mlflow server" in capsys.readouterr().err


@pytest.mark.slow(reason="finds the sizes of three budgets")
def test_branches_join_the_budgets_of_a_size(prepared: Path) -> None:
    arguments = ("+sweep=isoflop", "sweep.budgets=[4e8,6e8,9e8]", "sweep.sizes_per_budget=3", "sweep.branches=true")
    sweep = planned(prepared, *arguments, "scheduler=wsd")
    trees = [job for job in sweep.jobs if job.settings.scheduler.branches]
    own = [job for job in sweep.jobs if not job.settings.scheduler.branches]
    assert len(trees) == 3 and all(job.forecast and len(job.forecast.branches) == 3 for job in trees)
    # One size is trained with schedules of its own as well, at the same token budgets.
    assert len(own) == 3 and {short_name(job.settings.scheduler) for job in own} == {"linear"}
    assert len({job.settings.size for job in own}) == 1
    compared = next(job for job in trees if job.settings.size == own[0].settings.size)
    assert [str(job.forecast.tokens) for job in own[:2] if job.forecast] == compared.settings.scheduler.branches
    alone = planned(prepared, *arguments, "scheduler=wsd", "sweep.bias=false")
    assert len(alone.jobs) == 3
    assert sum(job.forecast.compute for job in alone.jobs if job.forecast) < 0.75 * 3 * (4e8 + 6e8 + 9e8)


# Running --------------------------------------------------------------------------------------------------------------


def rows(root: Path) -> list[str]:
    (path,) = (root / "outputs").glob("sweeps/isoflop-*/table.csv")
    return path.read_text().splitlines()


@pytest.mark.slow(reason="trains a sweep of three, one of them again")
def test_one_job_fails_the_rest_go_on_and_the_line_continues(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line(prepared, *ISOFLOP, "seed=3", "hydra/launcher=basic")
    whole, ran = train.run, []

    def run(config: Any, data: Any) -> Any:
        ran.append(config.size)
        if len(ran) == 2:
            raise RuntimeError("this one breaks")
        return whole(config, data)

    monkeypatch.setattr(train, "run", run)
    assert functions.sweep(STAGE, arguments).exit_code == 1
    (folder,) = (prepared / "outputs" / "sweeps").glob("isoflop-*")
    outcomes = [json.loads(path.read_text()) for path in sorted((folder / "jobs").iterdir())]
    assert [outcome["status"] for outcome in outcomes] == ["finished", "failed", "finished"]
    assert "this one breaks" in outcomes[1]["error"] and "2 of 3 jobs done" in capsys.readouterr().err
    assert "this one breaks" in (folder / "logs" / "0001.log").read_text()

    assert functions.sweep(STAGE, arguments).exit_code == 0
    assert len(ran) == 4  # of the second time only the one that had failed
    table_of_both = rows(prepared)
    assert len(table_of_both) == 4 and all(",finished," in row for row in table_of_both[1:])

    runs = find_runs(prepared / "outputs")
    sweep = json.loads((folder / "sweep.json").read_text())
    children = runs[runs["parent"] == sweep["run_id"]]
    assert len(children) == 3 and set(children["status"]) == {"FINISHED"}
    assert set(sweep["runs"]) == set(children["folder"])
    losses = sorted(float(row.split(",")[11]) for row in table_of_both[1:])
    assert losses == pytest.approx(sorted(children["validation/loss"]))


@pytest.mark.slow(reason="trains two sweeps")
def test_stopped_in_mid_sweep_it_ends_with_the_same_table(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*ISOFLOP, "seed=4", "hydra/launcher=basic", "logger=none"]
    (tmp_path / "documents").symlink_to(prepared / "documents")
    assert functions.sweep(STAGE, line(tmp_path, *arguments)).exit_code == 0
    undisturbed = rows(tmp_path)

    whole, ran = train.run, []

    def run(config: Any, data: Any) -> Any:
        ran.append(config.size)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return whole(config, data)

    other = tmp_path / "other"
    other.mkdir()
    (other / "documents").symlink_to(prepared / "documents")
    monkeypatch.setattr(train, "run", run)
    with pytest.raises(KeyboardInterrupt):
        functions.sweep(STAGE, line(other, *arguments))
    assert functions.sweep(STAGE, line(other, *arguments)).exit_code == 0
    assert len(ran) == 2 + 2
    assert rows(other) == undisturbed


@pytest.mark.slow(reason="workers of their own, each of which imports PyTorch and Lightning")
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_processes_bring_results_back(prepared: Path, tmp_path: Path, launcher: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    (tmp_path / "documents").symlink_to(prepared / "documents")
    arguments = line(tmp_path, "size=5k,10k", "tokens=2k", f"hydra/launcher={launcher}")
    assert functions.sweep(STAGE, arguments).exit_code == 0
    (folder,) = (tmp_path / "outputs" / "sweeps").glob("train-*")
    outcomes = [json.loads(path.read_text()) for path in sorted((folder / "jobs").iterdir())]
    assert [outcome["status"] for outcome in outcomes] == ["finished"] * 2
    assert all(outcome["validation_loss"] > 0 for outcome in outcomes)
    runs = find_runs(tmp_path / "outputs")
    parent = json.loads((folder / "sweep.json").read_text())["run_id"]
    children = runs[runs["parent"] == parent]
    assert len(children) == 2 and set(children["threads"]) == {1}


@pytest.mark.slow(reason="a sweep in processes of its own, killed and gone on with, and one beside it", minutes=1)
def test_killed_in_mid_sweep_it_ends_with_the_same_table(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of the sweep's process group while workers train, then the same line; beside it the sweep undisturbed,
    one job after another in this process."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        root.mkdir()
        (root / "documents").symlink_to(prepared / "documents")
    sweep = ("+sweep=isoflop", "sweep.budgets=[4e8]", "sweep.sizes_per_budget=4",
             "callbacks.checkpoint.every_n_train_steps=5")  # fmt: skip
    assert functions.sweep(STAGE, line(whole, *sweep, "hydra/launcher=basic", "logger=none")).exit_code == 0
    arguments = line(killed, *sweep, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    command = [sys.executable, "-c", "from maquette.cli import main; main()", "train", "-m", *arguments]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 600  # a busy machine takes its time
    while process.poll() is None and time.monotonic() < until:
        if list(killed.glob("outputs/sweeps/*/jobs/*.json")):  # one is done, two train or begin, one waits
            break
        time.sleep(0.05)
    assert process.poll() is None, "the sweep was over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert functions.sweep(STAGE, arguments).exit_code == 0
    assert "done already" in capsys.readouterr().err
    assert rows(killed) == rows(whole)


@pytest.mark.slow(reason="trains two models and starts a process")
def test_with_nothing_left_nothing_heavy_is_imported(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / "documents", tmp_path / "documents")
    arguments = line(tmp_path, "size=5k,6k", "tokens=2k", "hydra/launcher=basic")
    assert functions.sweep(STAGE, arguments).exit_code == 0
    program = (
        "import sys\nfrom maquette.cli.command_line import dispatcher as cli\n"
        f"try: cli.main({['train', '-m', *arguments]!r})\n"
        "except SystemExit as ended: print('CODE', ended.code)\n"
        "print('HEAVY', [name for name in ('torch', 'lightning', 'mlflow', 'pandas', 'joblib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["CODE 0", "HEAVY []"], done.stdout + done.stderr
    assert "2 done already" in done.stderr and "2 of 2 jobs done" in done.stderr
    (plan_file,) = tmp_path.glob("outputs/sweeps/*/plan.json")
    before = plan_file.stat().st_mtime_ns
    path = tmp_path / "documents" / "animals.jsonl"  # other text: other runs
    path.write_text("\n".join(path.read_text().splitlines()[:-5]))
    assert functions.sweep(STAGE, arguments).exit_code == 0
    assert plan_file.stat().st_mtime_ns > before
    assert len(list(tmp_path.glob("outputs/runs/*/run.json"))) == 4
