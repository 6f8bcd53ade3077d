"""Lines for people without a terminal, and how long things take in words."""

import io

import pytest
from rich.console import Console

from maquette.training import display as module
from maquette.training.display import display, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (41.6, "42 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    now = [100.0]
    monkeypatch.setattr(module, "say", lines.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with display("run", 1000, 512, first_step=500) as shown:
        for step in range(501, 651):
            now[0] += 0.25
            if step == 600:
                shown.validated(4.5)
            shown.update(step, 5.0, 0.0 if step < 570 else 2048.0)
    assert lines == [
        "run: step 560 of 1,000 (56%), loss 5.000",
        "run: step 620 of 1,000 (62%), loss 5.000 (validation 4.500), 2,048 tokens/s, 1 min 35 s left",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(module, "console", screen)
    with display("run", 10, 512) as shown:
        shown.update(5, 2.5, 1000.0)
    assert "loss 2.500" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_other_processes_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module, "say", lines.append)
    with display("run", 10, 512, visible=False) as shown:
        shown.update(5, 2.5, 1000.0)
        shown.remark("hello")
    assert not lines
