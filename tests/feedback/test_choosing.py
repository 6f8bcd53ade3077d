"""Which pairs are labelled: those that reward models are unsure of or differ on, or any."""

from pathlib import Path

import numpy as np
import pytest

from maquette.artifacts import ConfigError
from maquette.cli import annotate
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.data.conversations import read_preferences, write_preferences
from maquette.feedback.annotators.simulated import GoldAnnotator
from maquette.feedback.choosing import choose_pairs, most_worth, probabilities_of, worth_of_a_label
from maquette.feedback.comparison import Comparison, comparison_of, preferences_of
from maquette.model import hf
from support.pairs import some_pairs
from support.policies import TOKENIZER, tiny_model, tiny_value

pytestmark = pytest.mark.usefixtures("no_pictures")

PAIRS = some_pairs(60)
KEYS = [one.key for one in PAIRS]


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two reward models that were never trained."""
    root = tmp_path_factory.mktemp("rewards")
    models = [tiny_value(tiny_model(seed=seed, scale=3.0)) for seed in (1, 2)]
    return [str(hf.save(model, TOKENIZER, root / str(number))) for number, model in enumerate(models)]


def test_what_a_label_is_worth() -> None:
    probabilities = np.array([[0.5, 0.9, 0.1, 0.8], [0.5, 0.9, 0.9, 0.3]])
    unsure, differing = (worth_of_a_label(probabilities, how) for how in ("uncertainty", "disagreement"))
    assert unsure.argmax() == 0 and unsure[0] == pytest.approx(unsure[2]) == 0 and unsure.argmin() == 1
    assert differing.argsort().tolist()[-2:] == [3, 2] and differing[0] == differing[1] == 0
    assert most_worth(differing, KEYS[:4], 2, seed=0) == [2, 3]


def test_a_random_choice_is_of_the_pair_alone() -> None:
    chosen = choose_pairs(PAIRS, 20, "random", [], "nowhere", seed=3)
    assert len(chosen) == 20 and chosen == [one for one in PAIRS if one in chosen]  # in their order
    assert chosen == choose_pairs(PAIRS, 20, "random", [], "nowhere", seed=3)
    assert chosen != choose_pairs(PAIRS, 20, "random", [], "nowhere", seed=4)
    fewer = choose_pairs([one for one in PAIRS if one in chosen[:15]], 5, "random", [], "nowhere", seed=3)
    assert all(one in chosen for one in fewer)
    assert choose_pairs(PAIRS, None, "random", [], "nowhere", seed=0) == PAIRS


def shortened(one: Comparison) -> tuple[str, str]:
    """Completions that fit the tiny models' context."""
    return one.first[:9], one.second[:9]


def test_the_stage_labels_what_was_chosen(rewards: list[str], tmp_path: Path) -> None:
    pairs = [
        Comparison(({"role": "user", "content": one.messages[0]["content"][-12:]},), *shortened(one), one.facts)
        for one in PAIRS
    ]  # fmt: skip
    gold = GoldAnnotator().judge(pairs)
    write_preferences(tmp_path / "pairs.jsonl", preferences_of(pairs, gold, "gold"))
    given = [comparison_of(row) for row in read_preferences(tmp_path / "pairs.jsonl")]
    assert len(given) > 15

    def labelled(*overrides: str) -> set[str]:
        words = [f"outputs='{tmp_path}'", "tracking=none", f"given='{tmp_path}/pairs.jsonl'", "feedback=gold"]
        folder = annotate.run(compose(STAGES["annotate"], [*words, "labels=6", *overrides]))  # type: ignore[arg-type]
        return {comparison_of(row).key for row in read_preferences(folder / "preferences.jsonl")}

    both = f"rewards=[{','.join(rewards)}]"
    worth = np.abs(probabilities_of(given, rewards, tmp_path).mean(axis=0) - 0.5)
    unsure = {given[place].key for place in worth.argsort()[:6]}
    assert labelled("choose=uncertainty", both) == unsure
    differing, drawn = labelled("choose=disagreement", both), labelled()
    assert len(differing) == len(drawn) == 6 and len({frozenset(unsure), frozenset(differing), frozenset(drawn)}) == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["choose=uncertainty", "labels=5"], "needs a reward model"),
        (["choose=disagreement", "labels=5", "rewards=[a]"], "needs two reward models"),
        (["choose=uncertainty", "rewards=[a]"], "nothing to choose"),
        (["labels=5", "rewards=[a]"], "no effect on a random choice"),
        (["choose=best"], "random"),
    ],
)
def test_what_is_missing_is_said(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(STAGES["annotate"], overrides)
