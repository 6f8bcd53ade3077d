"""Command lines from before the renaming: with the new names they compose, with the old ones the answer has the new."""

import shlex

import pytest

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.renamed import RENAMED
from maquette.artifacts.settings import walk
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES

LINES = [
    "train size=10k compute=1e9 source.limit=500 data.sequence_length=64",
    "train objective=dpo preferences.path=whole_conversations.jsonl checkpoint=latest objective.epochs=1 "
    "objective.batch_size=4",
    "train objective=sft instructions=file instructions.path=weights.jsonl checkpoint=latest objective.epochs=1 "
    "objective.batch_size=4",
    "evaluate checkpoint=latest suite=files suite.files.exam=exam.csv protocol=quick",
    "fit runs=billions.csv form=additive bootstrap=100",
    "fit runs=runs.csv name=first",
    "predict fit=first compute=1e20",
    "train size=10k compute=1e8 source.limit=500 data.sequence_length=64 optimizer.lr=1e6 seed=2",
    "corpus source=text \"source.path='bücher'\"",
    "corpus source=text \"source.path='书'\"",
    "corpus source=text \"source.path='my=books'\"",
    "train objective=sft instructions=file instructions.path=lines.json checkpoint=latest",
    "ratings battles=battles.json",
    "train objective=sft instructions=file instructions.path=rows.jsonl checkpoint=latest objective.epochs=0.36 "
    "objective.batch_size=4 optimizer.lr=1e30 scheduler=constant scheduler.warmup=0",
    "evaluate checkpoint=latest suite=files suite.files.first=first_is_right.jsonl protocol=quick",
    "sample prompts=[def] checkpoint=latest",
]


@pytest.mark.parametrize("line", LINES)
def test_lines_with_the_new_names_compose(line: str) -> None:
    stage, *overrides = shlex.split(line)
    compose(STAGES[stage], [*overrides, "outputs=elsewhere"])


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("train data.context=64", "data.sequence_length"),
        ("train optimizer.learning_rate=1e6", "optimizer.lr"),
        ("train schedule=constant", "scheduler"),
        ("train scheduler=constant schedule.warmup=0", "scheduler.warmup"),
        ("train model.width=64", "model.hidden_size"),
        ("train tokenizer.vocabulary=512", "tokenizer.vocab_size"),
        ("train mixture.alpha=0.3", "mixture.temperature"),
        ("train recipe.rate=0.1", "recipe.learning_rate"),
        ("train objective=ppo objective.discount=1", "objective.gamma"),
        ("train objective=dpo objective.variant=ipo", "objective.loss_type"),
        ("annotate answer_tokens=8", "max_completion_length"),
        ("annotate feedback=lecture", "feedback=alpacafarm"),
        ("corpus source=madeweb", "source=synthetic_web"),
    ],
)
def test_old_names_are_answered_with_the_new_ones(line: str, new: str) -> None:
    stage, *overrides = line.split()
    with pytest.raises(ConfigError) as caught:
        compose(STAGES[stage], overrides)
    assert "It is now" in caught.value.hint and new in caught.value.hint


def test_what_was_renamed_is_no_setting_any_more() -> None:
    """And what it was renamed to is one, but for the parts that are not settings of a dataclass."""
    known = {setting.key for stage in STAGES.values() for setting in walk(stage.config)}
    sections = ("model.", "data.", "tokenizer.", "recipe.", "objective.", "protocol.")
    for old, new in RENAMED.items():
        if old.startswith(sections):
            assert old not in known and new in known, old
