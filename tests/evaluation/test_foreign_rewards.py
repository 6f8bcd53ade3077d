"""A reward model of others, with a tokenizer of its own, as a judge and in best-of-n: what it says is what
`transformers` says of the conversation as its own template writes it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maquette.cli import compare, import_
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import CompareStage, ImportStage
from maquette.cli.command_line.registry import STAGES
from maquette.evaluation.completions import sampled_completions
from maquette.feedback.annotators.simulated import GoldReward
from maquette.feedback.building import open_reward_model
from maquette.feedback.config import PromptsConfig
from maquette.feedback.policies import sample_many
from maquette.feedback.prompts import open_prompts
from maquette.feedback.study.measurement import PolicyRun, measure_study
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig
from support.their_rewards import their_folder

POLICY = train_tokenizer([], TokenizerConfig(kind="byte"))
LONGEST = 8


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies of bytes that were never trained, and a reward model saved by `transformers`."""
    root = tmp_path_factory.mktemp("foreign")
    shape = TransformerConfig(
        272, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256
    )
    for seed, name in enumerate(("one", "two")):
        model = LanguageModel(shape, seed=seed)
        with torch.no_grad():
            model.head_weight.mul_(30)
        hf.save(model, POLICY, root / "artifacts" / "models" / name)
    their_folder("Qwen2", root / "theirs")
    import_.run(ImportStage(path=str(root / "theirs"), name="judge", outputs=str(root)))
    return root


class Theirs:
    """The score of a conversation by `transformers` alone."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def __call__(self, messages: Any, answer: str, *, ended: bool = True) -> float:
        text = self.tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
        if not ended:
            text = text[: text.rindex("<|im_end|>")]
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            return float(self.model(ids).logits.item())


def test_it_judges_completions(outputs: Path) -> None:
    config = compose(STAGES["compare"], [
        f"outputs='{outputs}'", "tracking=none", "models=[one,two]", "count=30", f"max_completion_length={LONGEST}",
        "feedback=reward_model", "feedback.checkpoint=judge",
    ])  # fmt: skip
    assert isinstance(config, CompareStage)
    result = compare.run(config)
    (folder,) = (outputs / "comparisons").glob("reward_model-*")
    models = {name: outputs / "artifacts" / "models" / name for name in config.models}
    prompts, answers = sampled_completions(
        models, folder / "answers.json", config.prompts, count=30, max_completion_length=LONGEST, temperature=1.0,
        seed=config.seed,
    )  # fmt: skip
    score = Theirs(outputs / "theirs")
    one, two = (
        [score(prompt.messages, text) for prompt, text in zip(prompts, answers[name], strict=True)]
        for name in config.models
    )
    won = np.sign(np.subtract(two, one))
    (row,) = result["models"]
    assert (row["wins"], row["losses"]) == ((won > 0).sum(), (won < 0).sum()) and row["wins"] not in (0, 30)


def test_it_chooses_the_best_of_n(outputs: Path) -> None:
    reward = open_reward_model("judge", outputs).of_policy(POLICY)
    source = open_prompts(PromptsConfig(seed=1), POLICY, longest=256 - LONGEST, split="held_out")
    prompts = [source[number] for number in range(6)]
    place = str(outputs / "artifacts" / "models" / "one")
    measured = measure_study(
        [PolicyRun("sft", "sft", place)], "sft", prompts, {"gold": GoldReward(), "theirs": reward},
        max_completion_length=LONGEST, best_of=4, seed=3,
    )  # fmt: skip
    model = hf.load(Path(place))
    sampled = sample_many(model, POLICY, prompts, 4, max_tokens=LONGEST, seed=4)
    score = Theirs(outputs / "theirs")
    scores = np.array([[score(one.messages, one.answer, ended=one.ended) for one in row] for row in sampled])
    (curve,) = measured.best_of_n
    assert curve.reward == "theirs" and list(curve.n) == [1, 2, 4]
    assert curve.scores["theirs"][2] == pytest.approx(scores.max(axis=1).mean(), abs=1e-4)
    assert curve.scores["theirs"][0] == pytest.approx(scores.mean(), abs=1e-4)
    assert curve.scores["theirs"][2] > curve.scores["theirs"][0]
