"""The endpoint: the OpenAI API as far as text goes, the page, and the arena behind it.

`/v1/models`, `/v1/chat/completions` and `/v1/completions` answer as clients of that API expect (also in pieces, with
`stream`); `top_k`, `min_p` and `repetition_penalty` are understood as vLLM does. A parameter that would change the
answer and isn't supported is refused by name. Errors are in the API's own form, whatever they are. Work runs in
threads, so that `/health` and the lists answer meanwhile, and ends when whoever asked has gone. The page is one file
without anything from elsewhere.
"""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from maquette.artifacts import MaquetteError, StageError
from maquette.artifacts.reading import short
from maquette.data.row_shapes import check_keys
from maquette.model.generation import GeneratedToken
from maquette.model.sampling import Sampling
from maquette.serving import served
from maquette.serving.arena import SIDES, Arena
from maquette.serving.protection import Protection, error_body, security_headers
from maquette.serving.served import ServedModel
from maquette.text.chat import Message

Models = Mapping[str, ServedModel]

_REASONS = {"stop_id": "stop", "stop_string": "stop", "max_tokens": "length", "context": "length"}


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},), "tools": ([],), "functions": ([],),
    "tool_choice": ("none", "auto"), "response_format": ({"type": "text"},), "best_of": (1,), "echo": (False,),
    "suffix": ("",), "modalities": (["text"],), "parallel_tool_calls": (True, False), "store": (False,),
    "stream_options": (),
}  # fmt: skip
"""Parameters of the API that are not supported, and the values with which they ask for nothing."""

_OF_THE_CALLER = frozenset(("user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier"))
"""Parameters about who asks; no answer depends on them."""

_MOST_STOPS, _MOST_TOP = 4, 20
"""Stop strings, and likeliest tokens beside each token: what the API allows."""

_GONE = 499
"""nginx's status of a request that its client gave up; nobody reads it."""


class BadRequestError(Exception):
    """A request that can't be answered; `param`: the parameter that is wrong."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code


class StreamOptions(BaseModel):
    """`include_usage`: a last piece says how many tokens there were."""

    include_usage: bool = False


class Options(BaseModel):
    """How to sample; the names are the API's."""

    model_config = ConfigDict(extra="allow")

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
    stream_options: StreamOptions | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None

    def check(self) -> None:
        """Raises `BadRequestError` for a parameter that is not supported, or out of the API's range."""
        for name, value in (self.model_extra or {}).items():
            if name in _OF_THE_CALLER or value is None or value in _NEUTRAL.get(name, ()):
                continue
            known = "is not supported" if name in _NEUTRAL else "is not known"
            raise BadRequestError(f"The parameter {name[:80]!r} {known} here.", name[:80], "unsupported_parameter")
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > _MOST_STOPS:
            raise BadRequestError(f"stop has {len(stops):,} strings: at most {_MOST_STOPS}.", "stop")
        if not 0 <= self.top <= _MOST_TOP:
            raise BadRequestError(f"top_logprobs={self.top} is out of range: 0 to {_MOST_TOP}.", "top_logprobs")
        if self.top_logprobs is not None and not self.logprobs:
            raise BadRequestError("top_logprobs needs logprobs=true.", "top_logprobs")

    @property
    def top(self) -> int:
        """How many of the likeliest tokens come beside each token: `logprobs` of a text request may be that number."""
        if self.top_logprobs is not None:
            return self.top_logprobs
        return self.logprobs if type(self.logprobs) is int else 0


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


def build_app(
    models: Models,
    arena: Arena | None,
    defaults: Sampling,
    hosts: list[str] | None = None,
    *,
    token: str | None = None,
) -> FastAPI:
    """The application. `defaults`: the sampling where a request says nothing. `hosts`: names under which it may be
    asked (None: any); without them a page from elsewhere could talk to a server on one's own machine. `token`: what
    who asks must know (None: nothing)."""
    app = FastAPI(title="Maquette", docs_url=None, redoc_url=None, openapi_url=None)
    text_of_page = resources.files("maquette.serving").joinpath("page.html").read_text(encoding="utf-8")
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_middleware(Protection, headers=security_headers(text_of_page), token=token)
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
        options.check()
        stop = [options.stop] if isinstance(options.stop, str) else options.stop or []
        seed = secrets.randbits(31) if options.seed is None else options.seed
        return served.Request(
            **what, sampling=sampling(options), max_tokens=options.max_completion_tokens or options.max_tokens,
            stop=tuple(stop), seed=seed, count=options.n, top=options.top,
        )  # fmt: skip

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return text_of_page

    @app.get("/health")
    async def health() -> dict[str, str]:
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
    async def listed() -> dict[str, Any]:
        now = int(time.time())
        data = [{"id": name, "object": "model", "created": now, "owned_by": "maquette"} for name in models]
        return {"object": "list", "data": data}

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, call: Request) -> Response:
        model = chosen(body.model)
        asked = request(body, messages=_messages(body.messages))
        return await _answered(call, model, asked, body, chat=True)

    @app.post("/v1/completions")
    async def completions(body: TextBody, call: Request) -> Response:
        model = chosen(body.model)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if len(prompts) != 1:
            raise BadRequestError(f"{len(prompts)} prompts in one request: one is answered at a time.", "prompt")
        return await _answered(call, model, request(body, text=prompts[0]), body, chat=False)

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
            raise BadRequestError(f"side={body.side!r:.40}: there are a and b.", "side")
        if body.side in fight.answers:
            raise BadRequestError(f"Side {body.side} has answered: what was shown is what is judged.", "side")
        model = models[fight.models[body.side]]
        body.n = 1
        pieces = model.answer(request(body, messages=fight.messages))

        def events() -> Iterator[str]:
            text = ""
            for piece in pieces:
                text += piece.text
                yield _event({"text": piece.text, "finish_reason": _REASONS.get(piece.finish_reason or "")})
            fight.answers.setdefault(body.side, text)
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/arena/vote")
    def vote(body: VoteBody) -> dict[str, Any]:
        who = arena.vote(body.battle, body.winner, body.judge.strip() or "a person")
        return {"models": who, "votes": arena.votes()}


async def _answered(call: Request, model: ServedModel, asked: served.Request, body: Options, *, chat: bool) -> Response:
    head = {
        "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
        "object": ("chat.completion" if chat else "text_completion") + (".chunk" if body.stream and chat else ""),
        "created": int(time.time()), "model": model.name,
    }  # fmt: skip
    if body.stream:
        pieces = await run_in_threadpool(model.answer, asked)
        return StreamingResponse(_chunks(head, pieces, model, asked, body, chat), media_type="text/event-stream")
    made = await _while_wanted(call, model, asked)
    if made is None:
        return Response(status_code=_GONE)
    rows: list[list[GeneratedToken]] = [[] for _ in range(asked.count)]
    for piece in made:
        rows[piece.row].append(piece)
    choices = []
    for index, row in enumerate(rows):
        text = "".join(piece.text for piece in row)
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice |= {"index": index, "finish_reason": _REASONS.get(row[-1].finish_reason or "", "length")}
        if _wants_log_probs(body):
            choice["logprobs"] = _log_probs(model, row, chat=chat)
        choices.append(choice)
    return JSONResponse({**head, "choices": choices, "usage": _usage(model, asked, len(made))})


async def _while_wanted(call: Request, model: ServedModel, asked: served.Request) -> list[GeneratedToken] | None:
    """All tokens of the answer, made in a thread; None where the client has gone meanwhile: then no further token is
    computed, and an answer that has not begun never is."""
    given_up = threading.Event()
    outcome: list[Any] = []

    def work() -> None:
        try:
            pieces = []
            for piece in model.answer(asked):
                if given_up.is_set():
                    return
                pieces.append(piece)
            outcome.append(pieces)
        except Exception as error:
            outcome.append(error)

    async def watch(scope: anyio.CancelScope) -> None:
        while not await call.is_disconnected():
            await anyio.sleep(0.1)
        given_up.set()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        await run_in_threadpool(work)
        group.cancel_scope.cancel()
    if outcome and isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0] if outcome else None


def _usage(model: ServedModel, asked: served.Request, made: int) -> dict[str, int]:
    used = len(model.prompt(asked))
    return {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}


def _chunks(
    head: dict[str, Any],
    pieces: Iterator[GeneratedToken],
    model: ServedModel,
    asked: served.Request,
    body: Options,
    chat: bool,
) -> Iterator[str]:
    made = 0
    try:
        for piece in pieces:
            made += 1
            reason = _REASONS.get(piece.finish_reason or "")
            choice: dict[str, Any] = {"delta": {"content": piece.text}} if chat else {"text": piece.text}
            choice |= {"index": piece.row, "finish_reason": reason}
            if _wants_log_probs(body):
                choice["logprobs"] = _log_probs(model, [piece], chat=chat)
            yield _event({**head, "choices": [choice]})
    except MaquetteError as error:  # too late for a status
        yield _event(error_body(500, f"{error.message} {error.hint}".strip()))
        return
    if body.stream_options is not None and body.stream_options.include_usage:
        yield _event({**head, "choices": [], "usage": _usage(model, asked, made)})
    yield "data: [DONE]\n\n"


def _wants_log_probs(body: Options) -> bool:
    return body.logprobs is not None and body.logprobs is not False


def _log_probs(model: ServedModel, row: list[GeneratedToken], *, chat: bool) -> dict[str, Any]:
    """As the API has it for conversations; for texts in its older form too, which evaluation programs read."""

    def entry(token: int, log_prob: float) -> dict[str, Any]:
        text = model.tokenizer.decode([token])
        return {"token": text, "logprob": log_prob, "bytes": list(text.encode()), "id": token}

    content = [
        entry(piece.token, piece.log_prob) | {"top_logprobs": [entry(*likely) for likely in piece.top]} for piece in row
    ]
    if chat:
        return {"content": content}
    offsets, place = [], 0
    for piece in row:
        offsets.append(place)
        place += len(piece.text)
    return {
        "content": content,
        "tokens": [one["token"] for one in content],
        "token_logprobs": [one["logprob"] for one in content],
        "top_logprobs": [{likely["token"]: likely["logprob"] for likely in one["top_logprobs"]} for one in content],
        "text_offset": offsets,
    }


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _messages(given: list[dict[str, Any]]) -> list[Message]:
    """The API lets a content come in parts, which are joined. Raises `StageError` for a part that is no text, and for
    a key that no model here can use."""
    messages = []
    for number, one in enumerate(given, 1):
        check_keys(one, {"role", "content"}, f"message {number}", "a message")
        content = one.get("content")
        if isinstance(content, list):
            if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
                raise StageError(f"message {number} has a part that is not a text.", "Only texts are understood.")
            content = "".join(part["text"] for part in content)
        messages.append(Message(role=str(one.get("role")), content=content))  # type: ignore[typeddict-item]
    return messages


def _explain_errors(app: FastAPI) -> None:
    def explained(status: int, message: str, code: str | None = None, param: str | None = None) -> JSONResponse:
        return JSONResponse(error_body(status, message, code, param), status)

    @app.exception_handler(MaquetteError)
    async def wrong(_: Request, error: MaquetteError) -> JSONResponse:
        code = "context_length_exceeded" if "context holds" in error.message else None
        return explained(400, f"{error.message} {error.hint}".strip(), code)

    @app.exception_handler(BadRequestError)
    async def bad(_: Request, error: BadRequestError) -> JSONResponse:
        return explained(400, str(error), error.code, error.param)

    @app.exception_handler(NotServedError)
    async def missing(_: Request, error: NotServedError) -> JSONResponse:
        return explained(404, str(error), "model_not_found", "model")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return explained(400, f"The body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}.")
        place = ".".join(str(part) for part in first["loc"][1:])
        return explained(400, f"{place or 'body'}: {first['msg']}", param=place or None)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return explained(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return explained(500, f"{type(error).__name__}: {short(error)}")
