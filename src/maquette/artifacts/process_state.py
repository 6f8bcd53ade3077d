"""What a command may change for its whole process, and gives back at its end to whoever called it: a notebook, a test,
the next job of a sweep.

Lightning, MLflow and our own stages set threads, random numbers, warnings, levels of logging, variables of the
environment. Whoever runs next in the process must compute what it would in a process of its own. Three things stay on
purpose: the GPU that the process has taken, the logins of tracking servers (what is buffered is written at the
interpreter's end), and the allocator's settings (training/devices.py), which have no way back.

And what a process that a command has started does when that command is killed: `end_with`.
"""

import contextlib
import csv
import ctypes
import gc
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

KEPT_VARIABLES = ("CUDA_VISIBLE_DEVICES", "MAQUETTE_TRACKING_LOGINS")
"""Of the environment: they stay as a command has set them."""


@contextlib.contextmanager
def process_state_kept() -> Iterator[None]:
    """Within the block anything may be set; at its end it is as it was. What PyTorch and NumPy hold is only looked
    after where they were imported before."""
    levels = {one: one.level for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)}
    values = [(give_back, get()) for get, give_back in _settings()]
    with warnings.catch_warnings(), _random_numbers_kept():
        try:
            yield
        finally:
            for give_back, value in values:
                give_back(value)
            for logger, level in levels.items():
                if logger.level != level:
                    logger.setLevel(level)


def _settings() -> Iterator[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """How each setting is read, and how it is given back."""
    yield lambda: dict(os.environ), _give_environment_back
    yield gc.get_threshold, lambda values: gc.set_threshold(*values)
    yield csv.field_size_limit, csv.field_size_limit
    if (torch := sys.modules.get("torch")) is not None:
        yield torch.get_num_threads, torch.set_num_threads
        yield torch.get_default_dtype, torch.set_default_dtype
        yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        yield torch.is_grad_enabled, torch.set_grad_enabled
        yield torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly
        yield torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
        for name in ("benchmark", "deterministic"):
            yield partial(getattr, torch.backends.cudnn, name), partial(setattr, torch.backends.cudnn, name)


def _give_environment_back(before: dict[str, str]) -> None:
    now = dict(os.environ)
    for name in {*now, *before} - {*KEPT_VARIABLES}:
        if name not in before:
            os.environ.pop(name, None)
        elif now.get(name) != before[name]:
            os.environ[name] = before[name]


@contextlib.contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """The numbers that Python, NumPy and PyTorch draw next without a generator of one's own."""
    python, numpy, torch = random.getstate(), sys.modules.get("numpy"), sys.modules.get("torch")
    drawn = None if numpy is None else numpy.random.get_state()
    devices = [] if torch is None or not torch.cuda.is_initialized() else [*range(torch.cuda.device_count())]
    with contextlib.nullcontext() if torch is None else torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(drawn)


_SET_PARENT_DEATH_SIGNAL = 1  # <sys/prctl.h>


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Where `parent`, which started this process, is killed, this process gets a signal too. Known to Linux alone.

    A parent that was killed before, during this process's imports, sends nothing any more: then it ends here, or it
    would work alone while the command is run again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, number)
    if os.getppid() != parent:
        os._exit(1)
