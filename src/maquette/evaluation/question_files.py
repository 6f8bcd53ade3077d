"""Question files of others, from disk, as they are published, in JSONL, CSV or Parquet.

The format is known by the columns, in capitals or not:

| kind | columns |
|---|---|
| this project's own | `context`, `options`, `answer` |
| MMLU | `question`, `choices`, `answer` (place or letter); or its CSV without a head: question, A, B, C, D, letter |
| MMMLU, exams | `question` or `prompt`, `A`, `B`, ..., `answer` |
| MMLU-Pro | `question`, `options`, `answer`, `answer_index` |
| ARC | `question`, `choices` with `text` and `label`, `answerKey`; or `question` with `stem` and `choices` |
| OpenBookQA | `question_stem`, `choices` with `text` and `label`, `answerKey` |
| HellaSwag | `ctx` (or `ctx_a`, `ctx_b`), `endings`, `label` |
| WinoGrande | `sentence` with a gap `_`, `option1`, `option2`, `answer`; the options go on to the sentence's end |
| PIQA | `goal`, `sol1`, `sol2`, `label` |
| SciQ | `question`, `correct_answer`, `distractor1` to `distractor3`, `support` |
| BoolQ | `question`, `passage`, `answer` (true or false), or SuperGLUE's `label` |
| TruthfulQA, one right answer | `question`, `mc1_targets` with `choices` and `labels` |
| in one's own words | `question` and `answer`: a text, a list, TriviaQA's `value` and `aliases`, GSM8K's with `####` |
| the same, of a text | `context`, `answers`; SQuAD's `context`, `question`, `answers` |
| samples of lm-evaluation-harness | `doc`, `arguments`, `target` |

What is not certain is refused, and shown as it was understood: columns of no known format, a column of which a question
would need to know (an image), an answer that may be a place or an option's text. Answers count from 1 where
none in the file is 0 and one is the number of its options.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.progress import say
from maquette.artifacts.reading import short
from maquette.corpus.sources.row_files import read_rows, row_files
from maquette.data.row_messages import check_keys
from maquette.evaluation.questions import FREE, LETTERS, Question, QuestionSet, answer_place, sound

COMPLETION, QUESTION = "completion", "question"
"""The names of the two templates: options that continue a text, and answers to a question."""

Row = Mapping[Any, Any]

_UNASKED = frozenset(
    {"clarity", "cot_content", "explanation", "fact1", "human accuracy", "humanscore", "question_concept", "rationale",
     "split", "split_type", "turkidanonymized"}
)  # fmt: skip
"""Columns of published files that no question needs."""


@dataclasses.dataclass(frozen=True)
class Format:
    """Questions of one kind of file: how a row is read, the template they are asked with, the `columns` that are used,
    and which of them has an `answer` that may be a place."""

    read: Callable[[Row, int], Question]
    template: str
    columns: frozenset[str]
    answer: str | None = "answer"


def read_task(name: str, path: Path | str) -> QuestionSet:
    """The questions of a file.

    Raises `StageError` that names the file and row: a format that is not known, a row that can't be read, an id that
    comes twice. Questions without a right answer or with an empty option are skipped and counted.
    """
    files = row_files(path, "questions")
    rows = [(place, _by_name(row, place)) for place, row in read_rows(files, "questions", _is_head)]
    if not rows:
        raise StageError(f"{path} has no rows.", "Give a file with one question a row.")
    known = _format(rows[0][1], rows[0][0])
    questions = []
    for number, (place, row) in enumerate(rows):
        if 0 not in row:
            check_keys(row, known.columns | _UNASKED, place, "a question")
        try:
            questions.append(known.read(row, number))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise StageError(
                f"{place}: can't be read ({type(error).__name__}: {short(error)}). It is {_shown(row)}.",
                "Mend or remove it.",
            ) from None
    if known.answer is not None:
        questions = _from_zero(questions, [row.get(known.answer) for _, row in rows], path)
    return dataclasses.replace(sound(f"{name} ({path})", questions, known.template), name=name)


def _is_head(cells: Sequence[str]) -> bool:
    """Whether the first line of a CSV file names its columns. Only MMLU's has no head: each line ends in the letter of
    one of its options."""
    if len(cells) < 4 or len(cells[-1]) != 1 or cells[-1] not in LETTERS[: len(cells) - 2]:
        return True
    letters = "".join(cell for cell in cells if len(cell) == 1 and cell in LETTERS)
    named = {"question", "prompt", "context", "answer", "subject", "id"} & {cell.lower() for cell in cells}
    return bool(named) or (len(letters) > 1 and LETTERS.startswith(letters))


def _by_name(row: Row, place: str) -> Row:
    """The row with its columns in small letters, those of options in capitals."""
    if 0 in row:
        return row
    names = {}
    for key, value in row.items():
        name = key.strip().lower() if len(key.strip()) != 1 else key.strip().upper()
        if name in names:
            raise StageError(f"{place} has two columns {short(name, 60)}.", "Rename or remove one of them.")
        names[name] = value
    return names


def _format(row: Row, place: str) -> Format:
    """How rows like this one are read."""
    if 0 in row:
        return Format(_headless_mmlu, QUESTION, frozenset())
    for needed, known in _FORMATS:
        if needed <= row.keys():
            return known
    letters = [letter for letter in LETTERS if letter in row]
    for asked in ("question", "prompt"):
        if {asked, "answer", "A", "B"} <= row.keys() and letters == list(LETTERS[: len(letters)]):
            return Format(_mmlu, QUESTION, frozenset({asked, "answer", *letters}))
    for answer in ("answer", "label"):
        if {"question", "passage", answer} <= row.keys():
            return Format(_boolq, COMPLETION, frozenset({"question", "passage", "title", "idx", answer}), None)
    for needed, columns in _FREE_COLUMNS:
        if needed <= row.keys() and not letters:
            return Format(_free, FREE, columns, None)
    raise StageError(
        f"{place}: the columns {short(', '.join(map(str, row)))} are those of no format that is known. "
        f"The row is {_shown(row)}.",
        "MMLU: question, choices (or A, B, ...), answer. ARC: question, choices, answerKey. OpenBookQA: question_stem, "
        "choices, answerKey. HellaSwag: ctx, endings, label. WinoGrande: sentence, option1, option2, answer. PIQA: "
        "goal, sol1, sol2, label. SciQ: question, correct_answer, distractor1. BoolQ: question, passage, answer. "
        "TruthfulQA: question, mc1_targets. lm-eval's samples: doc, arguments, target. Own: context, options, answer.",
    )


def _shown(row: Row) -> str:
    return short(", ".join(f"{key}: {short(value, 60)}" for key, value in row.items()), 400)


def _from_zero(questions: list[Question], answers: Sequence[Any], path: Path | str) -> list[Question]:
    """The questions with answers that count from 0. Raises `StageError` where what a number means is not certain."""
    numbers = {
        place: number
        for place, answer in enumerate(answers)
        if str(answer).strip()[:1].isdigit() and (number := answer_place(answer)) >= 0
    }
    sizes = {place: len(questions[place].options) for place in numbers}
    texts = [
        isinstance(answers[place], str) and answers[place].strip() in {one.strip() for one in questions[place].options}
        for place in numbers
    ]
    if texts and all(texts):
        raise StageError(
            f"{path}: answer {answers[next(iter(numbers))]} may be an option's place or its text.",
            "Write the letter of the right option.",
        )
    if 0 in numbers.values() or not any(numbers[place] == sizes[place] for place in numbers):
        return questions
    if wrong := [place for place in numbers if numbers[place] > sizes[place]]:
        raise StageError(
            f"{path}, row {wrong[0] + 1}: answer {answers[wrong[0]]} of {sizes[wrong[0]]} options.",
            "Mend or remove it.",
        )
    say(f"{path}: the answers count from 1: none is 0, and one is the number of options.")
    return [
        dataclasses.replace(one, answer=numbers[place] - 1) if place in numbers else one
        for place, one in enumerate(questions)
    ]


# One reader for each format -------------------------------------------------------------------------------------------


def _own(row: Row, place: int) -> Question:
    options = tuple(str(option) for option in _listed(row["options"]))
    return Question(
        str(row.get("id", place)), str(row["context"]), options, answer_place(row["answer"]),
        str(row.get("subject", "")),
    )  # fmt: skip


def _listed(value: Any) -> list[Any]:
    """A CSV cell holds a list as JSON."""
    value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise ValueError(f"options must be a list, got {short(repr(value), 60)}")
    return value


def _headless_mmlu(row: Mapping[int, str], place: int) -> Question:
    if len(row) < 4:
        raise ValueError("without a head the columns are the question, its options and the letter of the right one")
    question, *choices, answer = row.values()
    return _mmlu({"question": question, "choices": choices, "answer": answer}, place)


def _mmlu(row: Row, place: int) -> Question:
    listed = row.get("choices", row.get("options"))
    choices = [row[letter] for letter in LETTERS if letter in row] if listed is None else _listed(listed)
    answer, index = answer_place(row["answer"]), row.get("answer_index")
    if index is not None and answer_place(index) != answer:
        raise ValueError(f"answer {row['answer']} is not the option of answer_index {index}")
    return Question(
        str(row.get("id", place)), str(row.get("question", row.get("prompt"))).strip(),
        tuple(str(choice).strip() for choice in choices), answer, str(row.get("subject", "")),
    )  # fmt: skip


def _arc(row: Row, place: int) -> Question:
    question, choices = row["question"], row.get("choices")
    choices = json.loads(choices) if isinstance(choices, str) else choices
    if isinstance(question, Mapping):
        question, choices = question["stem"], question["choices"]
    if isinstance(choices, Mapping):
        texts, labels = list(choices["text"]), [str(label) for label in choices["label"]]
    else:
        texts, labels = [choice["text"] for choice in choices or ()], [str(c["label"]) for c in choices or ()]
    key = str(row["answerkey"]).strip()
    answer = labels.index(key) if key in labels else -1
    return Question(str(row.get("id", place)), str(question).strip(), tuple(str(t).strip() for t in texts), answer)


def _openbookqa(row: Row, place: int) -> Question:
    """The stem is the beginning of a sentence that the options end."""
    asked = _arc({**row, "question": row["question_stem"]}, place)
    return dataclasses.replace(asked, options=_continuing(asked.options))


def _continuing(options: Sequence[Any]) -> tuple[str, ...]:
    return tuple(" " + str(option).strip() if str(option).strip() else "" for option in options)


def _hellaswag(row: Row, place: int) -> Question:
    context = row["ctx"] if "ctx" in row else f"{row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    activity = str(row.get("activity_label") or "")
    prompt = f"{activity}: {context}" if activity else str(context)
    # ActivityNet's and WikiHow's rows are numbered apart: only with its source is a row's number its own.
    source, number = row.get("source_id"), str(row.get("ind", row.get("id", place)))
    return Question(
        f"{source}/{number}" if source else number, prompt.strip(), _continuing(_listed(row["endings"])),
        answer_place(row["label"]),
    )  # fmt: skip


def _winogrande(row: Row, place: int) -> Question:
    before, gap, after = str(row["sentence"]).partition("_")
    if not gap:
        raise ValueError("the sentence has no gap _")
    answer = str(row["answer"]).strip()
    if answer not in ("1", "2", ""):
        raise ValueError(f"answer must be 1 or 2, got {short(answer, 60)}")
    options = [str(row[name]).strip() + after for name in ("option1", "option2")]
    return Question(
        str(row.get("qid") or place), before.strip(), _continuing(options) if before.strip() else tuple(options),
        int(answer or 0) - 1,
    )  # fmt: skip


def _piqa(row: Row, place: int) -> Question:
    options = tuple(str(row[name]).strip() for name in ("sol1", "sol2"))
    return Question(str(row.get("id", place)), str(row["goal"]).strip(), options, answer_place(row["label"]))


def _sciq(row: Row, place: int) -> Question:
    distractors = [row[name] for name in sorted(row) if str(name).startswith("distractor") and row[name]]
    prompt = f"Question: {str(row['question']).strip()}\nAnswer:"
    support = str(row.get("support") or "").strip()
    return _sorted(row, place, f"{support}\n{prompt}" if support else prompt, row["correct_answer"], distractors)


def _sorted(row: Row, place: int, prompt: str, right: Any, wrong: Sequence[Any]) -> Question:
    """A question of a file in which the right option has the same place in every row: here they stand in the order of
    the alphabet, as their place would tell."""
    options = sorted(str(option).strip() for option in (right, *wrong))
    return Question(str(row.get("id", place)), prompt, _continuing(options), options.index(str(right).strip()))


def _boolq(row: Row, place: int) -> Question:
    answer = str(row.get("answer", row.get("label"))).strip().lower().removesuffix(".0")
    if answer not in (values := {"false": 0, "no": 0, "0": 0, "true": 1, "yes": 1, "1": 1, "-1": -1}):
        raise ValueError(f"the answer must be true or false, got {short(answer, 60)}")
    prompt = f"{str(row['passage']).strip()}\nQuestion: {str(row['question']).strip().rstrip('?')}?\nAnswer:"
    return Question(str(row.get("idx", row.get("id", place))), prompt, (" no", " yes"), values[answer])


def _truthfulqa(row: Row, place: int) -> Question:
    targets = row["mc1_targets"]
    targets = json.loads(targets) if isinstance(targets, str) else targets
    choices, labels = list(targets["choices"]), [int(label) for label in targets["labels"]]
    if len(choices) != len(labels) or sorted(labels) != [0] * (len(labels) - 1) + [1]:
        raise ValueError("mc1_targets must have a label for each choice, one of them 1 and the others 0")
    right = choices.pop(labels.index(1))
    return _sorted(row, place, f"Question: {str(row['question']).strip()}\nAnswer:", right, choices)


def _harness(row: Row, place: int) -> Question:
    """The continuations of one context whose likelihoods were asked for; `target` is one of them, or its place."""
    given = row["arguments"]
    pairs = [list(one.values()) for one in given.values()] if isinstance(given, Mapping) else given
    contexts = {pair[0] for pair in pairs}
    if len(contexts) != 1 or not all(isinstance(pair[1], str) for pair in pairs):
        raise ValueError("its arguments are not the continuations of one context")
    options, target = tuple(pair[1] for pair in pairs), row["target"]
    texts = [option.strip() for option in options]
    answer = texts.index(str(target).strip()) if str(target).strip() in texts else answer_place(target)
    return Question(str(row.get("doc_id", place)), str(contexts.pop()), options, answer)


_FREE_COLUMNS = (
    (frozenset({"context", "answers"}), frozenset({"context", "question", "title", "answers"})),
    (frozenset({"question", "answers"}), frozenset({"question", "answers"})),
    (frozenset({"question", "answer"}), frozenset({"question", "answer", "subject"})),
)


def _free(row: Row, place: int) -> Question:
    """A question whose answer is written: the answers that are accepted, as the options."""
    given = row["answers"] if "answers" in row else row["answer"]
    if isinstance(given, str) and given.lstrip().startswith(("[", "{")):
        given = json.loads(given)
    if isinstance(given, Mapping):  # TriviaQA, SQuAD
        listed = given.get("text", [given.get("value"), *(given.get("aliases") or ())])
        given = [listed] if isinstance(listed, str) else listed
    answers = [str(one).rpartition("####")[2].strip() for one in (given if isinstance(given, list) else [given])]
    if any(len(one) == 1 and one in LETTERS for one in answers):
        raise ValueError("an answer of one letter is a place among options, and there are none")
    parts = [str(row[name]).strip() for name in ("context", "question") if row.get(name)]
    accepted = tuple(dict.fromkeys(one for one in answers if one and one != "None"))
    return Question(str(row.get("id", place)), "\n".join(parts), accepted, 0, str(row.get("subject", "")))


_HELLASWAG = Format(
    _hellaswag, COMPLETION, frozenset({"activity_label", "ctx", "ctx_a", "ctx_b", "endings", "label"}), "label"
)
_SAMPLES = frozenset(
    {"doc", "arguments", "target", "resps", "filtered_resps", "filter", "metrics", "acc", "acc_norm", "acc_bytes",
     "acc_mutual_info", "exact_match", "brier_score", "doc_hash", "prompt_hash", "target_hash"}
)  # fmt: skip

_FORMATS: tuple[tuple[frozenset[str], Format], ...] = (
    (frozenset({"doc", "arguments", "target"}), Format(_harness, COMPLETION, _SAMPLES, None)),
    (frozenset({"context", "options", "answer"}),
     Format(_own, COMPLETION, frozenset({"context", "options", "answer"}))),
    (frozenset({"endings", "ctx"}), _HELLASWAG),
    (frozenset({"endings", "ctx_a"}), _HELLASWAG),
    (frozenset({"sentence", "option1", "option2", "answer"}),
     Format(_winogrande, COMPLETION, frozenset({"sentence", "option1", "option2", "answer"}), None)),
    (frozenset({"question_stem", "choices", "answerkey"}),
     Format(_openbookqa, COMPLETION, frozenset({"question_stem", "choices", "answerkey"}), None)),
    (frozenset({"goal", "sol1", "sol2", "label"}),
     Format(_piqa, QUESTION, frozenset({"goal", "sol1", "sol2", "label"}), None)),
    (frozenset({"question", "correct_answer", "distractor1"}),
     Format(_sciq, COMPLETION, frozenset({"question", "correct_answer", "support", *(f"distractor{n}" for n in "123")}),
            None)),
    (frozenset({"question", "mc1_targets"}),
     Format(_truthfulqa, COMPLETION, frozenset({"question", "mc1_targets", "mc2_targets"}), None)),
    (frozenset({"question", "answerkey"}),
     Format(_arc, QUESTION, frozenset({"question", "choices", "answerkey"}), None)),
    (frozenset({"question", "choices", "answer"}),
     Format(_mmlu, QUESTION, frozenset({"question", "answer", "subject", "choices"}))),
    (frozenset({"question", "options", "answer"}),
     Format(_mmlu, QUESTION, frozenset({"question", "options", "answer", "answer_index"}))),
)  # fmt: skip
