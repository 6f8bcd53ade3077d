"""The chat page, put together from the files of `browser/`, and what it shows of the next token.

One document with one style and one script, so that the policy in the headers can name both by their digests and a
browser asks for nothing else. The scripts share one scope, in the order of `SCRIPTS`.
"""

import dataclasses
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

from maquette.model.next_token import Branch, beam_tree
from maquette.serving.served import Request, ServedModel
from maquette.text.measure import visible

SCRIPTS = ("common.js", "markdown.js", "conversations.js", "tokens.js", "chat.js", "arena.js", "start.js")


def page_text() -> str:
    """The page as it is served."""
    folder = resources.files("maquette.serving").joinpath("browser")

    def text(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    script = "\n".join(text(name) for name in SCRIPTS)
    page = text("page.html").replace("<style></style>", f"<style>\n{text('style.css')}</style>")
    return page.replace("<script></script>", f'<script>\n"use strict";\n{script}</script>')


def prediction_body(model: ServedModel, request: Request, place: int | None, beams: int = 0) -> dict[str, Any]:
    """What `model` makes of a text: each token's surprise and the entropy of the prediction before it, in bits, the
    prediction behind the first `place` tokens with what the request's sampling leaves of it, and the likeliest
    continuations there as a tree."""
    ids, reading, prediction = model.predictions(request, place)
    place = len(ids) if place is None else place
    special = set(model.tokenizer.special_ids.values())

    def token(id: int) -> dict[str, Any]:
        data = model.tokenizer.token_bytes(id)
        return {"id": id, "text": data.decode("utf-8", "replace"), "shown": visible(data), "special": id in special}

    def tree(branches: Sequence[Branch]) -> list[dict[str, Any]]:
        return [
            {
                "ids": list(one.tokens), "shown": "".join(token(id)["shown"] for id in one.tokens),
                "probability": math.exp(math.fsum(one.log_probs)), "best": one.best,
                "whole": None if one.whole is None else math.exp(one.whole), "branches": tree(one.branches),
            }
            for one in branches
        ]  # fmt: skip

    unknown = (None, *reading.surprises), (None, *reading.entropies)
    return {
        "tokens": [
            token(id) | {"surprise": surprise, "entropy": entropy}
            for id, surprise, entropy in zip(ids, unknown[0], unknown[1], strict=False)
        ],
        "place": place,
        "before": model.tokenizer.decode(ids[:place], skip_special=True),
        "entropy": prediction.entropy,
        "candidates": [
            token(one.token) | {"probability": one.probability, "drawn": one.drawn} for one in prediction.candidates
        ],
        "others": prediction.others,
        "truncations": [dataclasses.asdict(one) for one in prediction.truncations],
        "tree": tree(beam_tree(model.continuations(ids[:place], beams))) if beams else [],
    }
