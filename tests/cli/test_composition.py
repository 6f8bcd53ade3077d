"""Words of a command line on their way to settings: what holds text is never read as a number."""

from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.overrides import as_text, literal
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps.jobs import product

TRAIN = STAGES["train"]


@pytest.mark.parametrize("written", ["653540e9", "007", "1.50", "12345678", "0e0", "12e-4", "1_0"])
def test_a_name_that_looks_like_a_number(written: str) -> None:
    settings: Any = compose(TRAIN, [f"corpus.name={written}"])
    assert settings.corpus.name == written
    swept = [compose(TRAIN, overrides) for overrides in product(TRAIN, [f"corpus.name={written},ab"])]
    assert [one.corpus.name for one in swept] == [written, "ab"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("chosen", ["mlflo", "[csv,mlflo]"])
def test_a_misspelt_option_is_answered_with_those_there_are(chosen: str) -> None:
    """Of one in a list too, where Hydra does not say which there are."""
    with pytest.raises(ConfigError) as caught:
        compose(TRAIN, [f"logger={chosen}"])
    assert "logger=mlflo" in caught.value.message
    assert caught.value.hint is not None and "mlflow" in caught.value.hint and "tensorboard" in caught.value.hint


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("curation.fineweb.duplicate_line_characters=" + "9" * 400, "too large"),
        ("seed=" + "9" * 400, "too large"),
        ("tracking=inf", "tracking=inf"),
        ("tracking=null", "tracking=None"),
        ("objective=true", "objective=True"),
        ("hydra=-1", "hydra=-1"),
        ("hydra=[1,2]", r"hydra=\[1, 2\]"),
        ("mixture=[1]", r"mixture=\[1\]"),
        ("+hydra=null", "hydra=None"),
        ("hydra/launcher=3", "hydra/launcher=3"),
    ],
)
def test_values_over_which_hydra_and_omegaconf_fail(override: str, named: str) -> None:
    """Found by the fuzzer of overrides, seed 7."""
    stage = STAGES["fit" if override.startswith("tracking") else "train"]
    with pytest.raises(ConfigError, match=named) as caught:
        compose(stage, [override])
    assert len(caught.value.message) < 300


def test_numbers_and_quoted_words_stay_as_they_are() -> None:
    overrides = ["size=1e5", "seed=007", "corpus.name='1e5'", "prediction=null", "corpus.name=a1e5"]
    assert as_text(TRAIN, overrides) == overrides


@pytest.mark.parametrize(
    "text", ["a b", "it's", "a\\b", "end\\", "${seed}", "\\${x}", "a, b [c] {d: 1}", 'say "x"', ""]
)
def test_a_bare_word_arrives_as_it_is(text: str) -> None:
    settings: Any = compose(STAGES["score"], [f"sentences={literal([text, 'x'])}"])
    assert settings.sentences == [text, "x"]


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("outputs=~/mine", "outputs", str(Path("~/mine").expanduser())),
        ("outputs=/data/Übung", "outputs", "/data/Übung"),
        ("outputs=/data/mine (2)", "outputs", "/data/mine (2)"),
        ("checkpoint=it's", "checkpoint", "it's"),
        ("outputs='~/mine'", "outputs", "~/mine"),  # quoted for Hydra: meant as it stands
    ],
)
def test_paths_need_no_quotes_of_hydras(typed: str, key: str, value: str) -> None:
    assert getattr(compose(TRAIN, [typed]), key) == value


def test_each_path_of_a_sweep_is_read() -> None:
    assert as_text(TRAIN, ["checkpoint=~/a,/b (1)"]) == [f"checkpoint='{Path.home()}/a','/b (1)'"]


def test_what_is_no_text_is_still_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size"):
        compose(TRAIN, ["tokenizer.vocab_size=~/x"])


def test_under_a_debugger_a_wrong_value_is_named_with_its_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OC_CAUSE", "1")  # what OmegaConf does by itself where a debugger or coverage traces
    for override in ("data.sequence_length=abc", "data.sequence_length=null"):
        with pytest.raises(ConfigError, match=r"data\.sequence_length"):
            compose(STAGES["train"], [override])
