"""The endpoint: the OpenAI API as far as text goes, the page, and the arena behind it.

`/v1/models`, `/v1/chat/completions` and `/v1/completions` answer as clients of that API expect (also in pieces, with
`stream`); `top_k`, `min_p` and `repetition_penalty` are understood as vLLM does. What is wrong with a request is said
in the API's own form, status 400 or 404. The page is one file without anything from elsewhere.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from maquette.artifacts import MaquetteError
from maquette.model.generation import GeneratedToken
from maquette.model.sampling import Sampling
from maquette.serving import served
from maquette.serving.arena import SIDES, Arena
from maquette.serving.served import ServedModel
from maquette.text.chat import Message

Models = Mapping[str, ServedModel]

_REASONS = {"stop_id": "stop", "stop_string": "stop", "max_tokens": "length", "context": "length"}


class Options(BaseModel):
    """How to sample; the names are the API's."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int = 1
    stream: bool = False
    logprobs: bool | int | None = None


class ChatBody(Options):
    """Of `/v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(default_factory=list)


class TextBody(Options):
    """Of `/v1/completions`."""

    prompt: str | list[str] = ""


class AnswerBody(Options):
    """Of `/arena/answer`: the sampling of one side of a battle."""

    battle: str
    side: str


class BattleBody(BaseModel):
    """Of `/arena/battle`."""

    messages: list[dict[str, Any]]


class VoteBody(BaseModel):
    """Of `/arena/vote`."""

    battle: str
    winner: str
    judge: str = "a person"


class NotServedError(Exception):
    """A model that is not there."""


def build_app(models: Models, arena: Arena | None, defaults: Sampling, hosts: list[str] | None = None) -> FastAPI:
    """The application. `defaults`: the sampling where a request says nothing. `hosts`: names under which it may be
    asked (None: any); without them a page from elsewhere could talk to a server on one's own machine."""
    app = FastAPI(title="Maquette", docs_url=None, redoc_url=None, openapi_url=None)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    _explain_errors(app)

    def chosen(name: str) -> ServedModel:
        if not name:
            return next(iter(models.values()))
        if name not in models:
            raise NotServedError(f"There is no model {name!r} here. Served: {', '.join(models)}.")
        return models[name]

    def sampling(options: Options) -> Sampling:
        given = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        base = {name: getattr(defaults, name) for name in given}
        known = {name: value for name, value in given.items() if value is not None}
        return Sampling(**{**base, **known}, repetition_penalty=options.repetition_penalty)

    def request(options: Options, **what: Any) -> served.Request:
        stop = [options.stop] if isinstance(options.stop, str) else options.stop or []
        seed = secrets.randbits(31) if options.seed is None else options.seed
        return served.Request(
            **what, sampling=sampling(options), max_tokens=options.max_completion_tokens or options.max_tokens,
            stop=tuple(stop), seed=seed, count=options.n,
        )  # fmt: skip

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return resources.files("maquette.serving").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return {
            "models": [
                {
                    "id": one.name, "assistant": one.assistant, "context": one.model.config.max_position_embeddings,
                    "parameters": sum(weight.numel() for weight in one.model.parameters()),
                }
                for one in models.values()
            ],
            "arena": None if arena is None else {"votes": arena.votes(), "folder": str(arena.folder)},
            "defaults": {"temperature": defaults.temperature, "top_p": defaults.top_p},
        }  # fmt: skip

    @app.get("/v1/models")
    def listed() -> dict[str, Any]:
        now = int(time.time())
        data = [{"id": name, "object": "model", "created": now, "owned_by": "maquette"} for name in models]
        return {"object": "list", "data": data}

    @app.post("/v1/chat/completions")
    def chat(body: ChatBody) -> Response:
        model = chosen(body.model)
        asked = request(body, messages=_messages(body.messages))
        return _answered(model, asked, body, chat=True)

    @app.post("/v1/completions")
    def completions(body: TextBody) -> Response:
        model = chosen(body.model)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if len(prompts) != 1:
            raise NotServedError(f"{len(prompts)} prompts in one request: one is answered at a time.")
        return _answered(model, request(body, text=prompts[0]), body, chat=False)

    if arena is not None:
        _add_arena(app, arena, models, request)
    return app


def _add_arena(app: FastAPI, arena: Arena, models: Models, request: Callable[..., served.Request]) -> None:
    @app.post("/arena/battle")
    def battle(body: BattleBody) -> dict[str, str]:
        return {"battle": arena.begin(_messages(body.messages))}

    @app.post("/arena/answer")
    def answer(body: AnswerBody) -> Response:
        """One side's answer in pieces, without its model's name."""
        fight = arena.battle(body.battle)
        if body.side not in SIDES:
            raise NotServedError(f"side={body.side!r}: there are a and b.")
        model = models[fight.models[body.side]]
        body.n = 1
        pieces = model.answer(request(body, messages=fight.messages))

        def told() -> Iterator[str]:
            text = ""
            for piece in pieces:
                text += piece.text
                yield _event({"text": piece.text, "finish_reason": _REASONS.get(piece.finish_reason or "")})
            fight.answers[body.side] = text
            yield "data: [DONE]\n\n"

        return StreamingResponse(told(), media_type="text/event-stream")

    @app.post("/arena/vote")
    def vote(body: VoteBody) -> dict[str, Any]:
        who = arena.vote(body.battle, body.winner, body.judge.strip() or "a person")
        return {"models": who, "votes": arena.votes()}


def _answered(model: ServedModel, asked: served.Request, body: Options, *, chat: bool) -> Response:
    pieces = model.answer(asked)
    head = {
        "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
        "object": ("chat.completion" if chat else "text_completion") + (".chunk" if body.stream and chat else ""),
        "created": int(time.time()), "model": model.name,
    }  # fmt: skip
    if body.stream:
        return StreamingResponse(_chunks(head, pieces, model, body, chat), media_type="text/event-stream")
    rows: list[list[GeneratedToken]] = [[] for _ in range(asked.count)]
    for piece in pieces:
        rows[piece.row].append(piece)
    choices = []
    for index, row in enumerate(rows):
        text = "".join(piece.text for piece in row)
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        said |= {"index": index, "finish_reason": _REASONS.get(row[-1].finish_reason or "", "length")}
        if body.logprobs:
            said["logprobs"] = {"content": [_log_prob(model, piece) for piece in row]}
        choices.append(said)
    used, made = len(model.prompt(asked)), sum(map(len, rows))
    usage = {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
    return JSONResponse({**head, "choices": choices, "usage": usage})


def _chunks(
    head: dict[str, Any], pieces: Iterator[GeneratedToken], model: ServedModel, body: Options, chat: bool
) -> Iterator[str]:
    for piece in pieces:
        reason = _REASONS.get(piece.finish_reason or "")
        said: dict[str, Any] = {"delta": {"content": piece.text}} if chat else {"text": piece.text}
        said |= {"index": piece.row, "finish_reason": reason}
        if body.logprobs:
            said["logprobs"] = {"content": [_log_prob(model, piece)]}
        yield _event({**head, "choices": [said]})
    yield "data: [DONE]\n\n"


def _log_prob(model: ServedModel, piece: GeneratedToken) -> dict[str, Any]:
    return {"token": model.tokenizer.decode([piece.token]), "logprob": piece.log_prob, "id": piece.token}


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _messages(given: list[dict[str, Any]]) -> list[Message]:
    """The API lets a content come in parts; those that are text are joined."""
    found = []
    for one in given:
        content = one.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        found.append(Message(role=str(one.get("role")), content=content))  # type: ignore[typeddict-item]
    return found


def _explain_errors(app: FastAPI) -> None:
    def told(status: int, message: str, code: str | None = None) -> JSONResponse:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)

    @app.exception_handler(MaquetteError)
    def wrong(_: Request, error: MaquetteError) -> JSONResponse:
        code = "context_length_exceeded" if "context holds" in error.message else None
        return told(400, f"{error.message} {error.hint}".strip(), code)

    @app.exception_handler(NotServedError)
    def missing(_: Request, error: NotServedError) -> JSONResponse:
        return told(404, str(error), "model_not_found")

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return told(400, f"{'.'.join(str(part) for part in first['loc'][1:]) or 'body'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def other(_: Request, error: HTTPException) -> JSONResponse:
        return told(error.status_code, str(error.detail))
