"""Where a judge's replies come from: any server that speaks OpenAI's chat protocol, or a checkpoint on this machine."""

import os
from collections.abc import Sequence
from typing import Any

import urllib3

from maquette.artifacts import ConfigError, StageError
from maquette.feedback.annotators.language_model import Reply
from maquette.model import LanguageModel, Sampling
from maquette.model.generation import generate
from maquette.text import Tokenizer, chat
from maquette.text.chat import Message

_BUSY = frozenset((408, 409, 425, 429, 500, 502, 503, 504))
"""Status codes that mean: ask again later."""


class EndpointJudge:
    """A model behind `<url>/chat/completions`: OpenAI's, vLLM's, llama.cpp's, Ollama's, or any like them.

    `key_variable` names the environment variable that holds the key, if one is wanted. A busy or broken server is
    asked again up to `retries` times, each time after twice as long, or after as long as it asks (at most a minute).
    """

    def __init__(
        self, url: str, model: str, *, key_variable: str | None = None, retries: int = 5, timeout: float = 60.0
    ) -> None:
        """Raises `ConfigError` for an address without http:// or https://, or a variable that is not set."""
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url} is not the address of a server.", "It begins with http:// or https://.")
        key = os.environ.get(key_variable, "") if key_variable else ""
        if key_variable and not key:
            raise ConfigError(f"The environment variable {key_variable} is not set.", "Put the server's key there.")
        self.name, self._url, self._tries = model, url.rstrip("/") + "/chat/completions", retries + 1
        again = urllib3.Retry(
            retries, status_forcelist=_BUSY, allowed_methods=None, backoff_factor=1, backoff_max=60, retry_after_max=60
        )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = urllib3.PoolManager(headers=headers, retries=again, timeout=timeout, maxsize=16)

    @property
    def settings(self) -> dict[str, object]:
        return {"model": self.name, "temperature": 0}

    def ask(self, messages: Sequence[Message]) -> Reply:
        body = {"model": self.name, "messages": list(messages), "temperature": 0, "max_tokens": 8}
        try:
            answer = self._http.request("POST", self._url, json=body)
        except urllib3.exceptions.HTTPError as error:
            raise StageError(
                f"{self._url} gave no reply in {self._tries} tries: {getattr(error, 'reason', None) or error}.",
                "What was judged until now is kept; run the command again to resume.",
            ) from None
        if answer.status >= 400:
            detail = answer.data[:300].decode("utf-8", "replace")
            raise StageError(f"{self._url} refuses the question: {answer.status} {answer.reason}. {detail}".strip())
        try:
            return _read_reply(answer.json())
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise StageError(
                f"{self._url} does not reply in OpenAI's format ({type(error).__name__}: {error})."
            ) from None


class LocalJudge:
    """A checkpoint of this project, or an imported one, that replies by itself. Its tokenizer needs the chat tokens."""

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
