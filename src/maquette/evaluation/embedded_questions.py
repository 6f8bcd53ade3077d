"""Questions with known truth, made from held-out documents of the project's own corpus: nothing is downloaded.

| task | question | why the truth is known |
|---|---|---|
| docstring | a function's signature: which first line of a docstring is its own? | it stood there |
| continuation | a held-out text: how does it go on? | the others continue other places |
| agreement | which of two sentences is right (the mouse ate the cheese; the keys ... are) | by how they are built |
| arithmetic | a sum, a difference, a product | it is computed |
"""

import ast
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from maquette.artifacts import StageError
from maquette.evaluation.question_files import COMPLETION
from maquette.evaluation.questions import Question, QuestionSet, sound

if TYPE_CHECKING:
    from maquette.corpus.document import Document


OPTIONS = 4

_CONTEXT, _ENDING = 160, 60  # characters of a text and of its continuation
_EATERS = (
    ("mouse", "cheese"), ("cat", "fish"), ("dog", "bone"), ("cow", "grass"), ("rabbit", "carrot"), ("bird", "seed"),
    ("child", "apple"), ("monkey", "banana"), ("farmer", "bread"), ("horse", "hay"), ("bear", "honey"), ("fox", "hen"),
    ("teacher", "sandwich"), ("worker", "soup"), ("user", "cake"),
)  # fmt: skip
_NOUNS = (
    ("file", "files"), ("value", "values"), ("key", "keys"), ("function", "functions"), ("argument", "arguments"),
    ("test", "tests"), ("server", "servers"), ("row", "rows"), ("column", "columns"), ("module", "modules"),
    ("option", "options"), ("number", "numbers"), ("class", "classes"), ("method", "methods"), ("error", "errors"),
)  # fmt: skip
_ENDINGS = ("missing", "empty", "used here", "unknown", "very large", "ready", "valid", "ignored")
_PLACES = ("in the list", "of the object", "near the end", "for each user", "in this table", "from the server")


def make_task(name: str, documents: Sequence["Document"], items: int, seed: int) -> QuestionSet:
    """One of the embedded tasks, of at most `items` questions. The same documents and seed give the same questions.

    Raises `StageError` where the documents hold too little for it.
    """
    numbers = random.Random(f"{name} {seed}")
    makers: Mapping[str, Callable[[Sequence[Document], random.Random], Iterator[Question]]] = {
        "docstring": _docstrings, "continuation": _continuations, "agreement": _agreement, "arithmetic": _arithmetic,
    }  # fmt: skip
    questions: list[Question] = []
    seen: set[object] = set()
    for question in makers[name](documents, numbers):
        asked = (question.context, *sorted(question.options))
        if question.id not in seen and asked not in seen:
            seen |= {question.id, asked}
            questions.append(question)
        if len(questions) == items:
            break
    if len(questions) < 8:
        raise StageError(
            f"The held-out documents hold {len(questions)} questions for the task {name}.",
            "Use a larger corpus, or leave the task out: suite.embedded=[agreement,arithmetic].",
        )
    return sound(name, questions, COMPLETION)


def _docstrings(documents: Sequence["Document"], numbers: random.Random) -> Iterator[Question]:
    """A signature from `<module>/code`, and the first lines of docstrings from `<module>/docs`."""
    lines: dict[str, str] = {}
    for document in documents:
        if document.id.endswith("/docs"):
            module = document.id.removesuffix("/docs")
            lines |= {f"{module}:{name}": line for name, line in _first_lines(document.text)}
    docstrings = []
    for document in documents:
        if document.id.endswith("/code"):
            module = document.id.removesuffix("/code")
            for name, signature in _signatures(document.text):
                if f"{module}:{name}" in lines:
                    docstrings.append((f"{module}:{name}", signature, lines[f"{module}:{name}"]))
    numbers.shuffle(docstrings)
    every = sorted({line for _, _, line in docstrings})
    for name, signature, line in docstrings:
        others = [other for other in numbers.sample(every, min(len(every), 3 * OPTIONS)) if other != line]
        if len(others) >= OPTIONS - 1:
            context = f'{signature}\n    """'
            yield _placed(f"docstring/{name}", context, line, others[: OPTIONS - 1], numbers)


def _first_lines(text: str) -> Iterator[tuple[str, str]]:
    for block in re.split(r"\n\n+", text):
        rows = block.split("\n")
        if len(rows) >= 2 and re.fullmatch(r"[A-Za-z_][\w.]*", rows[0]) and 20 <= len(rows[1].strip()) <= 72:
            yield rows[0], rows[1].strip()


def _signatures(code: str) -> Iterator[tuple[str, str]]:
    """Qualified name and `def` line of each function with arguments, of code that can be parsed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError):
            return
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, prefix = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                waiting.append((child, f"{prefix}{child.name}."))
            elif isinstance(child, ast.FunctionDef) and not child.name.startswith("__"):
                signature = f"def {child.name}({ast.unparse(child.args)}):"
                if len(signature) <= 100 and child.args.args:
                    yield f"{prefix}{child.name}", signature


def _continuations(documents: Sequence["Document"], numbers: random.Random) -> Iterator[Question]:
    """Texts cut between two words; the wrong endings begin at such a cut of other documents of the domain."""
    cuts: dict[str, list[tuple[str, str, str]]] = {}
    for document in documents:
        text = document.text
        for _ in range(min(6, len(text) // (2 * (_CONTEXT + _ENDING)))):
            start = numbers.randrange(len(text) - _CONTEXT - _ENDING)
            border = re.search(r"(?<=\S) (?=\S)", text[start + _CONTEXT // 2 : start + _CONTEXT])
            if border is None:
                continue
            cut = start + _CONTEXT // 2 + border.start()
            ending = text[cut : cut + _ENDING].rsplit(" ", 1)[0]
            if len(ending.strip()) >= 20:
                cuts.setdefault(document.domain, []).append((document.id, text[start:cut], ending))
    places = [(domain, place) for domain in sorted(cuts) for place in range(len(cuts[domain]))]
    numbers.shuffle(places)
    for domain, place in places:
        name, context, ending = cuts[domain][place]
        others = [
            e for n, _, e in numbers.sample(cuts[domain], min(len(cuts[domain]), 12)) if n != name and e != ending
        ]
        if len(set(others)) >= OPTIONS - 1:
            wrong = list(dict.fromkeys(others))[: OPTIONS - 1]
            yield _placed(f"continuation/{name}/{place}", context, ending, wrong, numbers)


def _agreement(documents: Sequence["Document"], numbers: random.Random) -> Iterator[Question]:
    """Pairs of sentences of the same words or nearly so: who eats whom, and a verb far from its subject."""
    for place in range(1, 100_001):
        if numbers.random() < 0.25:
            eater, food = numbers.choice(_EATERS)
            verb = numbers.choice(("ate", "eats", "will eat", "has eaten", "wants to eat", "likes to eat"))
            end = numbers.choice((".", " today.", " again.", " at noon.", " in the kitchen."))
            right, wrong = f"The {eater} {verb} the {food}{end}", f"The {food} {verb} the {eater}{end}"
        else:
            one, many = numbers.choice(_NOUNS)
            other = numbers.choice([pair for pair in _NOUNS if pair[0] != one])
            plural = numbers.random() < 0.5
            between = numbers.choice((f" {numbers.choice(_PLACES)}", f" of the {other[not plural]}", ""))
            verbs = numbers.choice((("is", "are"), ("was", "were"), ("has been", "have been")))
            end = numbers.choice(_ENDINGS)
            subject = f"The {many if plural else one}{between}"
            right, wrong = (f"{subject} {verbs[number]} {end}." for number in (plural, not plural))
        yield _placed(f"agreement/{place}", "", right, [wrong], numbers)


def _arithmetic(documents: Sequence["Document"], numbers: random.Random) -> Iterator[Question]:
    """Small numbers; wrong answers are near, or have the digits of the right one."""
    for place in range(100_000):
        kind = numbers.choice("+-*")
        first, second = (numbers.randrange(1, 13 if kind == "*" else 60) for _ in range(2))
        if kind == "-":
            first, second = max(first, second), min(first, second)
        right = {"+": first + second, "-": first - second, "*": first * second}[kind]
        near = [right + step for step in (-10, -2, -1, 1, 2, 10) if right + step >= 0]
        wrong = numbers.sample(near, OPTIONS - 1)
        yield _placed(
            f"arithmetic/{place}", f"{first} {kind} {second} =", f" {right}", [f" {w}" for w in wrong], numbers
        )


def _placed(name: str, context: str, right: str, wrong: Sequence[str], numbers: random.Random) -> Question:
    """The right answer among the wrong ones, each place as likely."""
    options = [*wrong]
    place = numbers.randrange(len(options) + 1)
    options.insert(place, right)
    return Question(name, context, tuple(options), place)
