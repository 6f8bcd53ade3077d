"""Where a judge's answers come from: any server that speaks OpenAI's chat protocol, or a checkpoint on this machine."""

import email.utils
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from maquette.artifacts import ConfigError, StageError
from maquette.feedback.annotators.language_model import Reply
from maquette.model import LanguageModel, Sampling
from maquette.model.generation import generate
from maquette.text import Tokenizer, chat
from maquette.text.chat import Message

_BUSY = frozenset((408, 409, 425, 429, 500, 502, 503, 504))
"""Answers that mean: ask again later."""


class EndpointJudge:
    """A model behind `<url>/chat/completions`: OpenAI's, vLLM's, llama.cpp's, Ollama's, or any like them.

    `key_variable` names the environment variable that holds the key, if one is wanted. A busy or broken server is
    asked again up to `retries` times, each time after twice as long.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str | None = None,
        retries: int = 5,
        timeout: float = 60.0,
        pause: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `ConfigError` for an address that is none, or a variable that is not set."""
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url} is no address of a server.", "It begins with http:// or https://.")
        key = os.environ.get(key_variable, "") if key_variable else ""
        if key_variable and not key:
            raise ConfigError(f"The environment variable {key_variable} is not set.", "Put the server's key there.")
        self.name, self._url = model, url.rstrip("/") + "/chat/completions"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._retries, self._timeout, self._pause, self._sleep = retries, timeout, pause, sleep

    @property
    def settings(self) -> dict[str, object]:
        return {"model": self.name, "temperature": 0}

    def ask(self, messages: Sequence[Message]) -> Reply:
        body = {"model": self.name, "messages": list(messages), "temperature": 0, "max_tokens": 8}
        request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers, method="POST")
        problem = ""
        for attempt in range(self._retries + 1):
            wait = self._pause * 2**attempt
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return _read_reply(json.loads(answer.read()))
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}"
                if error.code not in _BUSY:
                    detail = error.read(300).decode("utf-8", "replace")
                    raise StageError(f"{self._url} refuses the question: {problem}. {detail}".strip()) from None
                wait = max(wait, _asked_pause(error.headers.get("Retry-After")))
            except (TimeoutError, urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            except (ValueError, KeyError, IndexError, TypeError) as error:
                problem = f"its answer is not OpenAI's format ({type(error).__name__}: {error})"
            if attempt < self._retries:
                self._sleep(wait)
        raise StageError(
            f"{self._url} gave no answer in {self._retries + 1} tries: {problem}.",
            "What was judged until now is kept; run the command again to resume.",
        )


class LocalJudge:
    """A checkpoint of this project, or an imported one, that answers by itself. Its tokenizer needs the chat tokens."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, name: str) -> None:
        self.name, self._model, self._tokenizer = name, model, tokenizer

    @property
    def settings(self) -> dict[str, object]:
        return {"model": self.name, "tokenizer": self._tokenizer.digest}

    def ask(self, messages: Sequence[Message]) -> Reply:
        ids = chat.render(self._tokenizer, messages, open_assistant=True).ids
        [answer] = generate(
            self._model, [ids], tokenizer=self._tokenizer, sampling=Sampling(), max_tokens=8,
        )  # fmt: skip
        return Reply(answer.text, len(ids), len(answer.tokens))


def _read_reply(raw: Any) -> Reply:
    usage = raw.get("usage") or {}
    text = raw["choices"][0]["message"]["content"]
    return Reply(str(text or ""), int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))


def _asked_pause(header: str | None) -> float:
    """Seconds that a server asks to wait: a number or a date; 0 where it says nothing."""
    if not header:
        return 0.0
    try:
        return min(60.0, float(header))
    except ValueError:
        when = email.utils.parsedate_to_datetime(header)
        return min(60.0, max(0.0, when.timestamp() - time.time()))
