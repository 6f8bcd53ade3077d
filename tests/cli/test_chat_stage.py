"""`maquette chat`: opens what is named, says what is wrong, and serves until it is stopped."""

import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import uvicorn

from maquette.artifacts import ConfigError, StageError
from maquette.cli import chat
from maquette.cli.command_line.model_config import ChatStage
from maquette.model import LanguageModel, TransformerConfig, hf
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
    assert list(chat.open_models(ChatStage(models=folders[1:]))) == ["model", "other"]
    assert list(chat.open_models(ChatStage(models=folders[:2]))) == folders[:2]
    with pytest.raises(ConfigError, match="twice"):
        chat.open_models(ChatStage(models=[folders[0], folders[0]]))
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
        told = capsys.readouterr().err
        if "open http" in told:
            address = told.partition("open ")[2].split()[0]
        if address and servers and servers[0].started:
            break
        time.sleep(0.05)
    with urllib.request.urlopen(f"{address}/api/state", timeout=30) as answer:
        assert b'"other"' in answer.read()
    servers[0].should_exit = True
    thread.join(30)
    assert not thread.is_alive()
