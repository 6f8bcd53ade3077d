"""The endpoint: the OpenAI API as far as text goes, the page, and the arena and corrections behind it.

`/v1/models`, `/v1/chat/completions` and `/v1/completions` answer as clients of that API expect: requests.py reads what
is asked, served.py does the work, answers.py says what came of it. Errors are in the API's own form, whatever they are.
The page is one file without anything from elsewhere.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from maquette.artifacts import MaquetteError
from maquette.artifacts.reading import short
from maquette.model.sampling import Sampling
from maquette.serving.answers import DONE, ApiAnswer, event, events, reason
from maquette.serving.arena import SIDES, Arena
from maquette.serving.corrections import Corrections
from maquette.serving.page import page_text, prediction_body
from maquette.serving.protection import Protection, error_body, security_headers
from maquette.serving.requests import (
    AnswerBody,
    BadRequestError,
    BattleBody,
    ChatBody,
    CorrectionBody,
    NextTokenBody,
    NotServedError,
    TextBody,
    VoteBody,
    read_messages,
)
from maquette.serving.served import ServedModel

Models = Mapping[str, ServedModel]


def build_app(
    models: Models,
    arena: Arena | None,
    defaults: Sampling,
    hosts: list[str] | None = None,
    *,
    token: str | None = None,
    corrections: Corrections | None = None,
) -> FastAPI:
    """The application. `defaults`: the sampling where a request says nothing. `hosts` and `token` as `Protection`.
    `corrections`: where corrected answers are kept; None: nowhere."""
    app = FastAPI(title="Maquette", docs_url=None, redoc_url=None, openapi_url=None)
    text_of_page = page_text()
    app.add_middleware(Protection, headers=security_headers(text_of_page), token=token, hosts=hosts)
    _explain_errors(app)

    def chosen(name: str) -> ServedModel:
        if not name:
            return next(iter(models.values()))
        if name not in models:
            raise NotServedError(f"There is no model {name!r} here. Served: {', '.join(models)}.")
        return models[name]

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
                    "parameters": one.parameters.core + one.parameters.head, "embedding": one.parameters.embedding,
                    "tokenizer": one.tokenizer.digest, "card": one.card,
                }
                for one in models.values()
            ],
            "arena": None if arena is None else {"votes": arena.votes(), "folder": str(arena.folder)},
            "corrections": None if corrections is None else {"kept": len(corrections)},
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
        asked = body.request(defaults, messages=read_messages(body.messages))
        return await ApiAnswer(model, asked, body, chat=True).response(call)

    @app.post("/v1/completions")
    async def completions(body: TextBody, call: Request) -> Response:
        model = chosen(body.model)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if prompts and isinstance(prompts[0], int):
            return await ApiAnswer(model, body.request(defaults, ids=prompts), body, chat=False).response(call)
        if len(prompts) != 1:
            raise BadRequestError(f"{len(prompts)} prompts in one request: one is answered at a time.", "prompt")
        return await ApiAnswer(model, body.request(defaults, text=prompts[0]), body, chat=False).response(call)

    @app.post("/api/next")
    def next_token(body: NextTokenBody) -> dict[str, Any]:
        asked: dict[str, Any] = {"ids": body.ids, "text": body.text}
        if body.ids is None and body.text is None:
            asked = {"messages": read_messages(body.messages)}
        return prediction_body(chosen(body.model), body.request(defaults, **asked), body.place, body.beams)

    if corrections is not None:

        @app.post("/corrections")
        def correct(body: CorrectionBody) -> dict[str, int]:
            model = chosen(body.model).name
            name = body.name.strip() or "a person"
            number = corrections.add(read_messages(body.messages), body.answer, body.original, model=model, name=name)
            return {"kept": number}

    if arena is not None:
        _add_arena(app, arena, models, defaults)
    return app


def _add_arena(app: FastAPI, arena: Arena, models: Models, defaults: Sampling) -> None:
    @app.post("/arena/battle")
    def battle(body: BattleBody) -> dict[str, str]:
        return {"battle": arena.begin(read_messages(body.messages))}

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
        pieces = model.answer(body.request(defaults, messages=fight.messages))

        def chunks() -> Iterator[str]:
            text = ""
            for piece in pieces:
                text += piece.text
                yield event({"text": piece.text, "finish_reason": reason(piece)})
            fight.answers.setdefault(body.side, text)
            yield DONE

        return events(chunks())

    @app.post("/arena/vote")
    def vote(body: VoteBody) -> dict[str, Any]:
        who = arena.vote(body.battle, body.winner, body.judge.strip() or "a person")
        return {"models": who, "votes": arena.votes()}

    @app.get("/arena/ratings")
    def ratings() -> dict[str, Any]:
        return arena.ratings()


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
