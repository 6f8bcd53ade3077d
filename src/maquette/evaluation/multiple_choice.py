"""Multiple choice, asked in every way that papers ask: the same model gets another score for each.

| protocol | the answer is the option with the greatest |
|---|---|
| likelihood | log P(option given question) |
| per_byte, per_token | the same over its bytes (lm-evaluation-harness: acc_norm), its tokens |
| unconditional | log P(option given question) - log P(option) (Brown et al. 2020, section 2.4) |
| letter | log P(its letter), the options being listed |
| constrained | letter that greedy decoding writes, if it may write nothing but a letter in one of the usual spellings |
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.evaluation.config import CONTENT_PROTOCOLS, LETTER_PROTOCOLS, TemplateConfig
from maquette.evaluation.questions import (
    LETTERS,
    Pair,
    Question,
    choose_shots,
    content_prompt,
    filled,
    letter_prompt,
    option_orders,
    split,
)
from maquette.model.scoring import Continuation, score_continuations

if TYPE_CHECKING:
    from maquette.model import LanguageModel
    from maquette.text import Tokenizer


Result = dict[str, Any]
"""What a model makes of one question: `content` (`log_probs`, `tokens`, `unconditional` of each option) and `letters`
(of each order of the options: `order`, `log_probs` of each option's letter, `written` option). None where a prompt is
longer than the model's context."""

_SPELLINGS = ("{letter}", " {letter}", "\n{letter}", " ({letter}")


def ask(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    questions: Sequence[Question],
    template: TemplateConfig,
    *,
    pool: Sequence[Question],
    shots: int = 0,
    orders: int = 1,
    protocols: Sequence[str] = (*CONTENT_PROTOCOLS, *LETTER_PROTOCOLS),
    seed: int = 0,
    batch_size_tokens: int = 8192,
) -> list[Result]:
    """Asks each question once, by all `protocols`; `shots` examples come from `pool`."""
    plans = [
        _plan(question, template, choose_shots(pool, question, shots, seed), orders, protocols)
        for question in questions
    ]
    texts = list(dict.fromkeys(text for plan in plans for text in plan.texts()))
    pairs = dict(zip(texts, split(tokenizer, texts), strict=True))
    longest = model.config.max_position_embeddings + 1
    fitting = [text for text in texts if len(pairs[text][0]) + len(pairs[text][1]) <= longest]
    scores = score_continuations(model, [pairs[text] for text in fitting], batch_size_tokens=batch_size_tokens)
    scored = dict(zip(fitting, scores, strict=True))
    return [plan.result(scored, pairs) for plan in plans]


Text = tuple[str, str]


class _Asked:
    """The texts of one question, and its result from their scores."""

    def __init__(self) -> None:
        self.content: list[Text] = []
        self.alone: list[Text] = []
        self.letters: list[tuple[list[int], list[Text], list[list[Text]]]] = []

    def texts(self) -> list[Text]:
        return [*self.content, *self.alone, *self.letter_texts()]

    def letter_texts(self) -> list[Text]:
        return [text for _, plain, spellings in self.letters for texts in (plain, *spellings) for text in texts]

    def result(self, scored: Mapping[Text, Continuation], pairs: Mapping[Text, Pair]) -> Result:
        content: Result | None = None
        if self.content and all(text in scored for text in (*self.content, *self.alone)):
            content = {
                "log_probs": [scored[text].log_prob for text in self.content],
                "tokens": [len(pairs[text][1]) for text in self.content],
                "unconditional": [scored[text].log_prob for text in self.alone],
            }
        letters = None
        if self.letters and all(text in scored for text in self.letter_texts()):
            letters = [
                {
                    "order": order,
                    "log_probs": [scored[plain[order.index(option)]].log_prob for option in range(len(order))],
                    "written": order[_written(spellings, scored, pairs)] if spellings else None,
                }
                for order, plain, spellings in self.letters
            ]
        return {"content": content, "letters": letters}


def _plan(
    question: Question, template: TemplateConfig, shots: Sequence[Question], orders: int, protocols: Sequence[str]
) -> _Asked:
    plan = _Asked()
    if set(protocols) & set(CONTENT_PROTOCOLS):
        prompt = content_prompt(template, question, shots)
        answers = [filled(template.answer, option=option) for option in question.options]
        plan.content = [(prompt, answer) for answer in answers]
        plan.alone = [(template.unconditional, answer) for answer in answers]
    if set(protocols) & set(LETTER_PROTOCOLS):
        for order in option_orders(len(question.options), orders):
            prompt = letter_prompt(template, question, order, shots)
            letters = LETTERS[: len(order)]
            plain = [(prompt, filled(template.letter, letter=letter)) for letter in letters]
            spellings = dict.fromkeys((template.letter, *_SPELLINGS))
            spelled = [[(prompt, filled(one, letter=letter)) for one in spellings] for letter in letters]
            plan.letters.append((order, plain, spelled if "constrained" in protocols else []))
    return plan


def _written(spellings: list[list[Text]], scored: Mapping[Text, Continuation], pairs: Mapping[Text, Pair]) -> int:
    """The place whose letter greedy decoding writes: at each step the likeliest token that continues a spelling."""
    left = [(place, pairs[text], scored[text].log_probs) for place, texts in enumerate(spellings) for text in texts]
    # A spelling may take in the prompt's last token; from where they part, spellings are compared by what they share.
    for step in range(max(len(tokens[1]) for _, tokens, _ in left)):
        going = [(place, tokens, values) for place, tokens, values in left if len(tokens[1]) > step]
        if not going:
            break
        _, tokens, _ = max(going, key=lambda row: row[2][step])
        chosen = tokens[1][step]
        left = [row for row in going if row[1][0] == tokens[0] and row[1][1][step] == chosen]
        if len({row[0] for row in left}) == 1:
            break
    return left[0][0]


def predictions(result: Result, question: Question) -> dict[str, list[int] | None]:
    """The option that each protocol takes: a place for each order asked, None where the prompt did not fit."""
    chosen: dict[str, list[int] | None] = dict.fromkeys((*CONTENT_PROTOCOLS, *LETTER_PROTOCOLS))
    if (content := result["content"]) is not None:
        log_probs = np.array(content["log_probs"])
        bytes_ = np.array([max(1, len(option.encode("utf-8", "surrogatepass"))) for option in question.options])
        values = {
            "likelihood": log_probs,
            "per_byte": log_probs / bytes_,
            "per_token": log_probs / np.array(content["tokens"]),
            "unconditional": log_probs - np.array(content["unconditional"]),
        }
        chosen |= {name: [int(scores.argmax())] for name, scores in values.items()}
    if (letters := result["letters"]) is not None:
        chosen["letter"] = [int(np.argmax(row["log_probs"])) for row in letters]
        if all(row["written"] is not None for row in letters):
            chosen["constrained"] = [int(row["written"]) for row in letters]
    for name, mark in (result.get("marks") or {}).items():  # of an answer in the model's own words
        chosen[name] = None if mark is None else [question.answer if mark else -1]
    return chosen
