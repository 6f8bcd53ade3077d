"""What all tests share: one thread each (two run side by side), nothing from a hub, nobody's MLflow settings, marks.

Helpers that several files of tests use are in tests/support.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal import defaults_list
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from maquette.artifacts.files import atomic_file

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "HYDRA_FULL_ERROR"):
    os.environ.pop(name, None)

# PyTorch, Lightning and the tests' modules are a few million objects that live to the end: looking through them for
# garbage takes a tenth of the processor time.
gc.set_threshold(50_000, 10, 10)

# A third of the fast tests' time is composing conf/, and a third of that is reading the same files as YAML again and
# copying the store of schemas, which nothing changes once they are registered.
_parse_yaml, _parsed = yaml.load, dict[str, bytes]()


def _load_yaml(stream: Any, Loader: Any) -> Any:  # noqa: N803
    if Loader.__name__ != "OmegaConfLoader" or not hasattr(stream, "seek"):
        return _parse_yaml(stream, Loader)
    text = stream.read()
    if text not in _parsed:
        stream.seek(0)
        _parsed[text] = pickle.dumps(_parse_yaml(stream, Loader))
    return pickle.loads(_parsed[text])


yaml.load = _load_yaml
ConfigStore.__deepcopy__ = lambda self, _: self

# A sixth more goes into a table of each list of defaults, which Hydra looks into only where a name there has a `${`.
_choices_of = defaults_list._create_interpolation_map
defaults_list._create_interpolation_map = lambda overrides, defaults, self_added: (
    _choices_of(overrides, defaults, self_added) if any(one.is_interpolation() for one in defaults) else DictConfig({})
)

LONG = 20.0
"""Seconds from which a test is to be marked `slow`."""


@contextlib.contextmanager
def _without_pictures() -> Iterator[None]:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    draw = Figure.savefig

    def savefig(self: Figure, target: Any, **options: Any) -> None:
        if isinstance(target, str | Path):
            Path(target).touch()
        elif options.get("format") == "svg":  # within a page
            words = "".join(f"<text>{escape(text.get_text())}</text>" for text in self.findobj(Text) if text.get_text())
            target.write(f'<svg viewBox="0 0 460.8 288">{words}</svg>')
        else:
            draw(self, target, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", savefig)
        patched.setattr(Figure, "draw_without_rendering", lambda self: None)
        yield


@pytest.fixture(scope="module")
def no_pictures() -> Iterator[None]:
    """Figures are built, but an empty file is written for each, and within a page their words alone: drawing takes half
    of the time of a small run, and most of that of a fit.

    For files of tests that train many models and look at no figure: pytest.mark.usefixtures("no_pictures").
    """
    with _without_pictures():
        yield


@pytest.fixture
def no_pictures_here() -> Iterator[None]:
    """The same for one test, in a file where others look at figures."""
    with _without_pictures():
        yield


@pytest.fixture
def warm_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of `launch` have everything imported when they begin: see support/warm_processes.py."""
    from support.warm_processes import warm_context

    context_of = multiprocessing.get_context
    monkeypatch.setattr(
        multiprocessing, "get_context", lambda kind=None: warm_context() if kind == "spawn" else context_of(kind)
    )


def pytest_collection_finish() -> None:
    # In each new folder of outputs a run measures what this machine's matrix products reach, for .4 s, and a sweep how
    # fast three of its sizes train, for 2 s each. What a test says of these numbers holds of rougher ones.
    if (machine := sys.modules.get("maquette.training.machine")) is not None:
        machine._CPU_SIDE, machine._SECONDS = 512, 0.05  # type: ignore[attr-defined]
        machine._TRIAL_STEPS, machine._TRIAL_SECONDS = 20, 0.2  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_store_is_copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow's tables take more than a second to make: once for all outputs, but in tests of the store."""
    from maquette.tracking import store

    make, whole = store._create, tmp_path_factory.mktemp("store") / "mlflow.db"

    def create(file: Path) -> None:
        if os.environ.get("PYTEST_CURRENT_TEST", "").startswith("tests/tracking/"):
            make(file)
            return
        if not whole.exists():
            make(whole)
        with atomic_file(file) as copy:
            shutil.copyfile(whole, copy)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "_create", create)
        yield


@pytest.fixture(scope="session")
def real_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An outputs folder with SmolLM2-135M-Instruct imported as `smollm2`, once for all processes that test.

    Skips where `make real-model` has not been called; fails there with MAQUETTE_REAL_MODEL=required.
    """
    from support.real_model import REAL_MODEL

    if not REAL_MODEL.exists():
        reason = f"{REAL_MODEL} is missing: make real-model"
        pytest.fail(reason) if os.environ.get("MAQUETTE_REAL_MODEL") == "required" else pytest.skip(reason)
    from filelock import FileLock

    from maquette.cli.import_ import ImportStage, run

    shared = (
        tmp_path_factory.getbasetemp().parent
        if os.environ.get("PYTEST_XDIST_WORKER")
        else tmp_path_factory.getbasetemp()
    )
    outputs = shared / "real"
    with FileLock(shared / "real.lock"):
        run(ImportStage(path=str(REAL_MODEL), name="smollm2", outputs=str(outputs)))
    yield outputs


def _minutes(item: pytest.Item) -> int:
    return max((mark.kwargs.get("minutes", 0) for mark in item.iter_markers("slow")), default=0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_minutes, reverse=True)  # for one that begins last everything else would wait
    on_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device, and this machine has none that PyTorch can use")
        for item in on_gpu:
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the tests that take longer than `LONG` and are not marked. It fails nothing: machines differ."""
    long = list(_unmarked_long_tests(terminalreporter))
    if long:
        terminalreporter.section(f"longer than {LONG:.0f} s and not marked slow: mark them, with the reason")
        for seconds, nodeid in sorted(long, reverse=True):
            terminalreporter.line(f"{seconds:6.1f} s  {nodeid}")


def _unmarked_long_tests(reporter: pytest.TerminalReporter) -> Iterator[tuple[float, str]]:
    for outcome in ("passed", "failed"):
        for report in reporter.stats.get(outcome, []):
            if report.when == "call" and report.duration > LONG and "slow" not in report.keywords:
                yield report.duration, report.nodeid
