"""`maquette chat`: trained models to talk to in a browser, blindly against each other, or through the OpenAI API."""

import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import ChatStage
from maquette.cli.sample import is_assistant
from maquette.model.loading import find_checkpoint, load_checkpoint
from maquette.model.sampling import Sampling

if TYPE_CHECKING:
    from maquette.serving.served import ServedModel

FOLDER = "arena"
"""Inside the outputs: the battles and preferences that the arena collects."""

_MOST_CONNECTIONS = 1000
"""More at once are answered with 503 instead of kept."""

_HERE = ("127.0.0.1", "localhost", "::1")


def run(config: ChatStage) -> None:
    """Serves until it is stopped. Raises `ConfigError` where what serving needs is not installed, `StageError` where
    the port is taken."""
    try:
        import uvicorn

        from maquette.serving.endpoint import build_app
        from maquette.serving.protection import PatientProtocol
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed.", "pip install 'maquette-lm[serving]'") from None
    from maquette.serving.arena import Arena

    models = open_models(config)
    sampling = Sampling(config.temperature, config.top_k, config.top_p, config.min_p)
    arena = Arena(list(models), Path(config.outputs) / FOLDER) if len(models) > 1 else None
    listener = _listen(config.host, config.port)
    port = listener.getsockname()[1]
    is_local = config.host in _HERE
    hosts = [*_HERE, "[::1]"] if is_local else None
    token = config.token or (None if is_local else secrets.token_urlsafe(16))
    app = build_app(models, arena, sampling, hosts, token=token)
    address = f"http://{f'[{config.host}]' if ':' in config.host else config.host}:{port}"
    shown = address if token is None else f"{address}/?token={quote(token)}"
    say(f"{', '.join(models)}: open {shown} in a browser (API: {address}/v1). Ctrl-C ends it.")
    if token is not None:
        say("who asks the API must know the token: Authorization: Bearer <token>")
    if arena is not None:
        say(f"Votes of the arena go to {arena.folder}: maquette ratings battles={arena.folder}/battles.jsonl")
    settings = uvicorn.Config(
        app, http=PatientProtocol, log_level="warning", timeout_graceful_shutdown=2, limit_concurrency=_MOST_CONNECTIONS
    )
    server = uvicorn.Server(settings)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()


def open_models(config: ChatStage) -> "dict[str, ServedModel]":
    """The models by the names that people see: the last part of their folder, or all of it where two share that."""
    from maquette.serving.served import ServedModel

    wanted: list[str | None] = [*config.models] or [config.checkpoint]
    folders = [find_checkpoint(name, config.outputs) for name in wanted]
    if len(set(folders)) < len(folders):
        raise ConfigError("models names a run twice.", "Leave one out.")
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    opened = {}
    for name, folder in zip(names, folders, strict=True):
        model, tokenizer = load_checkpoint(folder)
        opened[name] = ServedModel(name, model.eval(), tokenizer, is_assistant(folder))
    return opened


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StageError(
            f"{host}:{port} can't be listened on: {error.strerror}.",
            "Choose another port=; port=0 takes any free one.",
        ) from None
    return listener
