"""`maquette compare`: answers of small models judged in both orders; what was judged is kept; misuse is told."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import append_rows
from maquette.cli import compare
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import CompareStage
from maquette.cli.command_line.registry import STAGES
from maquette.evaluation import completions
from maquette.evaluation.model_outputs import read_model_outputs
from maquette.evaluation.policy_comparison import compare_policies
from maquette.feedback.annotators.simulated import GoldAnnotator
from maquette.feedback.comparison import Comparison, Judgement
from maquette.feedback.tasks import Exercises
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of bytes that were never trained, as three runs' folders."""
    root = tmp_path_factory.mktemp("compare")
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    for seed, name in enumerate(("one", "two", "three")):
        shape = TransformerConfig(
            272, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256
        )
        model = LanguageModel(shape, seed=seed)
        with torch.no_grad():
            model.head_weight.mul_(30)
        hf.save(model, tokenizer, root / "artifacts" / "models" / name)
    return root


def settings(outputs: Path, *overrides: str, models: str = "[one,two]") -> CompareStage:
    config = compose(
        STAGES["compare"],
        [
            f"outputs='{outputs}'",
            "tracking=none",
            f"models={models}",
            "count=40",
            "max_completion_length=8",
            *overrides,
        ],
    )
    assert isinstance(config, CompareStage)
    return config


def results(outputs: Path) -> list[Path]:
    return sorted((outputs / "comparisons").glob("*/comparison.json"))


def test_a_leaderboard_beside_golds(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compare.run(settings(outputs, "feedback=length_biased", models="[one,two,three]"))
    assert capsys.readouterr().out.count("can't be told") <= 2
    assert [one["model"] for one in result["models"]] == ["two", "three"]
    for one in result["models"]:
        assert one["wins"] + one["ties"] + one["losses"] == 40 and one["low"] <= one["win_rate"] <= one["high"]
        assert one["win_rate"] == pytest.approx(100 * (one["wins"] + one["ties"] / 2) / 40)
    gold = result["gold"]
    assert gold["agreement"]["cases"] == 80 and "dollars" not in result
    # untrained models are equally bad by gold: there is no order to compare
    assert set(gold["win_rates"].values()) == {50.0} and gold["spearman"] is None
    assert result["judgements"] > 100 and result["seconds"] > 0
    folder = next(path.parent for path in results(outputs) if json.loads(path.read_text()) == result)
    page = (folder / "index.html").read_text()
    assert "agrees with gold" in page and "rank correlation" not in page and "Answers side by side" in page
    assert (folder / "figures" / "win_rates.svg").exists()


def test_what_judging_costs(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("feedback=length_biased", "seed=5")
    before = compare.run(settings(outputs, *overrides))
    assert "dollars" not in before and 0 < before["judgements"] <= 80
    capsys.readouterr()
    priced = compare.run(settings(outputs, *overrides, "feedback.label_price=0.25", "force=true"))
    assert priced["dollars"] == pytest.approx(0.25 * priced["judgements"]) and priced["models"] == before["models"]
    assert f"s and ${priced['dollars']:,.2f}." in capsys.readouterr().err
    page = max((outputs / "comparisons").glob("*/index.html"), key=lambda path: path.stat().st_mtime)
    assert f"${priced['dollars']:.2f}" in page.read_text()


def test_the_judge_is_ranked_by_gold() -> None:
    """Three policies by how often they repeat the word right; a judge who is always right has their order."""
    exercises = Exercises(["repeat"]).take(30)
    facts = [one.facts() for one in exercises]
    right = [one.right for one in exercises]
    answers = {name: [text if n % 10 < good else "?" for n, text in enumerate(right)]
               for name, good in (("low", 2), ("middle", 5), ("high", 9))}  # fmt: skip

    class Other(GoldAnnotator):
        name = "other"

    prompts = [one.messages for one in exercises]
    gold = compare_policies(Other(), prompts, answers, "low", facts=facts)["gold"]
    assert (gold["spearman"], gold["policies"], gold["agreement"]["raw"]) == (1.0, 3, 1.0)
    assert 0 < gold["low"] <= gold["high"] == 1.0


def test_a_killed_judging_goes_on(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge dies in its second batch of pairs; typed again, only what is missing is asked."""
    asked: list[str] = []
    dies = [True]

    def judge(self: Any, comparisons: Sequence[Comparison]) -> list[Judgement]:
        if dies[0] and asked:
            raise StageError("the judge is gone")
        asked.extend(one.key for one in comparisons)
        return [Judgement(1.0) for _ in comparisons]

    monkeypatch.setattr(GoldAnnotator, "judge", judge)
    config = settings(outputs, "feedback=gold", "count=100")
    with pytest.raises(StageError, match="gone"):
        compare.run(config)
    first = len(asked)
    dies[0] = False
    sampled = []
    monkeypatch.setattr(completions, "sample_many", lambda *a, **k: sampled.append(a))
    result = compare.run(config)
    assert 0 < first < len(asked) <= 200 and len(set(asked)) == len(asked) and not sampled
    assert result["gold"] is None and result["models"][0]["first_shown"] == 1.0
    assert result["models"][0]["win_rate"] == 50.0
    again = compare.run(config)
    assert len(asked) == len(set(asked)) == again["judgements"] and again["seconds"] == result["seconds"]


@pytest.mark.parametrize("writes", [0, 1])
def test_a_judging_that_was_not_kept_is_not_counted(
    outputs: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before a write of the journal: the count of judgements stood there without them, and they came twice."""
    written: list[Any] = []

    def write(path: Path, rows: Any) -> None:
        if len(written) == writes:
            raise KeyboardInterrupt
        written.append(append_rows(path, rows))

    config = settings(outputs, "feedback=length_biased", "count=10", f"seed={50 + writes}", "models=[one,two,three]")
    with monkeypatch.context() as patched:
        patched.setattr("maquette.evaluation.journal.append_rows", write)
        with pytest.raises(KeyboardInterrupt):
            compare.run(config)
    counted = compare.run(config)["judgements"]
    whole = settings(outputs, "feedback=length_biased", "count=10", f"seed={50 + writes}", "models=[one,two,three]",
                     "force=true")  # fmt: skip
    assert counted == compare.run(whole)["judgements"]


def test_prompts_of_a_file(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": f"Say {number}."} for number in range(5)] + [{"instruction": "long " * 80}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = compare.run(settings(outputs, f"prompts.path='{tmp_path}/prompts.jsonl'", "feedback.kind=file",
                                 f"feedback.path='{preference(tmp_path, outputs)}'"))  # fmt: skip
    assert result["prompts"] == 5 and result["gold"] is None
    assert (result["models"][0]["wins"], result["models"][0]["failed"]) == (1, 4)
    printed = capsys.readouterr().err
    assert "1 of 6 prompts are too long" in printed and "completions of two were cut at 8 tokens; max_comp" in printed


def preference(folder: Path, outputs: Path) -> Path:
    """A label of the answers to the first prompt alone, for model two."""
    from maquette.data.conversations import render_prompt
    from maquette.feedback.policies import sample_many
    from maquette.model.loading import load_checkpoint

    answers = []
    for name in ("one", "two"):
        model, tokenizer = load_checkpoint(outputs / "artifacts" / "models" / name)
        prompts = [render_prompt(tokenizer, [{"role": "user", "content": f"Say {n}."}]) for n in range(5)]
        answers.append(sample_many(model, tokenizer, prompts, 1, max_tokens=8)[0][0].answer)
    row = {
        "prompt": [{"role": "user", "content": "Say 0."}],
        "chosen": [{"role": "assistant", "content": answers[1]}],
        "rejected": [{"role": "assistant", "content": answers[0]}],
        "annotator": "somebody",
    }
    (folder / "labels.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "labels.jsonl"


def published(folder: Path, name: str, answers: list[str], count: int = 4) -> Path:
    rows = [{"instruction": f"Say {n}.", "output": answers[n], "generator": name, "dataset": "x"} for n in range(count)]
    (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder / f"{name}.json"


def test_outputs_that_others_have_published(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AlpacaEval's files, beside each other and beside a model here, which answers the same instructions."""
    asked: list[Comparison] = []

    def judge(self: Any, comparisons: Sequence[Comparison]) -> list[Judgement]:
        asked.extend(comparisons)
        return [Judgement(float(len(one.first) > len(one.second))) for one in comparisons]

    monkeypatch.setattr(GoldAnnotator, "judge", judge)
    long, short = published(tmp_path, "long", ["aaaa"] * 4), published(tmp_path, "short", ["a"] * 4, count=3)
    both = f"model_outputs=['{long}','{short}']"
    result = compare.run(settings(outputs, "feedback=gold", both, "baseline=short", models="[]"))
    assert result["prompts"] == 3 and [one["model"] for one in result["models"]] == ["long"]
    assert result["models"][0]["win_rate"] == 100.0 and result["gold"] is None
    assert asked[0].messages == ({"role": "user", "content": "Say 0."},)
    result = compare.run(settings(outputs, "feedback=gold", f"model_outputs=['{long}']", models="[one]"))
    assert (result["baseline"], result["prompts"], result["models"][0]["model"]) == ("one", 4, "long")
    for rows, message in (
        ([{"instruction": "Say 0.", "output": "a"}], r"broken\.json.*generator"),
        ([{"instruction": "Say 0.", "output": "a", "generator": "x"}] * 2, "second output"),
        ([{"instruction": "Say no.", "output": "a", "generator": "x"}], "no instruction in common"),
    ):
        (tmp_path / "broken.json").write_text(json.dumps(rows))
        with pytest.raises(StageError, match=message):
            compare.run(settings(outputs, f"model_outputs=['{tmp_path}/broken.json','{long}']", models="[]"))
    with pytest.raises(ConfigError, match="baseline=four"):
        compare.run(settings(outputs, both, "baseline=four", models="[]"))
    with pytest.raises(ConfigError, match="model_outputs"):
        settings(outputs, "outputs=them.json")


def test_own_prompts_have_a_judge_by_default(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is named: the first model judges. What was written is read back as it was."""
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(6)))
    result = compare.run(settings(outputs, f"prompts.path='{tmp_path}/prompts.jsonl'", "count=6"))
    assert result["prompts"] == 6 and "one judges" in capsys.readouterr().err
    row = result["models"][0]
    assert 0 <= row["p_value"] <= row["adjusted"] <= 1 and row["detectable"] >= 0
    (file,) = (path for path in (outputs / "comparisons").glob("language_model-*/model_outputs.json"))
    rows = json.loads(file.read_text())
    assert len(rows) == 12 and {one["generator"] for one in rows} == {"one", "two"}
    prompts, published = read_model_outputs([str(file)])
    assert [one.messages[-1]["content"] for one in prompts] == [f"Say {n}." for n in range(6)]
    assert list(published) == ["one", "two"]


def test_a_model_told_to_be_verbose(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model with and without a system prompt: the judge sees the prompt alone."""
    asked: list[Comparison] = []
    prompts: list[Any] = []
    sample = completions.sample_many

    def watched(model: Any, tokenizer: Any, own: Any, *rest: Any, **options: Any) -> Any:
        prompts.append(own[0].messages)
        return sample(model, tokenizer, own, *rest, **options)

    def judge(self: Any, comparisons: Sequence[Comparison]) -> list[Judgement]:
        asked.extend(comparisons)
        return [Judgement(0.5) for _ in comparisons]

    monkeypatch.setattr(completions, "sample_many", watched)
    monkeypatch.setattr(GoldAnnotator, "judge", judge)
    config = settings(
        outputs, "feedback=gold", "count=6", "system={verbose: Be verbose., concise: Be concise.}", models="[one]"
    )
    result = compare.run(config)
    assert result["baseline"] == "one"
    assert [one["model"] for one in result["models"]] == ["one (verbose)", "one (concise)"]
    assert [one[0] for one in prompts[1:]] == [{"role": "system", "content": text}
                                               for text in ("Be verbose.", "Be concise.")]  # fmt: skip
    assert prompts[0] == prompts[1][1:] and all(one.messages[0]["role"] == "user" for one in asked)
    assert compare.run(config) == result and len(prompts) == 3


def test_misuse_is_told(outputs: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare.run(settings(outputs, models="[one]"))
    with pytest.raises(ConfigError, match="named twice"):
        settings(outputs, models="[one,one]")
    with pytest.raises(ConfigError, match="baseline=four is none"):
        settings(outputs, "baseline=four")
    with pytest.raises(ConfigError, match=r"(?s)tow.*Did you mean two"):
        compare.run(settings(outputs, models="[one,tow]"))
    with pytest.raises(StageError, match="tokens"):
        compare.run(settings(outputs, "feedback=gold", "prompts.tasks=[pick]", "max_completion_length=250"))
