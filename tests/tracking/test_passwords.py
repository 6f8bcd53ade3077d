"""A password in a tracking server's address: used to connect, and never printed or stored."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maquette.artifacts import StageError
from maquette.artifacts.errors import without_secrets
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.overrides import hydra_overrides
from maquette.cli.command_line.registry import STAGES
from maquette.tracking import find_runs, start_run
from maquette.tracking.config import MLflowLoggerConfig, TrackingConfig, address_of, hide_login, store_uri


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str]]]:
    """A server that refuses everything: its port, and the logins that it was given."""
    logins: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            logins.append(self.headers.get("Authorization", ""))
            self.send_error(400)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MAQUETTE_TRACKING_LOGINS", raising=False)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, logins
    server.shutdown()


@pytest.mark.parametrize("way", ["setting", "environment"])
def test_it_connects_and_no_error_shows_it(
    way: str, asked: tuple[int, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, logins = asked
    address = f"http://ada:pa55word@127.0.0.1:{port}"
    if way == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    config = TrackingConfig(uri=address if way == "setting" else None)
    with (
        pytest.raises(StageError, match=rf"http://127\.0\.0\.1:{port}") as caught,
        start_run(config, outputs=tmp_path, name="x", folder=tmp_path, params={}, tags={}),
    ):
        pass
    with pytest.raises(StageError) as result:
        find_runs(tmp_path, uri=config.uri)
    for error in (caught.value, result.value):
        assert "pa55" not in str(error) and error.__cause__ is None
    assert logins and set(logins) == {"Basic " + base64.b64encode(b"ada:pa55word").decode()}


def test_settings_and_overrides_do_not_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAQUETTE_TRACKING_LOGINS", raising=False)
    address = "http://ada:pa55word@server:5000/x"
    assert "pa55" not in repr((TrackingConfig(uri=address), MLflowLoggerConfig(tracking_uri=address)))
    assert address_of("http://server:5000/x") == address == address_of(store_uri(TrackingConfig(uri=address), "x"))[:99]
    for stage, key in (("train", "logger.mlflow.tracking_uri"), ("evaluate", "tracking.uri")):
        for value in (address, f"'{address}'"):
            words = hydra_overrides(STAGES[stage], [f"{key}={value}"])
            assert "pa55" not in str(words) and "server:5000/x" in str(words)
    settings = compose(STAGES["train"], [f"logger.mlflow.tracking_uri={address}"])
    assert "pa55" not in OmegaConf.to_yaml(OmegaConf.structured(settings))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:pa55@host:5000/a", "http://host:5000/a"),
        ("API request to http://ada:p@55@host/a failed", "API request to http://host/a failed"),
        ("http://ada:pa/55@host", "http://host"),
        ("postgresql://host/db?user=ada&password=pa55", "postgresql://host/db?user=ada&password="),
        ("http://token@host", "http://host"),
        ("http://host:5000/mail@home", "http://host:5000/mail@home"),
        ("sqlite:////home/a@b:c@d/mlflow.db", "sqlite:////home/a@b:c@d/mlflow.db"),
        ("see http://127.0.0.1:80/?token=x", "see http://127.0.0.1:80/?token=x"),
    ],
)
def test_what_is_shown(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAQUETTE_TRACKING_LOGINS", raising=False)
    assert without_secrets(text) == shown == hide_login(text)
