"""The server: where it listens, who may ask it, and what people are told of it."""

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import uvicorn

from maquette.artifacts import StageError
from maquette.artifacts.progress import say
from maquette.model.sampling import Sampling
from maquette.serving.arena import Arena
from maquette.serving.corrections import INSTRUCTIONS, Corrections
from maquette.serving.endpoint import build_app
from maquette.serving.protection import PatientProtocol
from maquette.serving.served import ServedModel

FOLDER, CORRECTED = "arena", "corrections"
"""Inside the outputs: the battles and preferences that the arena collects, and answers that people have corrected."""

_MOST_CONNECTIONS = 1000
"""More at once are answered with 503 instead of kept."""

_HERE = ("127.0.0.1", "localhost", "::1")


def serve(
    models: Mapping[str, ServedModel], sampling: Sampling, *, outputs: str, host: str, port: int, token: str | None
) -> None:
    """Serves `models`, which also meet in the arena where they are several, until it is stopped. `token`: what who asks
    must know; where other machines may ask, one is made if none is given.

    Raises `StageError` where the port is taken."""
    arena = Arena(list(models), Path(outputs) / FOLDER) if len(models) > 1 else None
    corrections = Corrections(Path(outputs) / CORRECTED)
    listener = _listen(host, port)
    is_local = host in _HERE
    token = token or (None if is_local else secrets.token_urlsafe(16))
    app = build_app(
        models, arena, sampling, [*_HERE, "[::1]"] if is_local else None, token=token, corrections=corrections
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    shown = address if token is None else f"{address}/?token={quote(token)}"
    say(f"{', '.join(models)}: open {shown} in a browser (API: {address}/v1). Ctrl-C ends it.")
    if token is not None:
        say("who asks the API must know the token: Authorization: Bearer <token>")
    if arena is not None:
        say(f"Votes of the arena go to {arena.folder}: maquette ratings battles={arena.folder}/battles.jsonl")
    say(f"Answers that you correct are kept in {corrections.folder / INSTRUCTIONS}, as instructions for objective=sft")
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
