"""What a request passes before the endpoint sees it: who may ask, how large and how slow a request may be.

| against | is |
|---|---|
| bodies that fill the memory | refused at `MOST_BYTES`, by their header or while they come |
| clients that never finish their request | dropped after `PATIENCE` seconds, in headers (`PatientProtocol`) and body |
| pages of elsewhere, where it listens to this machine alone | `hosts`: names it may be asked under, and asked from |
| users of other machines, where it listens to those | a token, as `Authorization: Bearer` or the page's cookie |
| pages of others around ours, scripts in ours | headers on every answer (OWASP's list of secure headers) |
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from maquette.artifacts.reading import short

MOST_BYTES = 4 * 2**20
"""Of a request's body: a conversation is some kilobytes."""

PATIENCE = 20.0
"""Seconds that a client has for the headers of a request, and again for its body."""

_COOKIE = "maquette_token"
_OPEN = ("/health",)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An error in the API's own form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def security_headers(page: str) -> dict[str, str]:
    """Of every answer; `page`'s own script and style are the only ones that a browser runs."""

    def hashes(tag: str) -> str:
        scripts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts
        )

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }


class Protection:
    """ASGI middleware around `app`. `token`: what a client must know; None where only this machine is let in. `hosts`:
    names under which it may be asked, by pages of the same names (None: any); without them a page of elsewhere could
    talk to a server on one's own machine."""

    def __init__(
        self, app: Any, *, headers: dict[str, str], token: str | None = None, hosts: Sequence[str] | None = None,
        most_bytes: int = MOST_BYTES,
        patience: float = PATIENCE,
    ) -> None:  # fmt: skip
        self.app, self.token, self.hosts, self.most_bytes, self.patience = app, token, hosts, most_bytes, patience
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        given = dict(scope["headers"])
        for header, status in ((b"host", 400), (b"origin", 403)):
            if self.hosts is not None and header in given and _host(given[header]) not in self.hosts:
                name, value = header.decode(), short(given[header].decode("latin-1"), 60)
                await _refuse(send_with_headers, status, f"The {name} {value} is not of this server.")
                return
        if self.token is not None and scope["path"] not in _OPEN:
            if self._shows_token_in_address(scope):
                await self._welcome(send_with_headers)
                return
            if not self._knows_token(given):
                await _refuse(send_with_headers, 401, "This server asks for its token.", "invalid_api_key")
                return
        announced = given.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.most_bytes:
            await self._too_large(send_with_headers)
            return
        try:
            body = await asyncio.wait_for(self._read(receive), self.patience)
        except TimeoutError:
            await _refuse(send_with_headers, 408, f"The body did not come within {self.patience:g} seconds.")
            return
        if body is None:
            return  # the client has gone
        if len(body) > self.most_bytes:
            await self._too_large(send_with_headers)
            return
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send_with_headers)

    async def _read(self, receive: Receive) -> bytearray | None:
        """The body up to a byte above the limit; None where the client has gone."""
        body = bytearray()
        while len(body) <= self.most_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        return body

    async def _too_large(self, send: Send) -> None:
        await _refuse(send, 413, f"A request's body may have at most {self.most_bytes:,} bytes.")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def _knows_token(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(key.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _shows_token_in_address(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return scope["path"] == "/" and self._is_token(given[0])

    async def _welcome(self, send: Send) -> None:
        """Puts the token into the page's cookie and takes it out of the address."""
        cookie = f"{_COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/".encode()
        headers = [(b"location", b"/"), (b"set-cookie", cookie), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _host(header: bytes) -> str:
    """The name in `http://name:port`, or in `name:port`."""
    return re.sub(r":\d*$", "", header.decode("latin-1").rpartition("//")[2]).lower()


async def _refuse(send: Send, status: int, message: str, code: str | None = None) -> None:
    body = json.dumps(error_body(status, message, code)).encode()
    headers = [
        (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which waits for the rest of a request's headers for ever, with an end to its patience."""

    patience = PATIENCE
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP, in the API's form."""
        body = json.dumps(error_body(400, msg)).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        events = (h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(data=body))
        for event in (*events, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """From the first byte on: bytes that trickle in win no time."""
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.patience, self._drop)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _drop(self) -> None:
        self._waiting = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
