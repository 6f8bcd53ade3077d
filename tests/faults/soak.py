"""A long run under memory watch: small trainings and generations again and again in one process, and a server under
load. What grows without end is lost."""

import gc
import random
import resource
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.lines import Attack
from tests.faults.load import serving
from tests.faults.record import Outcome

from maquette.artifacts.files import listed

MOST = 200.0
"""MB an hour, by the slope of all but the first third of the run, from which memory grows without end. The noise of an
allocator over a quarter of an hour is some tens."""


def trainings(prepared: Attack, seconds: float, say: Callable[[str], None]) -> Outcome:
    """Rounds of a training and five generations."""
    from maquette.cli import main
    from maquette.model.generation import generate
    from maquette.model.loading import load_checkpoint
    from maquette.model.sampling import Sampling

    outputs, line = prepared.outputs, prepared.lines["pretrain"]
    began, sizes = time.monotonic(), []
    while time.monotonic() < began + seconds or len(sizes) < 6:
        shutil.rmtree(outputs / "runs", ignore_errors=True)
        try:
            main([*line, f"outputs={outputs}"])
        except SystemExit as end:
            if end.code:
                raise RuntimeError("a training failed") from None
        [run] = listed(outputs / "runs")
        model, tokenizer = load_checkpoint(run)
        for seed in range(5):
            generate(model.eval(), [[1, 2, 3]] * 4, tokenizer=tokenizer, sampling=Sampling(), max_tokens=20, seed=seed)
        del model
        gc.collect()
        sizes.append((time.monotonic() - began, _memory("self")))
    return _grown(len(sizes), "trainings", sizes, say)


def server(prepared: Attack, seconds: float, say: Callable[[str], None]) -> Outcome:
    """Four clients that complete, chat, stream, give up and send what is wrong."""
    numbers, answered = random.Random(0), [0, 0]
    prompt = {"prompt": "a", "max_tokens": 16, "n": 2}
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
    bodies = [
        ("/v1/completions", prompt, 200), ("/v1/completions", {**prompt, "stream": True}, 200),
        ("/v1/completions", {**prompt, "temperature": "hot"}, 400), ("/v1/completions", {"prompt": "a" * 10_000}, 400),
        ("/v1/chat/completions", chat, 200), ("/v1/chat/completions", {**chat, "model": "nothing"}, 404),
    ]  # fmt: skip
    lost: list[str] = []
    with serving([prepared.root / "start", prepared.root / "other"], prepared.outputs) as serves:
        began, sizes = time.monotonic(), []

        def client() -> None:
            while time.monotonic() < began + seconds:
                path, body, wanted = numbers.choice(bodies)
                if numbers.random() < 0.1:
                    with serves.connect() as given_up:
                        given_up.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
                    continue
                status, answer = serves.ask("POST", path, body)
                answered[0] += 1
                if status != wanted:
                    lost.append(f"{path} {str(body)[:60]}: {status} {answer[:80]!r}")

        clients = [threading.Thread(target=client) for _ in range(4)]
        for one in clients:
            one.start()
        while any(one.is_alive() for one in clients):
            sizes.append((time.monotonic() - began, _memory(str(serves.process))))
            time.sleep(min(2.0, seconds / 100))
        for one in clients:
            one.join()
    requests, grown = _grown(answered[0], "requests", sizes, say)
    return requests, lost + grown


def _memory(process: str) -> float:
    """MB that it holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def _grown(attempts: int, what: str, sizes: list[tuple[float, float]], say: Callable[[str], None]) -> Outcome:
    later = sizes[len(sizes) // 3 :]
    slope = 3600 * statistics.linear_regression(*zip(*later, strict=True)).slope
    minutes = sizes[-1][0] / 60
    line = (
        f"{attempts} {what} in {minutes:.1f} min: {later[0][1]:.0f} to {later[-1][1]:.0f} MB, {slope:+.0f} MB an hour"
    )
    say(f"  {line}")
    return attempts, [line] if slope > MOST else []
