"""An answer in the form of the OpenAI API: whole, or in pieces while it is written (`stream`).

Work runs in threads, so that the endpoint goes on serving others meanwhile, and ends when whoever asked has gone.
"""

import itertools
import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import Request as Call
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from maquette.artifacts import MaquetteError
from maquette.model.generation import GeneratedToken
from maquette.serving.protection import error_body
from maquette.serving.requests import Options
from maquette.serving.served import Request, ServedModel

_REASONS = {"stop_id": "stop", "stop_string": "stop", "max_tokens": "length", "context": "length"}

_GONE = 499
"""nginx's status of a request that its client gave up; nobody reads it."""

DONE = "data: [DONE]\n\n"
"""The last event of an answer in pieces."""


@dataclass(frozen=True)
class ApiAnswer:
    """`model`'s answer to a request; `body`: as it came. `chat`: a message, else a text that continues the prompt."""

    model: ServedModel
    request: Request
    body: Options
    chat: bool

    async def response(self, call: Call) -> Response:
        """Raises what the model does of a request that can't be answered, before anything is sent."""
        head: dict[str, Any] = {
            "id": ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12),
            "object": "chat.completion" if self.chat else "text_completion",
            "created": int(time.time()), "model": self.model.name,
        }  # fmt: skip
        if self.body.stream:
            head["object"] += ".chunk" if self.chat else ""
            pieces = await run_in_threadpool(self.model.answer, self.request)
            return events(self._chunks(head, pieces))
        made = await self._while_wanted(call)
        if made is None:
            return Response(status_code=_GONE)
        choices = []
        for index in range(self.request.count):
            row = [piece for piece in made if piece.row == index]
            text = "".join(piece.text for piece in row)
            content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
            choices.append({**content, **self._choice(row), "finish_reason": reason(row[-1]) or "length"})
        return JSONResponse({**head, "choices": choices, "usage": self._usage(len(made))})

    def _chunks(self, head: dict[str, Any], pieces: Iterator[GeneratedToken]) -> Iterator[str]:
        made = 0
        try:
            for piece in pieces:
                made += 1
                content = {"delta": {"content": piece.text}} if self.chat else {"text": piece.text}
                yield event({**head, "choices": [{**content, **self._choice([piece])}]})
        except MaquetteError as error:  # too late for a status
            yield event(error_body(500, f"{error.message} {error.hint}".strip()))
            return
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield event({**head, "choices": [], "usage": self._usage(made)})
        yield DONE

    async def _while_wanted(self, call: Call) -> list[GeneratedToken] | None:
        """All tokens of the answer, made in a thread; None where the client has gone meanwhile: then no further token
        is computed, and an answer that has not begun never is."""
        given_up = threading.Event()

        def work() -> list[GeneratedToken] | Exception | None:
            pieces = []
            try:
                for piece in self.model.answer(self.request):
                    if given_up.is_set():
                        return None
                    pieces.append(piece)
            except Exception as error:  # raised below: a task group would wrap it
                return error
            return pieces

        async def watch(scope: anyio.CancelScope) -> None:
            while not await call.is_disconnected():
                await anyio.sleep(0.1)
            given_up.set()
            scope.cancel()

        outcome: list[GeneratedToken] | Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            outcome = await run_in_threadpool(work)
            group.cancel_scope.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _choice(self, row: Sequence[GeneratedToken]) -> dict[str, Any]:
        """What is said of some tokens beside their text."""
        choice: dict[str, Any] = {"index": row[-1].row, "finish_reason": reason(row[-1])}
        return choice | ({"logprobs": self._log_probs(row)} if self.body.wants_log_probs else {})

    def _usage(self, made: int) -> dict[str, int]:
        used = len(self.model.prompt(self.request))
        return {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}

    def _log_probs(self, row: Sequence[GeneratedToken]) -> dict[str, Any]:
        """As the API has it for conversations; for texts in its older form too, which evaluation programs read."""

        def entry(token: int, log_prob: float) -> dict[str, Any]:
            text = self.model.tokenizer.decode([token])
            return {"token": text, "logprob": log_prob, "bytes": list(text.encode()), "id": token}

        content = [
            entry(piece.token, piece.log_prob) | {"top_logprobs": [entry(*likely) for likely in piece.top]}
            for piece in row
        ]
        if self.chat:
            return {"content": content}
        offsets = itertools.accumulate((len(piece.text) for piece in row[:-1]), initial=0)
        return {
            "content": content,
            "tokens": [one["token"] for one in content],
            "token_logprobs": [one["logprob"] for one in content],
            "top_logprobs": [{likely["token"]: likely["logprob"] for likely in one["top_logprobs"]} for one in content],
            "text_offset": list(offsets),
        }


def reason(piece: GeneratedToken) -> str | None:
    """Why an answer ends with this token, in the API's words; None where it goes on."""
    return _REASONS.get(piece.finish_reason or "")


def event(value: Any) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def events(pieces: Iterator[str]) -> StreamingResponse:
    return StreamingResponse(pieces, media_type="text/event-stream")
