"""Many clients at once: time to the first token, and tokens a second, of `maquette chat` and of `transformers serve`.

    python benchmarks/serving_speed.py <run> --clients 32
    python benchmarks/serving_speed.py <exported folder of an SFT run> --theirs   # also transformers serve

Each client asks for one answer as a stream, all of them at the same moment, and again for the number of rounds; the
first round, in which a server warms up, is left out. `transformers serve` answers chats only, so the model must have a
chat template, and it must be installed with its extra (`pip install 'transformers[serving]'`); without it the line says
so. Takes about a minute a server at 10 million parameters on two cores.
"""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maquette.model.loading import find_checkpoint, load_tokenizer, model_folder
from maquette.training.record import is_assistant


@dataclass(frozen=True)
class Answer:
    """Seconds until the first text and until the end, and pieces of text in between: one a token, or nearly."""

    first: float
    whole: float
    pieces: int


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def ask(address: str, body: dict[str, Any]) -> Answer:
    """One streamed answer."""
    call = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    began, first, pieces = time.perf_counter(), None, 0
    with urllib.request.urlopen(call, timeout=600) as stream:
        for line in stream:
            data = line.decode().removeprefix("data:").strip()
            if not data.startswith("{"):
                continue
            for choice in json.loads(data).get("choices", ()):
                if choice.get("text") or (choice.get("delta") or {}).get("content"):
                    first = first or time.perf_counter() - began
                    pieces += 1
    whole = time.perf_counter() - began
    return Answer(first or whole, whole, pieces)


def all_at_once(address: str, bodies: list[dict[str, Any]]) -> tuple[list[Answer], float]:
    """The answers to clients that ask at the same moment, and how long all of it took."""
    answers: list[Answer] = []
    start = threading.Barrier(len(bodies))

    def client(body: dict[str, Any]) -> None:
        start.wait()
        answers.append(ask(address, body))

    threads = [threading.Thread(target=client, args=(body,)) for body in bodies]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.perf_counter() - began


def measure(name: str, command: list[str], port: int, model: str, chat: bool, options: argparse.Namespace) -> None:
    """Starts a server, asks it, and prints its row."""
    log = Path(f"serving_speed-{name.split()[0]}.log")
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until_up(port, server, log)
        address = f"http://127.0.0.1:{port}/v1/{'chat/completions' if chat else 'completions'}"
        bodies = [
            {"model": model, "stream": True, "temperature": 1.0, "max_tokens": options.tokens, "seed": number}
            | ({"messages": [{"role": "user", "content": f"Write {number} words."}]} if chat
               else {"prompt": f"Number {number}: the"})
            for number in range(options.clients)
        ]  # fmt: skip
        rounds = [all_at_once(address, bodies) for _ in range(1 + options.rounds)][1:]
    finally:
        server.terminate()
        server.wait(60)
    firsts = sorted(one.first for answers, _ in rounds for one in answers)
    pieces = sum(one.pieces for answers, _ in rounds for one in answers)
    seconds = sum(taken for _, taken in rounds)
    print(
        f"{name:20} {options.clients:7} {statistics.median(firsts):12.3f} {firsts[int(0.9 * (len(firsts) - 1))]:9.3f} "
        f"{pieces / seconds:10.1f}"
    )


def wait_until_up(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Returns when the server listens. Leaves with its log where it ends before."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return
        except OSError:
            if server.poll() is not None:
                sys.exit(f"the server ended: see {log}")
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="run, imported model or folder; by default the newest run")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--theirs", action="store_true", help="transformers serve, too")
    options = parser.parse_args()
    folder = find_checkpoint(options.model, options.outputs)
    chat = is_assistant(folder, load_tokenizer(folder))
    print(f"{'server':20} clients first token    (90%)   tokens/s", flush=True)
    port = free_port()
    ours = [sys.executable, "-m", "maquette", "chat", f"checkpoint={folder}", f"port={port}"]
    measure("maquette chat", [*ours, f"outputs={options.outputs}"], port, "", chat, options)
    if not options.theirs:
        return
    if not chat or shutil.which("transformers") is None:
        print("transformers serve: not measured: it needs a model with a chat template, and transformers[serving]")
        return
    port = free_port()
    theirs = ["transformers", "serve", "--port", str(port), "--host", "127.0.0.1"]
    measure("transformers serve", theirs, port, str(model_folder(folder).absolute()), chat, options)


if __name__ == "__main__":
    main()
