"""Many at once: a store that another process holds locked, ten sweeps on one store, a server with more requests than it
can answer."""

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.kills import fork
from tests.faults.lines import run_line
from tests.faults.record import Outcome


def locked_store(outputs: Path, line: list[str], seconds: float) -> Outcome:
    """A training begins while another process writes to the store; it must wait, say so, and record everything."""
    log = outputs.parent / "log"

    def hold() -> None:
        other = sqlite3.connect(outputs / "mlflow.db")
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        other.rollback()

    child = fork(hold)
    time.sleep(0.5)
    _, status = os.waitpid(run_line(line, outputs, log), 0)
    os.waitpid(child, 0)
    output = log.read_text()
    lost = [f"exit {status}: {output[-300:]}"] if status else []
    if "locked by another process" not in output:
        lost.append("it did not say that it waits")
    if " lacks a part " in output:
        lost.append("the record is not whole")
    return 1, lost


def sweeps_on_one_store(outputs: Path, line: list[str], count: int) -> Outcome:
    """Sweeps with two jobs each, at once; each must end well and be recorded with its children."""
    logs = [outputs.parent / f"log-{number}" for number in range(count)]
    began = _recorded(outputs)
    children = [run_line([*line, f"seed={number}"], outputs, log) for number, log in enumerate(logs)]
    lost = []
    for number, child in enumerate(children):
        _, status = os.waitpid(child, 0)
        if status or " lacks a part " in logs[number].read_text():
            lost.append(f"sweep {number}: exit {status}: {logs[number].read_text()[-300:]}")
    recorded = _recorded(outputs) - began
    if recorded != 3 * count:
        lost.append(f"{recorded} runs of {3 * count} are recorded as finished")
    return count, lost


def _recorded(outputs: Path) -> int:
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store:
        return int(store.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0])


# The server -----------------------------------------------------------------------------------------------------------


class Server:
    """`maquette chat` with two models in a process of its own, and requests to it."""

    def __init__(self, models: list[Path], folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        names = ",".join(str(one) for one in models)
        self.process = run_line(["chat", f"models=[{names}]", f"port={self.port}"], folder, folder.parent / "log")
        until = time.monotonic() + 60
        while time.monotonic() < until and self.health() is None:
            time.sleep(0.2)

    def close(self) -> int:
        """Ends it; its exit status."""
        os.kill(self.process, signal.SIGINT)
        return os.waitpid(self.process, 0)[1]

    def memory(self) -> int:
        """Bytes that it holds."""
        return int(Path(f"/proc/{self.process}/statm").read_text().split()[1]) * resource.getpagesize()

    def health(self) -> float | None:
        """Seconds until it says that it lives; None where it does not."""
        began = time.monotonic()
        try:
            status = self.ask("GET", "/health", None, timeout=30)[0]
        except OSError:
            return None
        return time.monotonic() - began if status == 200 else None

    def ask(self, method: str, path: str, body: Any, timeout: float = 120.0) -> tuple[int, bytes]:
        """Status and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            text = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, text, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 30)


@contextlib.contextmanager
def serving(models: list[Path], folder: Path) -> Iterator[Server]:
    server = Server(models, folder)
    try:
        yield server
    finally:
        server.close()


_PROMPT = {"prompt": "a", "max_tokens": 20}


def many_at_once(server: Server, count: int = 200) -> Outcome:
    """All are answered, and the server says meanwhile that it lives."""
    statuses: Counter[Any] = Counter()

    def ask() -> None:
        try:
            statuses[server.ask("POST", "/v1/completions", _PROMPT)[0]] += 1
        except OSError as error:
            statuses[str(error)] += 1

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    health = server.health()
    for thread in threads:
        thread.join()
    lost = [f"{status}: {number}" for status, number in statuses.items() if status != 200]
    return count, lost + ([f"health took {health}"] if health is None or health > 5 else [])


def half_sent(server: Server, count: int = 200, patience: float = 45.0) -> Outcome:
    """Requests that never end are dropped."""
    parts = (b"", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n",
             b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")  # fmt: skip
    halves = [server.connect() for _ in range(count)]
    for number, one in enumerate(halves):
        one.sendall(parts[number % 3])
    health = server.health()
    until, held = time.monotonic() + patience, 0
    for one in halves:
        one.settimeout(max(0.05, until - time.monotonic()))
        try:
            while one.recv(4096):
                pass
        except TimeoutError:
            held += 1
        except OSError:
            pass
        one.close()
    lost = [f"{held} are kept after {patience:g} s"] if held else []
    return count, lost + ([f"health took {health}"] if health is None or health > 5 else [])


def given_up(server: Server, count: int = 40) -> Outcome:
    """What nobody waits for any longer does not hold up others."""
    body = json.dumps({"prompt": "a", "max_tokens": 60, "n": 16}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for _ in range(count):
        with server.connect() as one:
            one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    time.sleep(0.5)
    began = time.monotonic()
    status, _ = server.ask("POST", "/v1/completions", _PROMPT)
    seconds = time.monotonic() - began
    return count, [] if status == 200 and seconds < 20 else [f"the next answer: {status} after {seconds:.1f} s"]


def large_bodies(server: Server) -> Outcome:
    """Bodies below, at and above the limit are answered in a moment, without much memory."""
    lost, before = [], server.memory()
    for size, allowed in ((1_000_000, {400}), (4_000_000, {400}), (4 * 2**20 + 1, {413}), (50_000_000, {413})):
        began = time.monotonic()
        try:
            status, _ = server.ask("POST", "/v1/completions", json.dumps({"prompt": "a" * size}).encode())
        except OSError:  # it hangs up while the body still comes
            status = 413
        if status not in allowed or time.monotonic() - began > 30:
            lost.append(f"{size:,} bytes: {status} after {time.monotonic() - began:.1f} s")
    if server.memory() - before > 300e6:
        lost.append(f"{(server.memory() - before) / 1e6:.0f} MB more are held")
    return 4, lost


def hostile_requests(server: Server, numbers: Any, count: int) -> Outcome:
    """Mutated requests are answered, never with 500, and in the API's form."""
    from tests.faults.fuzz import mutate

    good = json.dumps(
        {"model": "", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.7, "max_tokens": 4, "n": 1,
         "stop": ["x"], "top_p": 0.9, "seed": 1, "stream": False}
    ).encode()  # fmt: skip
    lost = []
    for _ in range(count):
        body = mutate(good, numbers)
        try:
            status, answer = server.ask("POST", "/v1/chat/completions", body, timeout=60)
        except OSError as error:
            lost.append(f"{error}: {body[:80]!r}")
            continue
        if status >= 500 or (status != 200 and b'"error"' not in answer):
            lost.append(f"{status} {answer[:80]!r}: {body[:80]!r}")
    return count, lost
