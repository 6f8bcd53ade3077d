"""Questions that are answered in the model's own words: it writes, and what it wrote is marked.

| mark | an answer is right where |
|---|---|
| exact_match | what was extracted from it is one of the accepted answers, after the normalisation of SQuAD |
| judged | a judge holds it to be at least as good as the first accepted answer (`suite.judge`) |

Extraction: the last match of a regular expression (`suite.answer_pattern`), its first group where it has one; without
one the whole text. Normalisation (Rajpurkar et al. 2016, "SQuAD"): small letters, without punctuation, the articles a,
an and the, and surplus spaces; a number without the commas between its thousands.

In a `Question` of this kind `options` are the answers that are accepted.
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maquette.evaluation.config import SuiteConfig, TemplateConfig
from maquette.evaluation.multiple_choice import Result, ask
from maquette.evaluation.questions import Question, choose_shots, content_prompt
from maquette.feedback.comparison import Annotator, Comparison
from maquette.model.generation import document_prompt, generate

if TYPE_CHECKING:
    from maquette.model import LanguageModel
    from maquette.text import Tokenizer

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_PUNCTUATION = str.maketrans("", "", string.punctuation.replace(".", "").replace("-", ""))


def normalized(answer: str) -> str:
    """An answer as it is compared: points and signs within a number stay."""
    text = _THOUSANDS.sub("", answer.lower()).translate(_PUNCTUATION)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|-(?!\d)|(?<=\w)-", " ", text)
    return " ".join(_ARTICLES.sub(" ", text).split())


def extracted(written: str, pattern: str | None) -> str:
    """The answer in what was written; empty where the pattern matches nowhere."""
    if pattern is None:
        return written
    matches = list(re.finditer(pattern, written))
    if not matches:
        return ""
    last = matches[-1]
    return (last.group(1) if last.re.groups else last.group()) or ""


def is_match(written: str, question: Question, pattern: str | None) -> bool:
    """Whether what was extracted is one of the accepted answers."""
    given = normalized(extracted(written, pattern))
    return bool(given) and given in {normalized(answer) for answer in question.options}


def ask_freely(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    questions: Sequence[Question],
    template: TemplateConfig,
    *,
    pool: Sequence[Question],
    suite: SuiteConfig,
    judge: Annotator | None = None,
    shots: int = 0,
    seed: int = 0,
    batch_size_tokens: int = 8192,
) -> list[Result]:
    """What the model writes to each question, greedily, and its marks, None where the prompt leaves no room in the
    context; and the likelihood of the accepted answers."""
    common = {"pool": pool, "shots": shots, "seed": seed, "batch_size_tokens": batch_size_tokens}
    results = ask(model, tokenizer, questions, template, protocols=("likelihood",), **common)  # type: ignore[arg-type]
    prompts = [
        document_prompt(tokenizer, content_prompt(template, one, choose_shots(pool, one, shots, seed)))
        for one in questions
    ]
    longest = model.config.max_position_embeddings - suite.answer_tokens
    asked = [place for place, prompt in enumerate(prompts) if 0 < len(prompt) <= longest]
    written: dict[int, str] = {}
    if asked:
        rows = generate(
            model, [prompts[place] for place in asked], tokenizer=tokenizer, max_tokens=suite.answer_tokens,
            stop=suite.answer_stop,
        )  # fmt: skip
        written = {place: row.text for place, row in zip(asked, rows, strict=True)}
    judged = _judged(judge, {place: questions[place] for place in asked}, written) if judge is not None else {}
    for place, result in enumerate(results):
        text = written.get(place)
        result["written"] = text
        result["marks"] = None
        if text is not None:
            result["marks"] = {"exact_match": is_match(text, questions[place], suite.answer_pattern)}
            if judge is not None:
                result["marks"]["judged"] = judged.get(place)
    return results


def _judged(judge: Annotator, questions: Mapping[int, Question], written: Mapping[int, str]) -> dict[int, bool]:
    """Whether each answer is at least as good as the first accepted one; of those that the judge did not fail on."""
    places = list(questions)
    pairs = [
        Comparison(({"role": "user", "content": one.context},), written[place].strip(), one.options[0].strip())
        for place, one in questions.items()
    ]
    preferences: list[Any] = [judgement.preference for judgement in judge.judge(pairs)]
    return {place: value >= 0.5 for place, value in zip(places, preferences, strict=True) if value is not None}
