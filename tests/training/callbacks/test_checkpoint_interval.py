"""Saving takes at most a twentieth of the time: the interval follows what was measured."""

from types import SimpleNamespace
from typing import Any

import pytest

from maquette.training.callbacks import RunCheckpoint, checkpoint


def stretched(seconds: float, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[float, list[str]]:
    messages: list[str] = []
    monkeypatch.setattr(checkpoint, "say", messages.append)
    callback = RunCheckpoint(**settings)
    callback.run = SimpleNamespace(metrics=object())  # type: ignore[assignment]
    callback._stretch(seconds)
    return callback.seconds, messages


def test_the_interval_is_stretched_when_saving_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stretched(6.0, monkeypatch, train_time_interval={"minutes": 2}) == (120, [])
    seconds, messages = stretched(30.0, monkeypatch, train_time_interval={"minutes": 2})
    assert seconds == 600
    assert messages == ["saving took 30.0 s: from now on every 10.0 minutes, so that it is at most 5% of the time"]


def test_steps_and_no_interval_stay_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stretched(30.0, monkeypatch, every_n_train_steps=1) == (120, [])
    assert stretched(30.0, monkeypatch, train_time_interval={"seconds": 0}) == (0, [])
