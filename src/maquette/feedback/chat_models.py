"""Models that answer a conversation, to judge or to write: any server that speaks OpenAI's chat protocol, or a
checkpoint on this machine."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import urllib3

from maquette.artifacts import ConfigError, StageError
from maquette.model import LanguageModel, Sampling
from maquette.model.generation import generate
from maquette.text import Tokenizer, chat
from maquette.text.chat import Message

_BUSY = frozenset((408, 409, 425, 429, 500, 502, 503, 504))
"""Status codes that mean: ask again later."""

_LIKELIEST = 20
"""Tokens whose log-probabilities a server is asked for: the most that OpenAI's gives."""


@dataclass(frozen=True)
class Reply:
    """What a model replied, and what it read and wrote for it, in tokens. `cut`: it was not at its end. `seconds`: its
    share of the time that those took that were asked at once, 0 where nobody measured it. `probability`, where it was
    asked for: that of the first of two words, in what both have."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False
    seconds: float = 0.0
    probability: float | None = None

    def dollars(self, input_price: float, output_price: float) -> float:
        """What it cost, at prices in dollars per million tokens."""
        return (self.prompt_tokens * input_price + self.completion_tokens * output_price) / 1e6


class ChatModel(Protocol):
    """A model that answers a conversation. `name` and `settings` decide whether an earlier reply still counts."""

    name: str

    @property
    def settings(self) -> dict[str, object]: ...

    def ask(self, messages: Sequence[Message]) -> Reply:
        """Raises `StageError` where there is no answer to be had."""
        ...

    def weigh(self, messages: Sequence[Message], words: tuple[str, str]) -> Reply:
        """How likely a reply begins with each of two words of one token: a reply with a `probability`, None where it
        begins with neither. Raises as `ask`."""
        ...


class AuthorModel(Protocol):
    """A model that writes much: it is asked several conversations at once."""

    name: str

    def ask_all(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> Iterator[tuple[int, Reply]]:
        """Each reply with the place of its conversation, as soon as it is there; a seed draws the same reply again
        where the model keeps to it. Raises `StageError` as `ChatModel.ask`."""
        ...


class EndpointModel:
    """A model behind `<url>/chat/completions`: OpenAI's, vLLM's, llama.cpp's, Ollama's, or any like them.

    `key_variable` names the environment variable that holds the key, if one is wanted. A busy or broken server is
    asked again up to `retries` times, each time after twice as long, or after as long as it asks (at most a minute).
    By default it replies greedily and briefly, as a judge.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str | None = None,
        retries: int = 5,
        timeout: float = 60.0,
        sampling: Sampling | None = None,
        max_tokens: int = 8,
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
        self._body: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": max_tokens}
        if sampling is not None:
            self._body |= {"temperature": sampling.temperature} | ({"top_p": sampling.top_p} if sampling.top_p else {})

    @property
    def settings(self) -> dict[str, object]:
        return {"model": self.name, "temperature": self._body["temperature"]}

    def ask(self, messages: Sequence[Message], seed: int | None = None) -> Reply:
        return self._asked({"messages": list(messages)} | ({} if seed is None else {"seed": seed}), _read_reply)

    def weigh(self, messages: Sequence[Message], words: tuple[str, str]) -> Reply:
        """From the likeliest tokens that the server names, 20 at most."""
        body = {"messages": list(messages), "max_tokens": 1, "logprobs": True, "top_logprobs": _LIKELIEST}

        def read(raw: Any) -> Reply:
            if not (place := raw["choices"][0].get("logprobs")):
                raise StageError(
                    f"{self._url} gives no log-probabilities.", "Use feedback.verdict=letter, or another server."
                )
            likeliest = [(one["token"], float(one["logprob"])) for one in place["content"][0]["top_logprobs"]]
            return replace(_read_reply(raw), probability=_share_of_first(likeliest, words))

        return self._asked(body, read)

    def _asked(self, more: Mapping[str, Any], read: Callable[[Any], Reply]) -> Reply:
        body = self._body | dict(more)
        start = time.perf_counter()
        try:
            answer = self._http.request("POST", self._url, json=body)
        except urllib3.exceptions.HTTPError as error:
            raise StageError(
                f"{self._url} gave no reply in {self._tries} tries: {getattr(error, 'reason', None) or error}.",
                "What was replied until now is kept; run the command again to resume.",
            ) from None
        if answer.status >= 400:
            detail = answer.data[:300].decode("utf-8", "replace")
            raise StageError(f"{self._url} refuses the question: {answer.status} {answer.reason}. {detail}".strip())
        try:
            return replace(read(answer.json()), seconds=time.perf_counter() - start)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise StageError(
                f"{self._url} does not reply in OpenAI's format ({type(error).__name__}: {error})."
            ) from None

    def ask_all(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> Iterator[tuple[int, Reply]]:
        """All are under way at once; `seconds` are of the clock, so that they add up. As `AuthorModel`; an error is
        raised after the replies that there are."""
        start, failure = time.perf_counter(), None
        with ThreadPoolExecutor(max(1, len(conversations))) as pool:
            asked = {
                pool.submit(self.ask, messages, seed): place
                for place, (messages, seed) in enumerate(zip(conversations, seeds, strict=True))
            }
            for done in as_completed(asked):
                now = time.perf_counter()
                try:
                    reply = done.result()
                except StageError as error:
                    failure = error
                    continue
                yield asked[done], replace(reply, seconds=now - start)
                start = now
        if failure is not None:
            raise failure


class LocalModel:
    """A checkpoint of this project, or an imported one, that replies by itself. Its tokenizer needs the chat tokens."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        name: str,
        *,
        sampling: Sampling | None = None,
        max_tokens: int = 8,
    ) -> None:
        self.name, self._model, self._tokenizer = name, model, tokenizer
        self._sampling, self._max_tokens = sampling or Sampling(), max_tokens

    @property
    def settings(self) -> dict[str, object]:
        return {"model": self.name, "tokenizer": self._tokenizer.digest}

    def ask(self, messages: Sequence[Message]) -> Reply:
        ((_, reply),) = self.ask_all([messages], [0])
        return reply

    def weigh(self, messages: Sequence[Message], words: tuple[str, str]) -> Reply:
        ids = chat.render(self._tokenizer, messages, open_assistant=True).ids
        with torch.inference_mode():
            tokens = torch.tensor([ids], device=self._model.head_weight.device)
            log_probs = self._model.logits(self._model.core(tokens)[:, -1]).float().log_softmax(-1)[0]
        written = {token: self._tokenizer.decode([token]) for token in self._tokens_of(words)}
        likeliest = [(text, float(log_probs[token])) for token, text in written.items()]
        return Reply("", len(ids), 1, probability=_share_of_first(likeliest, words))

    def _tokens_of(self, words: Sequence[str]) -> set[int]:
        """Those that are one of the words, alone or after a space. Raises `StageError` where a word has none."""
        tokens = set()
        for word in words:
            one = [ids[0] for text in (word, f" {word}") if len(ids := self._tokenizer.encode(text)) == 1]
            if not one:
                raise StageError(
                    f"{self.name} has no token for the verdict {word!r}.",
                    "Use feedback.verdict=letter, or another judge.",
                )
            tokens.update(one)
        return tokens

    def ask_all(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> Iterator[tuple[int, Reply]]:
        """All in one batch. As `AuthorModel`."""
        start = time.perf_counter()
        prompts = [chat.render(self._tokenizer, messages, open_assistant=True).ids for messages in conversations]
        completions = generate(
            self._model, prompts, tokenizer=self._tokenizer, sampling=self._sampling, max_tokens=self._max_tokens,
            seeds=seeds,
        )  # fmt: skip
        seconds = (time.perf_counter() - start) / max(1, len(prompts))
        for place, (prompt, one) in enumerate(zip(prompts, completions, strict=True)):
            cut = one.finish_reason in ("max_tokens", "context")
            yield place, Reply(one.text, len(prompt), len(one.tokens), cut, seconds)


def _share_of_first(likeliest: Sequence[tuple[str, float]], words: tuple[str, str]) -> float | None:
    """P(first) / (P(first) + P(second)) from (token, log-probability) each; None where neither is among them."""
    first, second = (
        math.fsum(math.exp(log_prob) for token, log_prob in likeliest if token.strip() == word) for word in words
    )
    return first / (first + second) if first + second > 0 else None


def _read_reply(raw: Any) -> Reply:
    usage, choice = raw.get("usage") or {}, raw["choices"][0]
    tokens = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
    return Reply(str(choice["message"]["content"] or ""), *tokens, cut=choice.get("finish_reason") == "length")
