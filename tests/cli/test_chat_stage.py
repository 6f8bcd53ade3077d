"""`maquette chat`: opens what is named, says what is wrong, and serves until it is stopped."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import uvicorn

from maquette.artifacts import ConfigError, StageError
from maquette.cli import chat
from maquette.cli.command_line.model_config import ChatStage
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.model.running_batch import RunningBatch
from maquette.serving import protection
from maquette.serving.served import open_models
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("chat")
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    shape = TransformerConfig(
        tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=48
    )
    places = [root / "a" / "model", root / "b" / "model", root / "other"]
    for seed, place in enumerate(places):
        hf.save(LanguageModel(shape, seed=seed), tokenizer, place)
    return [str(place) for place in places]


def test_names_are_short_where_they_can_be(folders: list[str]) -> None:
    opened = open_models(list(map(Path, folders[1:])))
    assert list(opened) == ["b", "other"]
    assert opened["b"].parameters.head == opened["b"].tokenizer.vocab_size * 16
    with pytest.raises(ConfigError, match="twice"):
        chat.run(ChatStage(models=[folders[0], folders[0]]))
    with pytest.raises(ConfigError, match="both given"):
        ChatStage(models=folders, checkpoint=folders[0]).validate()


def test_a_port_that_is_taken(folders: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StageError, match="can't be listened on"):
            chat.run(ChatStage(checkpoint=folders[0], port=taken.getsockname()[1]))


def test_it_serves_and_ends(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers: list[uvicorn.Server] = []

    class Remembered(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(uvicorn, "Server", Remembered)
    thread = threading.Thread(target=chat.run, args=(ChatStage(models=folders[1:], port=0, outputs=str(tmp_path)),))
    thread.start()
    address = ""
    for _ in range(600):
        stderr = capsys.readouterr().err
        if "open http" in stderr:
            address = stderr.partition("open ")[2].split()[0]
        if address and servers and servers[0].started:
            break
        time.sleep(0.05)
    with urllib.request.urlopen(f"{address}/api/state", timeout=30) as answer:
        assert b'"other"' in answer.read()
    servers[0].should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def _serve(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> tuple[uvicorn.Server, threading.Thread]:
    servers: list[uvicorn.Server] = []

    class Remembered(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(uvicorn, "Server", Remembered)
    config = ChatStage(models=folders[1:], port=0, outputs=str(tmp_path), **settings)  # type: ignore[arg-type]
    thread = threading.Thread(target=chat.run, args=(config,))
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        time.sleep(0.02)
    return servers[0], thread


def test_clients_that_never_finish_are_dropped_and_health_answers_meanwhile(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protection.PatientProtocol, "patience", 0.5)
    server, thread = _serve(folders, tmp_path, monkeypatch)
    try:
        place = server.servers[0].sockets[0].getsockname()
        halves = [socket.create_connection(place, 30) for _ in range(100)]
        for number, one in enumerate(halves):
            one.sendall((b"", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")[number % 2])
        with urllib.request.urlopen(f"http://127.0.0.1:{place[1]}/health", timeout=30) as answer:
            assert answer.status == 200
        assert [one.recv(100) for one in halves] == [b""] * 100  # closed by the server
    finally:
        server.should_exit = True
        thread.join(30)


def test_what_is_no_http_is_answered_in_the_form_of_the_api(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, thread = _serve(folders, tmp_path, monkeypatch)
    try:
        for request in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n"):
            with socket.create_connection(server.servers[0].sockets[0].getsockname(), 30) as one:
                one.sendall(request)
                head, _, body = b"".join(iter(lambda: one.recv(4096), b"")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 Bad Request") and b"content-type: application/json" in head.lower()
            assert json.loads(body)["error"]["type"] == "invalid_request_error"
    finally:
        server.should_exit = True
        thread.join(30)


def test_a_request_that_is_given_up_costs_no_further_token(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[float] = []
    step = RunningBatch.step

    def slow(self: RunningBatch) -> object:
        steps.append(time.monotonic())
        time.sleep(0.1)
        return step(self)

    monkeypatch.setattr(RunningBatch, "step", slow)
    server, thread = _serve(folders, tmp_path, monkeypatch)
    try:
        place = server.servers[0].sockets[0].getsockname()
        body = b'{"prompt": "a", "temperature": 1, "n": 16}'
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
        with socket.create_connection(place, 30) as one:
            one.sendall(head + b"Content-Type: application/json\r\n\r\n" + body)
            while not steps:
                time.sleep(0.01)
        given_up = time.monotonic()
        time.sleep(1.5)
        assert not [at for at in steps if at > given_up + 0.6]
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def test_for_other_machines_a_token_is_made_and_shown(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, thread = _serve(folders, tmp_path, monkeypatch, host="0.0.0.0")
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=30)
        token = capsys.readouterr().err.partition("?token=")[2].split()[0]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
    finally:
        server.should_exit = True
        thread.join(30)
