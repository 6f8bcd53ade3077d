"""A language model as a judge, against a small server of our own: orders, cache, cost, retries, nonsense."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.feedback.annotators.language_model import AnswerCache, LanguageModelAnnotator, judge_messages, read_vote
from maquette.feedback.chat_models import EndpointModel, LocalModel
from maquette.feedback.tasks import from_facts
from maquette.model import LanguageModel, TransformerConfig
from maquette.text import chat, train_tokenizer
from maquette.text.config import TokenizerConfig
from support.chat_server import ChatServer
from support.pairs import some_pairs

PAIRS = some_pairs(12)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    one = ChatServer()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between tries."""
    result: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", result.append)
    return result


def judge_at(server: ChatServer, **options: Any) -> EndpointModel:
    return EndpointModel(server.url, "big", **options)


def by_gold(question: str) -> str:
    """Prefers the better answer whatever the order."""
    instruction, first, second = (part.partition(":\n")[2].strip() for part in question.split("\n\n")[:3])
    exercise = next(from_facts(one.facts) for one in PAIRS if one.messages[0]["content"] == instruction)
    return "A" if exercise.gold(first) >= exercise.gold(second) else "B."


def test_pairs_are_judged_in_both_orders(server: ChatServer) -> None:
    server.reply = by_gold
    annotator = LanguageModelAnnotator(judge_at(server))
    judged = annotator.judge(PAIRS)
    assert len(server.requests) == 2 * len(PAIRS)
    for one, judgement in zip(PAIRS, judged, strict=True):
        exercise = from_facts(one.facts)
        first, second = exercise.gold(one.first), exercise.gold(one.second)
        assert judgement.preference == (0.5 if first == second else float(first > second))
    assert all(request["model"] == "big" and request["temperature"] == 0 for request in server.requests)


def test_a_judge_that_always_says_a_prefers_nothing(server: ChatServer) -> None:
    annotator = LanguageModelAnnotator(judge_at(server))
    assert {one.preference for one in annotator.judge(PAIRS)} == {0.5}
    assert annotator.costs.contradictions == len(PAIRS)
    once = LanguageModelAnnotator(judge_at(server), both_orders=False)
    assert {one.preference for one in once.judge(PAIRS)} == {1.0}


def test_nothing_is_asked_twice_and_costs_are_counted(server: ChatServer, tmp_path: Path) -> None:
    server.reply = by_gold

    def annotator() -> LanguageModelAnnotator:
        cache = AnswerCache(tmp_path / "judged.sqlite")
        return LanguageModelAnnotator(judge_at(server), cache=cache, input_price=2.0, output_price=10.0)

    first = annotator()
    judged = first.judge(PAIRS)
    asked = len(server.requests)
    price = (100 * 2.0 + 2 * 10.0) / 1e6
    assert first.costs.dollars == pytest.approx(asked * price) == pytest.approx(first.costs.dollars_in_all)
    assert first.costs.dollars_per_thousand == pytest.approx(1000 * 2 * price)
    again = annotator()
    assert again.judge(PAIRS) == judged and len(server.requests) == asked
    assert again.costs.dollars == 0.0 and again.costs.cached == asked
    assert again.costs.dollars_per_thousand == pytest.approx(1000 * 2 * price)


def test_what_was_judged_before_a_failure_is_kept(server: ChatServer, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "judged.sqlite")
    answered = threading.Event()

    def breaks(question: str) -> str:
        if len(server.requests) > 6:
            server.failures += [(500, {})] * 50
            answered.set()
        return "A"

    server.reply = breaks
    annotator = LanguageModelAnnotator(judge_at(server, retries=1), cache=cache, workers=1)
    with pytest.raises(StageError, match=r"gave no reply in 2 tries: .*500"):
        annotator.judge(PAIRS)
    server.failures.clear()
    server.reply, before = by_gold, len(server.requests)
    again = LanguageModelAnnotator(judge_at(server), cache=cache)
    again.judge(PAIRS)
    assert again.costs.cached >= 6
    assert len(server.requests) - before == 2 * len(PAIRS) - again.costs.cached


def test_a_busy_server_is_asked_again_later(server: ChatServer, waits: list[float]) -> None:
    server.failures = [(503, {}), (429, {"Retry-After": "7"}), (500, {})]
    annotator = LanguageModelAnnotator(judge_at(server), workers=1, both_orders=False)
    annotator.judge(PAIRS[:1])
    assert waits == [7.0, 4.0]  # doubling, or as long as the server asks


def test_a_refusal_is_not_asked_again(server: ChatServer) -> None:
    server.failures = [(401, {})]
    with pytest.raises(StageError, match="refuses the question: 401"):
        LanguageModelAnnotator(judge_at(server), both_orders=False).judge(PAIRS[:1])
    assert len(server.requests) == 1


def test_nonsense_is_counted_and_makes_no_label(server: ChatServer) -> None:
    server.reply = lambda question: "Both are fine."
    annotator = LanguageModelAnnotator(judge_at(server))
    assert {one.preference for one in annotator.judge(PAIRS[:3])} == {None}
    assert annotator.costs.nonsense == 6 and annotator.costs.labels == 0


@pytest.mark.parametrize(
    ("reply", "vote"),
    [("A", 1.0), ("B", 0.0), (" b", None), ("Answer B.", 0.0), ("**A**", 1.0), ("A or B", 1.0), ("", None),
     ("B is better than A", 0.0), ("Between A and B I can't say", None), ("Absolutely", None)],
)  # fmt: skip
def test_votes_are_read_from_replies(reply: str, vote: float | None) -> None:
    assert read_vote(reply) == vote


def test_the_key_comes_from_the_environment(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="JUDGE_KEY is not set"):
        judge_at(server, key_variable="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    LanguageModelAnnotator(judge_at(server, key_variable="JUDGE_KEY")).judge(PAIRS[:1])
    assert server.headers[0]["Authorization"] == "Bearer secret"
    with pytest.raises(ConfigError, match="not the address"):
        EndpointModel("localhost:8000", "x")


def test_nobody_listening_is_said_clearly() -> None:
    judge = EndpointModel("http://127.0.0.1:9/v1", "x", retries=0)
    with pytest.raises(StageError, match="gave no reply in 1 tries"):
        LanguageModelAnnotator(judge).judge(PAIRS[:1])


def test_a_checkpoint_can_be_the_judge() -> None:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    model = LanguageModel(
        TransformerConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          max_position_embeddings=1024)
    )  # fmt: skip
    annotator = LanguageModelAnnotator(LocalModel(model, tokenizer, "tiny"), workers=1)
    assert len(annotator.judge(PAIRS[:2])) == 2
    assert annotator.costs.asked == 4


def test_verdicts_by_log_probability_in_both_orders(server: ChatServer, tmp_path: Path) -> None:
    """AlpacaEval 2: how likely A is among A and B, with and without a space; the orders are averaged."""
    server.reply = by_gold
    sure = {"A": math.log(0.6), " A": math.log(0.2), "B": math.log(0.1), "Hm": math.log(0.1)}
    turned = {"A": math.log(0.05), "B": math.log(0.45), "Hm": math.log(0.5)}
    server.likeliest = lambda text: sure if text == "A" else turned
    cache = AnswerCache(tmp_path / "judged.sqlite")
    annotator = LanguageModelAnnotator(judge_at(server), cache=cache, by_probability=True)
    judged = annotator.judge(PAIRS)
    for one, judgement in zip(PAIRS, judged, strict=True):
        exercise = from_facts(one.facts)
        difference = exercise.gold(one.first) - exercise.gold(one.second)
        first = (8 / 9 + 0.9) / 2  # 1 - 0.1 where it is shown second
        expected = 0.5 if difference == 0 else first if difference > 0 else 1 - first
        assert judgement.preference == pytest.approx(expected)
    assert server.requests[0]["top_logprobs"] == 20 and server.requests[0]["max_tokens"] == 1
    asked = len(server.requests)
    again = LanguageModelAnnotator(judge_at(server), cache=cache, by_probability=True)
    assert again.judge(PAIRS) == judged and len(server.requests) == asked
    LanguageModelAnnotator(judge_at(server), cache=cache).judge(PAIRS[:1])  # letters are another question
    assert len(server.requests) == asked + 2


def test_a_server_without_log_probabilities_is_told(server: ChatServer) -> None:
    with pytest.raises(StageError, match=r"(?s)no log-probabilities.*verdict=letter"):
        LanguageModelAnnotator(judge_at(server), by_probability=True).judge(PAIRS[:1])
    server.likeliest = lambda text: {"Hm": -0.1}
    annotator = LanguageModelAnnotator(judge_at(server), by_probability=True)
    assert annotator.judge(PAIRS[:1])[0].preference is None and annotator.costs.nonsense == 2


def test_a_checkpoint_weighs_its_own_letters() -> None:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    model = LanguageModel(
        TransformerConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          max_position_embeddings=1024)
    )  # fmt: skip
    judge = LocalModel(model, tokenizer, "tiny")
    messages = judge_messages(PAIRS[0])
    ids = chat.render(tokenizer, messages, open_assistant=True).ids
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0, -1]
    a, b = (logits[tokenizer.encode(letter)[0]] for letter in "AB")
    assert judge.weigh(messages, ("A", "B")).probability == pytest.approx(float(torch.sigmoid(a - b)), abs=1e-5)
    with pytest.raises(StageError, match="no token for the verdict 'Yes'"):
        judge.weigh(messages, ("Yes", "No"))


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "judged.sqlite").write_text("hello " * 100)
    with pytest.raises(StageError, match=r"judged\.sqlite is damaged"):
        AnswerCache(tmp_path / "judged.sqlite")
