"""The order of a published test's questions: all of them count, however long a shard is."""

import pytest
import torch

from maquette.evaluation.config import TemplateConfig
from maquette.evaluation.questions import Question
from maquette.evaluation.suite import OrderLikelihood
from maquette.model import LanguageModel, TransformerConfig
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

CONTEXT = 32
QUESTIONS = [Question(str(n), f"what is {n}", (f"the {n * 7919 % 997}", "other"), 0) for n in range(90)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


def scorer(tokenizer: Tokenizer, context: int = CONTEXT) -> OrderLikelihood:
    shape = TransformerConfig(
        tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
    )
    model = LanguageModel(shape, seed=0).eval()
    with torch.no_grad():
        model.head_weight.mul_(20)
    return OrderLikelihood(model, tokenizer, TemplateConfig(question="{context}", answer=" {option}", separator="\n"))


def test_what_is_longer_than_the_context_counts_whole(tokenizer: Tokenizer) -> None:
    order = QUESTIONS[:6]
    short, long = scorer(tokenizer), scorer(tokenizer, 512)
    text = "\n".join(short.text(question) for question in order)
    assert len(text) > 3 * CONTEXT
    # every token is predicted once: a change in the last question alone is seen
    other = [*order[:-1], QUESTIONS[50]]
    first, second = short.many([order, other])
    assert first != second and first == pytest.approx(short(order))
    # within the context it is the text's own likelihood
    assert long.many([order[:1]])[0] == pytest.approx(short.many([order[:1]])[0], abs=1e-3)
    with torch.no_grad():
        tokens = torch.tensor([[tokenizer.document_id, *tokenizer.encode(text)]])
        log_probs = long.model(tokens[:, :-1]).log_softmax(-1)
        whole = float(log_probs.gather(-1, tokens[:, 1:, None]).sum())
    assert long(order) == pytest.approx(whole, rel=1e-5)


def test_shards_fill_the_context_and_have_four_questions_at_least(tokenizer: Tokenizer) -> None:
    assert scorer(tokenizer, 256).shards(QUESTIONS) == 20
    assert scorer(tokenizer, 32).shards(QUESTIONS) == 90 // 4
    assert scorer(tokenizer, 4096).shards(QUESTIONS[:5]) == 2
