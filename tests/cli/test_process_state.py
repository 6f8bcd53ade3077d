"""A command gives its caller's process back as it found it, and nothing new changes what all of a process shares."""

import csv
import gc
import locale
import logging
import multiprocessing
import os
import random
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maquette.artifacts.process_state import KEPT_VARIABLES, process_state_kept
from maquette.cli import main
from maquette.model.linear import current_backend
from support.small_runs import write_documents

SOURCES = Path(__file__).parents[2] / "src"


def state() -> dict[str, Any]:
    """What a command could change for everybody."""
    loggers = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "timers": [signal.getitimer(one) for one in (signal.ITIMER_REAL, signal.ITIMER_PROF)],
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "folder": os.getcwd(),  # noqa: PTH109
        "arguments": list(sys.argv),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, sys.unraisablehook, threading.excepthook),
        "limits": (sys.getrecursionlimit(), sys.get_int_max_str_digits(), sys.getswitchinterval()),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "csv": csv.field_size_limit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "processes": multiprocessing.get_start_method(allow_none=True),
        "warnings": list(warnings.filters),
        "log": (logging.root.level, list(logging.root.handlers), {one.name: one.level for one in loggers}),
        "random numbers": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "numpy": np.geterr(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "numbers": (torch.get_default_dtype(), torch.get_float32_matmul_precision(), current_backend()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
    }


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def unusual() -> Iterator[dict[str, Any]]:
    """Values that no command would leave by chance; the state with them."""
    with process_state_kept():
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        gc.set_threshold(701, 11, 11)
        csv.field_size_limit(131_073)
        for name in ("lightning", "lightning.pytorch", "mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.INFO)
        yield state()


def changed(before: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    after = state()
    # a library that is imported meanwhile brings loggers of its own
    for name in after["log"][2].keys() - before["log"][2].keys():
        del after["log"][2][name]
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["trainer.deterministic=true", "trainer.benchmark=true", "trainer.detect_anomaly=true", "size=5k"], 0),
        (["logger=none", "size=7k,8k", "optimizer.lr=1e30", "-m"], 1),
        (["size=x"], 2),
    ],
)
def test_a_training_leaves_the_process_as_it_was(
    line: list[str], code: int, unusual: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = unusual | {"folder": str(tmp_path)}
    write_documents(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "source=jsonl", f"source.path={tmp_path}", "corpus.near_duplicates=1.0", "tokenizer=byte",
              "corpus.workers=1", "shards.workers=1", "shards.held_out_window=0", "tokens=2k", "threads=1",
              "data.sequence_length=32", "data.batch_size_tokens=256", "data.validation_tokens=256",
              "num_validations=1", "compile=off", "callbacks.samples.prompts=[]", *line])  # fmt: skip
    assert ended.value.code == code
    assert changed(before) == {}


def test_what_a_block_sets_is_given_back_and_what_must_stay_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEPT_VARIABLES:
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("GONE", "1")
    before = state()
    with pytest.raises(KeyError), process_state_kept():
        os.environ.update({"NEW": "1"} | dict.fromkeys(KEPT_VARIABLES, "after"))
        del os.environ["GONE"]
        warnings.simplefilter("error")
        logging.getLogger("lightning").setLevel(logging.CRITICAL)
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        raise KeyError
    assert changed(before).keys() == {"environment"}
    assert state()["environment"] == before["environment"] | dict.fromkeys(KEPT_VARIABLES, "after")


_SHARED = re.compile(
    r"signal\.signal\(|os\.environ(\.(update|setdefault|pop)\(|\[[^\]]+\] = )|del os\.environ"
    r"|os\.(chdir|umask|putenv)\("
    r"|(?<!def )\b(set_start_method|set_default_dtype|set_num_threads|set_num_interop_threads|set_default_device)\("
    r"|use_deterministic_algorithms\(|set_float32_matmul_precision\(|setrecursionlimit|set_int_max_str_digits"
    r"|torch\.manual_seed\(|(?<!np)\brandom\.seed\(|np\.random\.seed|gc\.(disable|freeze|set_threshold)\("
    r"|logging\.(basicConfig|disable|captureWarnings)|\.setLevel\(|warnings\.(simplefilter|filterwarnings)\("
    r"|locale\.setlocale|socket\.setdefaulttimeout|np\.seterr\(|rcParams|matplotlib\.use\(|field_size_limit\("
    r"|sys\.(stdout|stderr|excepthook|argv) = |sys\.path\.(append|insert)|atexit\.register|set_grad_enabled\("
)
_KNOWN = {
    "maquette/artifacts/process_state.py": "gives it back",
    "maquette/artifacts/targets.py": "the folder where the user works, for modules of theirs",
    "maquette/cli/command_line/application.py": "`main` and a block of its own give it back",
    "maquette/cli/command_line/composition.py": "gives it back",
    "maquette/cli/command_line/dispatcher.py": "of a shell's completion, which ends with it",
    "maquette/cli/command_line/foreign.py": "the folder beside --config-dir, for modules of theirs",
    "maquette/cli/command_line/gpus.py": "the device that the process has taken",
    "maquette/cli/sweeps/launching.py": "gives it back",
    "maquette/cli/sweeps/side_by_side.py": "in a worker process of its own",
    "maquette/corpus/curation/shards.py": "in a process of ours",
    "maquette/corpus/sources/package_texts.py": "in a block that gives it back",
    "maquette/corpus/workers.py": "in a process of ours",
    "maquette/data/batches.py": "in a process of ours",
    "maquette/data/encoding.py": "gives it back",
    "maquette/data/process_group.py": "torchrun's names for what Slurm says",
    "maquette/evaluation/embedded_questions.py": "in a block that gives it back",
    "maquette/corpus/sources/row_files.py": "`main` gives it back",
    "maquette/evaluation/harness.py": "gives it back",
    "maquette/model/adapters.py": "in a block that gives it back",
    "maquette/objectives/vllm_rollouts.py": "vLLM's switch, where nobody has set it; `main` gives it back",
    "maquette/reports/figures.py": "in a block that gives it back",
    "maquette/tracking/buffer.py": "what is buffered must not be lost",
    "maquette/tracking/config.py": "logins, for child processes",
    "maquette/tracking/store.py": "`main` gives it back",
    "maquette/training/devices.py": "in a block that gives it back",
    "maquette/training/fitting.py": "within `prepared_process`",
    "maquette/training/profile_run.py": "within `prepared_process`",
    "maquette/training/step_memory.py": "in a block that gives it back",
    "maquette/training/processes.py": "in a process of ours; signals are given back",
    "maquette/training/trainer.py": "within `prepared_process`",
}
"""The files that change what all of a process shares, and why nobody else sees it."""


def test_nothing_else_changes_what_a_process_shares() -> None:
    files = {
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if any(_SHARED.search(line.partition("  #")[0]) for line in path.read_text(encoding="utf-8").splitlines())
    }
    assert files == _KNOWN.keys()
