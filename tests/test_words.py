"""The words are the field's: what was once called otherwise here is not called so again.

`PHRASES` are patterns in the text of any file, `NAMES` names of values, functions and classes in Python; each with what
to write instead and, where a word has an honest meaning elsewhere, with the paths where it has none. A space in a
pattern stands for any white space, so that a phrase is seen across lines.
"""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from maquette.artifacts import renamed

ROOT = Path(__file__).parents[1]
PLACES = (
    "src", "conf", "notebooks", "docs", "examples", "experiments", "benchmarks", "tests", ".ci", ".github",
    "README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "mkdocs.yml", "Dockerfile",
)  # fmt: skip
KINDS = {".py", ".pyi", ".yaml", ".yml", ".md", ".ipynb", ".j2", ".html", ".js", ".css", ".toml", ".txt", ".sh", ""}
LISTS = {"docs/renamed.md", "docs/moved.md", "tests/test_words.py"}
"""What lists the old words on purpose."""

ANYWHERE = ""
POST_TRAINING = r"(src/maquette|tests)/(objectives|feedback|training|recipe)/|conf/(objective|feedback)/"
PRETRAINING = r"src/maquette/(optimization|objectives|recipe|training|model)/"
BUDGETS = r"(src/maquette|tests)/(cli|scaling|training|recipe|optimization)/|conf/|docs/|README"
CURATION = r"(src/maquette|tests)/corpus/|conf/curation/"
COMMANDS = r"(src/maquette|tests)/cli/|src/hydra_plugins/|tests/test_"

PHRASES: list[tuple[str, str, str]] = [
    (r"\bunwanted\b|\bwanted (answer|completion|response)s?\b|one of them wanted", "chosen / rejected", ANYWHERE),
    (
        r"\b(model|policy|assistant|reference)('s|s'|s)? answers?\b|\bper answer\b|\banswer tokens?\b|\banswer's\b"
        r"|\banswers? (of|by|from) (a|an|the|one|two|its|each) (model|polic|reference)|\banswers to (one|a|the) prompt",
        "completion, response", ANYWHERE,
    ),
    (r"\bprice of (divergence|a nat)\b|\bdear\b", "KL penalty coefficient, strength of the KL constraint", ANYWHERE),
    (r"(?<!KL\s)(?<!Shannon\s)(?<!Leibler\s)\bdivergences?\b", "KL divergence", ANYWHERE),
    (r"""["']discount["']|\bdiscount=|["']trace["']|\btrace=""", "gamma, gae_lambda", ANYWHERE),
    (r"\bstop_kl\b|\bmissing_end_penalty\b|\bvalue_weight\b|\bentropy_weight\b", "TRL's names", ANYWHERE),
    (r"""["']clip["']|\bclip=|\bclip: float|\b(objective|optimizer)\.clip\b""", "clip_range", ANYWHERE),
    (r"\bschedule\.rollouts\b|\brollouts: int\b|\bobjective\.(rollouts|passes|iterations)\b", "TRL's names", ANYWHERE),
    (r"\bcredit\(", "compute_advantages", ANYWHERE),
    (r"\bjudge_(all|held_out|policies)\b", "verify, check, compare: a judge is who compares completions", ANYWHERE),
    (r"\bleaps?\b|\bleapt\b|\bleft the numbers\b", "loss spike; NaN or infinite loss", ANYWHERE),
    (r"\b(goes|go|going|went) on from\b", "resumes from, continues", ANYWHERE),
    (r"\b(type|typed|typing) (the|it|this|that) ?(same)? ?(line|command)? again\b|\bsame line again\b",
     "run the command again to resume", ANYWHERE),
    (r"\banew\b", "again, rebuilt", ANYWHERE),
    (r"\bnothing to do, already\b|\balready made\b", "up to date", ANYWHERE),
    (r"\b(Monitor|Instruments|Told|Interruption|Abandoned)\b|\b[cC]ourse_of\b|(?<=[\[\s:])Course\b(?=[\]:,)])",
     "Lightning's name, or what it is", r"(src|tests|docs|benchmarks)/"),
    (r"(?<!\bof\s)\bcourses?\b(?! of CS|\.md)", "curve, schedule", r"src/maquette|tests/|conf/|notebooks/"),
    (r"\b(head_width|feed_forward_width|rope_bases?|num_layers)\b|\b(model|config|shape)\.(width|tied)\b",
     "Hugging Face's names", ANYWHERE),
    (r"\btokenizer\.vocabulary\b|\bdata\.context\b|\b_?batch_tokens\b|(?<!training\.)\bmicro_batch\b(?!\.py| import)",
     "vocab_size, sequence_length, batch_size_tokens, micro_batch_size", ANYWHERE),
    (r"\bisolate_documents\b|\blog_steps\b|\bvalidation_runs\b", "document_masking, log_every_n_steps, num_validations",
     ANYWHERE),
    (r"\bcourse of the (learning )?rate\b|(?<![\w.])schedule=(linear|cosine|wsd|constant)\b", "scheduler", ANYWHERE),
    (r"\b(rate_width|rate_batch|fewest_steps)\b|\brecipe\.rate\b|\bclass Laws\b|\bLaws\(",
     "learning_rate, lr_width_exponent, min_steps, HyperparameterRules", ANYWHERE),
    (r"(?<!text\{)\bhorizons?\b", "tokens", BUDGETS),
    (r"\bgraft(s|ed|ing)?\b|\.leaves\b|\bclass Tree\b|\bTree\(|: Tree\b|-> Tree\b",
     "resume_from_trunk, branch_step, Branching", ANYWHERE),
    (r"\bsuspects?\b", "confounders", ANYWHERE),
    (r"\bbefore you trust\b|\bcame true\b", "warnings; observed", ANYWHERE),
    (r"\bbias of the grid\b|\bless one\b|\blikeliest token (is|was) right\b",
     "grid bias, relative residual, token accuracy", ANYWHERE),
    (r"\bclass Big\b|\bold trials?\b", "FinalRun, TuningTrial", ANYWHERE),
    (r"\b[lL]eanings?\b|\b(\w+_)?Taste\b|\w+_taste\b|\bclass People\b",
     "BiasEstimates, AnnotatorProfile, AnnotatorPool", ANYWHERE),
    (r"\b[lL]ectures?\b(?! [\"*]*Building Large Language Models)", "the paper's name", ANYWHERE),
    (r"\bmade[-_ ]?web\b|\bplant(s|ed|ing)?\b|\bclass Ground\b", "synthetic web, inject a fault, ground truth",
     ANYWHERE),
    (r"\bhostlines\b|""" r"""["'](near|harmful|evidence|refine)["']""" "|"
     r"\bcuration(/|\.)(\w+(/|\.))?(near|harmful|private|evidence|refine|context)\b",
     "boilerplate_lines, near_duplicates, safety, pii, curation_report, filter, corpus_statistics", ANYWHERE),
    (r"\bmade-up (answers?|facts?|names?|people)\b|\bunheard-of\b", "hallucinations, unseen facts", ANYWHERE),
    (r"\bStandings?\b|\bBoard\b|(?<!leader)\bboard\b", "ModelScore, Leaderboard", ANYWHERE),
    (r"\b_?DIED\b", "STALE", ANYWHERE),
    (r"\broads?\b|\brooms\b|\b(a|each|every|the|training) room\b(?! for)|\b(?<!in-)(?<!old\s)houses?\b|\bfloors of\b",
     "pipeline, package, layer, architecture", ANYWHERE),
    (r"\badapter\.(rank|alpha|dropout|targets)\b", "peft's names", ANYWHERE),
    (r"\b(is|are) no [\w-]+( \w+)?,? but\b", "must be X, got Y", ANYWHERE),
]  # fmt: skip

NAMES: list[tuple[str, str, str]] = [
    (r"told|took|tried|found|kept|look|said", "a noun that says what the value is", ANYWHERE),
    (r"answers", "completions, responses", r"(src/maquette|tests)/objectives/"),
    (r"passes|iterations", "ppo_epochs, num_iterations", r"(src/maquette|tests)/objectives/"),
    (r"rate", "learning_rate", PRETRAINING),
    (r"harmful|private|evidence", "safety, pii, curation_report", CURATION),
    (r"words?", "arguments, overrides", COMMANDS),
    (r"roads?|rooms|houses?|boards?|courses?", "what it is", ANYWHERE),
]


@cache
def texts() -> dict[str, str]:
    """What is scanned, by its path from the repository; of notebooks the cells, not what they printed."""
    files = {}
    for place in PLACES:
        top = ROOT / place
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and path.suffix in KINDS and name not in LISTS and "__pycache__" not in name:
                files[name] = _text(path)
    return files


def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    if path.stem in ("renamed", "test_renamed", "test_renamed_keys"):  # the table of old keys, and its tests
        for key in sorted({**renamed.RENAMED, **renamed._OPTIONS}, key=len, reverse=True):
            text = text.replace(key, "")
    return text


@cache
def names() -> dict[str, list[tuple[str, int]]]:
    """(name, line) of what Python files define: values, arguments, functions, classes."""
    return {name: list(_names(ast.parse(text))) for name, text in texts().items() if name.endswith(".py")}


def _names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id.strip("_"), node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr.strip("_"), node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg.strip("_"), node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name.strip("_"), node.lineno


def phrase_places(pattern: str, where: str) -> Iterator[tuple[str, int, str]]:
    """(path, line, what stands there)."""
    seen = re.compile(pattern.replace(" ", r"[\s#]+"))
    for name, text in texts().items():
        if re.match(where, name):
            for match in seen.finditer(text):
                yield name, text.count("\n", 0, match.start()) + 1, match.group()


def name_places(pattern: str, where: str) -> Iterator[tuple[str, int, str]]:
    for path, defined in names().items():
        if re.match(where, path):
            yield from ((path, line, name) for name, line in defined if re.fullmatch(pattern, name))


@pytest.mark.parametrize(("pattern", "instead", "where"), PHRASES, ids=[pattern for pattern, _, _ in PHRASES])
def test_no_replaced_phrase_is_written(pattern: str, instead: str, where: str) -> None:
    places = [f"{path}:{line}: {phrase!r}" for path, line, phrase in phrase_places(pattern, where)]
    assert not places, f"write {instead}\n" + "\n".join(places)


@pytest.mark.parametrize(("pattern", "instead", "where"), NAMES, ids=[pattern for pattern, _, _ in NAMES])
def test_no_value_has_a_replaced_name(pattern: str, instead: str, where: str) -> None:
    places = [f"{path}:{line}: {name}" for path, line, name in name_places(pattern, where)]
    assert not places, f"write {instead}\n" + "\n".join(places)
