"""A small server that speaks OpenAI's chat protocol, for tests of those who ask one."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """Answers `/v1/chat/completions` by `reply(question)`, or `reply_to(messages)`; `failures` requests are turned
    away first."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.reply: Callable[[str], str] = lambda question: "A"
        self.reply_to: Callable[[list[Any]], str] = lambda messages: self.reply(messages[-1]["content"])
        self.likeliest: Callable[[str], dict[str, float]] | None = None  # by the text that it replies
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body)
                server.headers.append(dict(self.headers))
                if self.path != "/v1/chat/completions":
                    self.send_error(404)
                    return
                if server.failures:
                    code, headers = server.failures.pop()
                    self.send_response(code)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    return
                text = server.reply_to(body["messages"])
                answer: dict[str, Any] = {
                    "choices": [{"message": {"role": "assistant", "content": text}}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 2},
                }
                if "logprobs" in body and server.likeliest is not None:
                    named = [{"token": token, "logprob": value} for token, value in server.likeliest(text).items()]
                    answer["choices"][0]["logprobs"] = {"content": [{"top_logprobs": named}]}
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
