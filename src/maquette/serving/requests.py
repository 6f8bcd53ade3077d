"""What the endpoint may be asked: the bodies of requests, checked, and what they ask of a model.

A parameter that would change the answer and isn't supported is refused by name; one that asks for nothing, or is about
who asks, is let through. `top_k`, `min_p` and `repetition_penalty` are understood as vLLM does.
"""

import secrets
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from maquette.artifacts import StageError
from maquette.data.row_messages import check_keys
from maquette.model.sampling import Sampling
from maquette.serving.served import Request
from maquette.text.chat import Message

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

    def request(self, defaults: Sampling, **what: Any) -> Request:
        """The work that is asked for: `messages` or `text`, sampled as the body says, else by `defaults`.

        Raises `BadRequestError` as `check`."""
        self.check()
        given = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        sampling = {name: getattr(defaults, name) if value is None else value for name, value in given.items()}
        return Request(
            **what, sampling=Sampling(**sampling, repetition_penalty=self.repetition_penalty),
            max_tokens=self.max_completion_tokens or self.max_tokens, stop=tuple(self.stops),
            seed=secrets.randbits(31) if self.seed is None else self.seed, count=self.n, top=self.top,
        )  # fmt: skip

    def check(self) -> None:
        """Raises `BadRequestError` for a parameter that is not supported, or out of the API's range."""
        for name, value in (self.model_extra or {}).items():
            if name in _OF_THE_CALLER or value is None or value in _NEUTRAL.get(name, ()):
                continue
            known = "is not supported" if name in _NEUTRAL else "is not known"
            raise BadRequestError(f"The parameter {name[:80]!r} {known} here.", name[:80], "unsupported_parameter")
        if len(self.stops) > _MOST_STOPS:
            raise BadRequestError(f"stop has {len(self.stops):,} strings: at most {_MOST_STOPS}.", "stop")
        if not 0 <= self.top <= _MOST_TOP:
            raise BadRequestError(f"top_logprobs={self.top} is out of range: 0 to {_MOST_TOP}.", "top_logprobs")
        if self.top_logprobs is not None and not self.logprobs:
            raise BadRequestError("top_logprobs needs logprobs=true.", "top_logprobs")

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_log_probs(self) -> bool:
        return self.logprobs is not None and self.logprobs is not False

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

    prompt: str | list[str] | list[int] = ""


class NextTokenBody(Options):
    """Of `/api/next`: a text, a conversation whose next turn is the model's, or tokens; `place`: how many of the tokens
    stand before the prediction that is shown, all by default; `beams`: of the search for likely continuations, 0: none.
    """

    text: str | None = None
    messages: list[dict[str, Any]] = Field(default_factory=list)
    ids: list[int] | None = None
    place: int | None = None
    beams: int = Field(default=0, ge=0, le=8)


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


class CorrectionBody(BaseModel):
    """Of `/corrections`: the conversation before an answer, the answer as it should have been, and as it was."""

    messages: list[dict[str, Any]]
    answer: str
    original: str
    model: str
    name: str = "a person"


class NotServedError(Exception):
    """A model that is not there."""


def read_messages(given: list[dict[str, Any]]) -> list[Message]:
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
