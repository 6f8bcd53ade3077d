"""Every protocol and suite that is shipped composes, and says what it means to."""

from pathlib import Path

import pytest

from maquette.artifacts import ConfigError
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.evaluation.config import TemplateConfig
from maquette.evaluation.questions import Question, letter_prompt

GROUPS = [
    (group, path.stem)
    for group in ("protocol", "suite")
    for path in sorted((Path(__file__).parents[3] / "conf" / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_it_composes(group: str, name: str) -> None:
    overrides = [f"{group}={name}"]
    if name == "none":
        assert getattr(compose(STAGES["train"], overrides), group).empty
        with pytest.raises(ConfigError, match="suite is empty"):
            compose(STAGES["evaluate"], overrides)
        return
    if name == "files":
        overrides.append("suite.files.mmlu=test.csv")
    config = compose(STAGES["evaluate"], overrides)
    assert config.suite.name and config.protocol.protocols  # type: ignore[attr-defined]


def test_mmlu_as_its_authors_ask_it() -> None:
    config = compose(STAGES["evaluate"], ["protocol=mmlu"])
    question, shot = Question("q", "Is it?", ("Yes", "No"), 1), Question("s", "Was it?", ("So", "Not"), 0)
    assert letter_prompt(config.protocol.question, question, [0, 1], [shot]) == (  # type: ignore[attr-defined]
        "The following are multiple choice questions (with answers).\n\n"
        "Was it?\nA. So\nB. Not\nAnswer: A\n\nIs it?\nA. Yes\nB. No\nAnswer:"
    )


def test_a_template_must_ask() -> None:
    with pytest.raises(ConfigError, match=r"template.question must hold \{context\}"):
        TemplateConfig(question="What?").validate()
