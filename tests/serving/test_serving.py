"""The chat page's server: the API's answers, in pieces too; errors in its form; blind battles and their files."""

import base64
import copy
import hashlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from maquette.artifacts import ConfigError, StageError
from maquette.data.conversations import ExampleFiles, read_preferences
from maquette.evaluation.arena import read_battles
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.generation import generate
from maquette.model.next_token import next_token
from maquette.model.sampling import Sampling
from maquette.serving.arena import BATTLES, PREFERENCES, Arena
from maquette.serving.corrections import Corrections
from maquette.serving.endpoint import build_app
from maquette.serving.protection import MOST_BYTES
from maquette.serving.served import Request, ServedModel
from maquette.text import train_tokenizer
from maquette.text.chat import Message, render
from maquette.text.config import TokenizerConfig

ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def models() -> dict[str, ServedModel]:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    opened = {}
    for seed, name in enumerate(("one", "two", "three")):
        shape = TransformerConfig(
            tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=48
        )
        model = LanguageModel(shape, seed=seed).eval()
        with torch.no_grad():
            model.head_weight.mul_(30)
        opened[name] = ServedModel(name, model, tokenizer, seed > 0)
    return opened


@pytest.fixture
def client(models: dict[str, ServedModel], tmp_path: Path) -> Iterator[TestClient]:
    app = build_app(models, Arena(list(models), tmp_path / "arena", seed=0), Sampling(temperature=1.0), ["here"])
    with TestClient(app, base_url="http://here") as http:
        yield http


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_is_what_generation_gives(client: TestClient, models: dict[str, ServedModel]) -> None:
    body = {"model": "two", "messages": ASK, "temperature": 0.7, "seed": 3, "max_tokens": 9, "n": 2, "logprobs": True}
    reply = client.post("/v1/chat/completions", json=body).json()
    two = models["two"]
    prompt = render(two.tokenizer, ASK, open_assistant=True).ids  # type: ignore[arg-type]
    wanted = generate(
        two.model, [prompt] * 2, tokenizer=two.tokenizer, sampling=Sampling(temperature=0.7), max_tokens=9, seed=3
    )
    assert [one["message"]["content"] for one in reply["choices"]] == [one.text for one in wanted]
    for choice, one in zip(reply["choices"], wanted, strict=True):
        assert [token["id"] for token in choice["logprobs"]["content"]] == list(one.tokens)
        assert choice["finish_reason"] == ("length" if one.finish_reason in ("max_tokens", "context") else "stop")
    assert reply["usage"]["prompt_tokens"] == len(prompt) and reply["model"] == "two"
    pieces = events(client.post("/v1/chat/completions", json=body | {"stream": True, "n": 1}).text)
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == wanted[0].text
    assert pieces[-1]["choices"][0]["finish_reason"] is not None


def test_a_text_goes_on(client: TestClient) -> None:
    body = {"prompt": "def main(", "max_tokens": 5, "temperature": 0, "stop": "q"}
    whole = client.post("/v1/completions", json=body).json()
    assert whole["object"] == "text_completion" and whole["model"] == "one"  # the first where none is named
    pieces = events(client.post("/v1/completions", json=body | {"stream": True}).text)
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == whole["choices"][0]["text"]
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "four", "messages": ASK}, 404, "no model 'four' here. Served: one, two, three"),
        ({"messages": []}, 400, "no messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, 400, "the role 'judge'"),
        ({"messages": [*ASK, *ASK]}, 400, "a second turn of the user in a row"),
        ({"messages": [{**ASK[0], "tool_calls": [{"id": "1"}]}]}, 400, "message 1: 'tool_calls' is not a key"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "a part that is not a text"),
        ({"messages": ASK, "temperature": -1}, 400, "temperature=-1"),
        ({"messages": ASK, "n": 99}, 400, "n=99"),
        ({"messages": ASK, "max_tokens": "many"}, 400, "max_tokens"),
        ({"messages": [{"role": "user", "content": "long " * 30}]}, 400, "context holds 48"),
    ],
)
def test_what_is_wrong_is_said_in_the_apis_form(
    client: TestClient, body: dict[str, Any], status: int, message: str
) -> None:
    for stream in (False, True):
        answer = client.post("/v1/chat/completions", json=body | {"stream": stream})
        assert answer.status_code == status and message in answer.json()["error"]["message"]
    assert client.get("/nowhere").json()["error"]["message"] == "Not Found"


def test_the_page_needs_nothing_from_elsewhere_and_strangers_get_nothing(client: TestClient) -> None:
    page = client.get("/").text
    assert "<title>Maquette</title>" in page and "http" not in page.replace('"http-equiv', "")
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    state = client.get("/api/state").json()
    assert [one["assistant"] for one in state["models"]] == [False, True, True] and state["arena"]["votes"] == 0


def fight(client: TestClient, winner: str) -> dict[str, Any]:
    battle = client.post("/arena/battle", json={"messages": ASK}).json()["battle"]
    early = client.post("/arena/vote", json={"battle": battle, "winner": winner})
    assert early.status_code == 400 and "not whole" in early.json()["error"]["message"]
    for side in ("a", "b"):
        streamed = client.post("/arena/answer", json={"battle": battle, "side": side, "max_tokens": 6}).text
        assert not any(f'"{name}"' in streamed for name in ("one", "two", "three"))  # blind
    answer = client.post("/arena/vote", json={"battle": battle, "winner": winner, "judge": "Ada"}).json()
    again = client.post("/arena/vote", json={"battle": battle, "winner": winner})
    assert again.status_code == 400 and "no such battle" in again.json()["error"]["message"]
    return dict(answer)


def test_votes_become_battles_and_preferences(client: TestClient, tmp_path: Path) -> None:
    results = [fight(client, winner) for winner in ("a", "b", "tie", "a")]
    assert [result["votes"] for result in results] == [1, 2, 3, 4]
    battles, skipped = read_battles(tmp_path / "arena" / BATTLES)
    assert len(battles) == 4 and not skipped and {one.judge for one in battles} == {"Ada"}
    assert battles[0].winner == results[0]["models"]["a"] and battles[1].winner == results[1]["models"]["b"]
    assert battles[2].tied
    stored = read_preferences(tmp_path / "arena" / PREFERENCES)
    rows = [json.loads(line) for line in (tmp_path / "arena" / BATTLES).read_text().splitlines()]
    decided = [row for row in rows if row["winner"] != "tie" and row["answer_a"] != row["answer_b"]]
    assert [one.chosen[0]["content"] for one in stored] == [row[f"answer_{row['winner'][-1]}"] for row in decided]
    with pytest.raises(StageError, match="two models"):
        Arena(["one"], tmp_path).begin(ASK)  # type: ignore[arg-type]


def walked(branches: list[dict[str, Any]], before: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """The branches of a tree, each with all tokens up to its end."""
    for one in branches:
        path = (*before, *one["ids"])
        yield path, one
        yield from walked(one["branches"], path)


def test_the_next_token_and_a_text_given_as_tokens(client: TestClient, models: dict[str, ServedModel]) -> None:
    body = {"model": "one", "text": "mouse", "temperature": 0.5, "top_k": 3}
    whole = client.post("/api/next", json=body).json()
    ids = [one["id"] for one in whole["tokens"]]
    one = models["one"]
    assert ids == one.prompt(Request(text="mouse")) and whole["place"] == len(ids) and whole["before"] == "mouse"
    wanted = next_token(one.model, ids, Sampling(temperature=0.5, top_k=3, top_p=None))
    assert [(row["id"], row["drawn"]) for row in whole["candidates"]] == [(c.token, c.drawn) for c in wanted.candidates]
    assert whole["tokens"][0]["surprise"] is None and whole["tokens"][0]["special"]
    earlier = client.post("/api/next", json={"ids": ids, "place": 3}).json()
    assert earlier["entropy"] == pytest.approx(whole["tokens"][3]["entropy"]) and earlier["before"] == "mo"
    grown = client.post("/api/next", json={"ids": ids, "place": 3, "beams": 3}).json()["tree"]
    paths = [(path, node) for path, node in walked(grown, ()) if node["whole"] is not None]
    beams = one.continuations(ids[:3], 3)
    assert sorted(path for path, _ in paths) == sorted(beam.tokens for beam in beams)
    [likeliest] = [(path, node["whole"]) for path, node in paths if node["best"]]
    assert likeliest == (beams[0].tokens, pytest.approx(math.exp(beams[0].log_prob)))
    assert whole["tree"] == []
    asked = client.post("/api/next", json={"model": "two", "messages": ASK}).json()
    assert [row["id"] for row in asked["tokens"]] == models["two"].prompt(Request(messages=ASK))  # type: ignore[arg-type]
    text = {"max_tokens": 6, "seed": 5, "temperature": 1}
    answers = [client.post("/v1/completions", json=text | {"prompt": prompt}).json() for prompt in ("mouse", ids)]
    assert answers[0]["choices"] == answers[1]["choices"] and answers[1]["usage"]["prompt_tokens"] == len(ids)
    for wrong, message in (
        ({"ids": [-1]}, "-1 is not a token"),
        ({"ids": [99_999]}, "is not a token"),
        ({"ids": ids, "place": 9}, "place=9"),
        ({"ids": [1] * 49}, "reads from 1 to 48"),
        ({"ids": []}, "place"),
        ({}, "no messages"),
        ({"text": "a", "wat": 1}, "'wat'"),
        ({"text": "a", "beams": 9}, "beams"),
    ):
        refused = client.post("/api/next", json=wrong)
        assert refused.status_code == 400 and message in refused.json()["error"]["message"], refused.text
    assert client.post("/v1/completions", json={"prompt": [99_999]}).status_code == 400


def test_ratings_of_the_votes_have_intervals(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/arena/ratings").json() == {"models": [], "why": "There are no votes yet."}
    fight(client, "a")
    alone = client.get("/arena/ratings").json()
    assert alone["why"]  # models that have not met can't be compared, and one vote says little of two that have
    assert all(one["interval"] is None for one in alone["models"])
    for winner in ("a", "b", "tie (bothbad)", "a", "b", "tie", "b", "a", "a", "b"):
        fight(client, winner)
    rows = [json.loads(line) for line in (tmp_path / "arena" / BATTLES).read_text().splitlines()]
    assert rows[3]["winner"] == "tie (bothbad)" and read_battles(tmp_path / "arena" / BATTLES)[0][3].tied
    rated = client.get("/arena/ratings").json()["models"]
    assert [one["rating"] for one in rated] == sorted((one["rating"] for one in rated), reverse=True)
    assert sum(one["battles"] for one in rated) == 2 * len(rows)
    for one in rated:
        assert one["interval"] is None or one["interval"][0] < one["rating"] < one["interval"][1]


def test_two_answers_take_turns(models: dict[str, ServedModel]) -> None:
    """Each is what it would have been alone, and a long one does not keep a short one waiting."""
    one = models["one"]
    long, short = Request(text="a", max_tokens=40, seed=1), Request(text="b", max_tokens=2, seed=2)
    alone = ["".join(piece.text for piece in one.answer(asked)) for asked in (long, short)]
    slow = one.answer(long)
    begun = [next(slow)]
    quick: list[str] = []
    thread = threading.Thread(target=lambda: quick.append("".join(piece.text for piece in one.answer(short))))
    thread.start()
    thread.join(30)
    assert quick == [alone[1]]  # while the long one is still under way
    assert "".join(piece.text for piece in [*begun, *slow]) == alone[0]
    with pytest.raises(ConfigError, match="n=0"):
        one.answer(Request(text="a", count=0))


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/completions", {"prompt": ["a", "b"]}, 400, "2 prompts"),
        ("/v1/completions", {"prompt": "a", "temperature": 1e-300}, 200, ""),
        ("/v1/completions", {"prompt": "a", "repetition_penalty": "nan"}, 400, "repetition_penalty"),
        ("/v1/completions", {"prompt": "a", "stop": ["x"] * 5}, 400, "stop has 5"),
        ("/v1/completions", {"prompt": "a", "echo": True}, 400, "'echo' is not supported"),
        ("/v1/completions", {"prompt": "a", "echo": False, "user": "Ada", "best_of": 1}, 200, ""),
        ("/v1/completions", {"prompt": "a", "tempratur": 1}, 400, "'tempratur' is not known"),
        ("/v1/completions", {"prompt": "a", "presence_penalty": 1.5}, 400, "presence_penalty"),
        ("/v1/completions", {"prompt": "a", "top_logprobs": 3}, 400, "needs logprobs"),
        ("/v1/completions", {"prompt": "a", "logprobs": 21}, 400, "0 to 20"),
        ("/v1/completions", {"prompt": "\ud800"}, 400, "lone surrogate"),
        ("/v1/chat/completions", {"messages": ASK, "tools": [{"type": "function"}]}, 400, "tools"),
        ("/v1/chat/completions", {"messages": "hello"}, 400, "messages"),
        ("/arena/answer", {"battle": "x", "side": "a"}, 400, "no such battle"),
    ],
)
def test_each_request_is_answered_or_refused_by_name(
    client: TestClient, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    raw = json.dumps({"max_tokens": 2} | body)
    answer = client.post(path, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert status == 200 or message in answer.json()["error"]["message"]


def test_a_body_that_is_not_json_is_said_to_be_none(client: TestClient) -> None:
    for body in (b"{", b"\xff", b"[" * 100_000):
        answer = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and answer.json()["error"]["type"] == "invalid_request_error"


def test_bodies_are_limited_before_they_are_read_and_prompts_before_they_are_encoded(client: TestClient) -> None:
    large = client.post("/v1/completions", json={"prompt": "a" * (MOST_BYTES + 1)})
    assert large.status_code == 413 and "at most" in large.json()["error"]["message"]
    began = time.process_time()
    long = client.post("/v1/completions", json={"prompt": "a" * (MOST_BYTES - 1000)})
    assert long.status_code == 400 and long.json()["error"]["code"] == "context_length_exceeded"
    assert time.process_time() - began < 20  # encoding it takes minutes


def test_likeliest_tokens_and_usage(client: TestClient) -> None:
    body = {"model": "two", "messages": ASK, "max_tokens": 3, "temperature": 0, "logprobs": True, "top_logprobs": 4}
    content = client.post("/v1/chat/completions", json=body).json()["choices"][0]["logprobs"]["content"]
    for token in content:
        top = token["top_logprobs"]
        assert len(top) == 4 and top[0]["id"] == token["id"]  # greedy
        assert [one["logprob"] for one in top] == sorted((one["logprob"] for one in top), reverse=True)
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = events(client.post("/v1/chat/completions", json=streamed).text)
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == len(content)
    text = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 3, "logprobs": 2, "seed": 0}).json()[
        "choices"
    ][0]
    assert len(text["logprobs"]["token_logprobs"]) == len(text["logprobs"]["text_offset"]) == 3
    assert all(1 <= len(one) <= 2 for one in text["logprobs"]["top_logprobs"])


def test_every_answer_has_the_headers_and_the_policy_lets_our_own_script_run(client: TestClient) -> None:
    for path in ("/", "/health", "/nowhere", "/api/state"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    page = client.get("/").text
    script = page.partition("<script>")[2].partition("</script>")[0]
    wanted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{wanted}'" in client.get("/").headers["content-security-policy"]
    assert " style=" not in page and " onclick=" not in page  # which the policy would not run


def test_a_server_for_other_machines_wants_its_token(models: dict[str, ServedModel]) -> None:
    app = build_app(models, None, Sampling(), token="geheim")
    with TestClient(app, base_url="http://elsewhere", follow_redirects=False) as client:
        assert client.get("/health").status_code == 200
        for path in ("/", "/v1/models", "/api/state", "/?token=wrong"):
            assert client.get(path).status_code == 401, path
        assert client.get("/v1/models", headers={"authorization": "Bearer geheim"}).status_code == 200
        assert client.get("/v1/models", headers={"authorization": "Bearer geheimer"}).status_code == 401
        entered = client.get("/?token=geheim")
        assert entered.status_code == 303 and "HttpOnly" in entered.headers["set-cookie"]
        assert client.get("/api/state").status_code == 200  # by the cookie


def test_pages_of_elsewhere_are_not_let_in(models: dict[str, ServedModel]) -> None:
    """By a name that leads here (DNS rebinding), or by a request of theirs; in the API's form."""
    app = build_app(models, None, Sampling(), ["127.0.0.1", "[::1]"])
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        for mine in ("http://127.0.0.1:8000", "http://[::1]:8000"):
            assert client.get("/v1/models", headers={"origin": mine}).status_code == 200
        assert client.get("/v1/models", headers={"host": "[::1]:8000"}).status_code == 200
        for header in ({"host": "evil.example"}, {"host": "127.0.0.1.evil.example"}, {"origin": "null"},
                       {"origin": "http://evil.example"}, {"host": ""}):  # fmt: skip
            refused = client.get("/v1/models", headers=header)
            assert refused.status_code in (400, 403) and "not of this server" in refused.json()["error"]["message"]


def test_a_battle_holds_no_book(client: TestClient) -> None:
    long = [{"role": "user", "content": "x" * 100_001}]
    assert "characters" in client.post("/arena/battle", json={"messages": long}).json()["error"]["message"]


def test_a_shown_answer_is_not_drawn_again(client: TestClient) -> None:
    battle = client.post("/arena/battle", json={"messages": ASK}).json()["battle"]
    for side in ("a", "b"):
        client.post("/arena/answer", json={"battle": battle, "side": side, "max_tokens": 6})
    again = client.post("/arena/answer", json={"battle": battle, "side": "a"})
    assert again.status_code == 400 and "has answered" in again.json()["error"]["message"]
    for judge in ("x" * 201, "\ud800"):
        raw = json.dumps({"battle": battle, "winner": "a", "judge": judge})
        refused = client.post("/arena/vote", content=raw, headers={"content-type": "application/json"})
        assert refused.status_code == 400 and "judge" in refused.json()["error"]["message"]
    assert client.post("/arena/vote", json={"battle": battle, "winner": "a"}).status_code == 200  # still open


def test_broken_weights_are_said(models: dict[str, ServedModel]) -> None:
    broken = ServedModel("broken", copy.deepcopy(models["one"].model), models["one"].tokenizer, True)
    with torch.no_grad():
        broken.model.head_weight[3] = float("nan")
    with TestClient(build_app({"broken": broken}, None, Sampling(temperature=1.0))) as client:
        for stream in (False, True):
            answer = client.post("/v1/completions", json={"prompt": "a", "stream": stream})
            assert answer.status_code == 400 and "NaN" in answer.json()["error"]["message"]


def _vote_until_killed(folder: Path) -> None:
    arena = Arena(["one", "two"], folder, seed=os.getpid())
    for number in range(10_000):
        battle = arena.begin([{"role": "user", "content": f"question {number}"}])
        arena.battle(battle).answers.update(a="yes", b="no")
        arena.vote(battle, "ab"[number % 2], "Ada")


def test_killed_while_it_writes_no_vote_lacks_its_preference(tmp_path: Path) -> None:
    for attempt in range(20):
        folder = tmp_path / "arena"
        server = multiprocessing.get_context("fork").Process(target=_vote_until_killed, args=(folder,))
        server.start()
        time.sleep(0.02 + 0.003 * attempt)
        os.kill(server.pid or 0, signal.SIGKILL)
        server.join()
        if not (folder / BATTLES).exists():
            continue
        before = (folder / BATTLES).read_bytes().count(b"\n")
        Arena(["one", "two"], folder)  # the next start
        battles = [json.loads(line) for line in (folder / BATTLES).read_text().splitlines()]
        preferences = [json.loads(line) for line in (folder / PREFERENCES).read_text().splitlines()]
        assert len(battles) == before == len(preferences)
        assert [one["prompt"] for one in preferences] == [one["messages"] for one in battles]


def test_half_a_line_at_the_end_is_cut_before_the_next_vote(tmp_path: Path) -> None:
    arena = Arena(["one", "two"], tmp_path)
    (tmp_path / BATTLES).write_text('{"model_a": "on')
    battle = arena.begin(ASK)  # type: ignore[arg-type]
    arena.battle(battle).answers.update(a="yes", b="no")
    arena.vote(battle, "a", "Ada")
    assert len((tmp_path / BATTLES).read_text().splitlines()) == 1 and len(read_battles(tmp_path / BATTLES)[0]) == 1


def _three_votes(folder: Path) -> bytes:
    arena = Arena(["one", "two"], folder, seed=0)
    for number, winner in enumerate(("a", "b", "tie")):
        battle = arena.begin([{"role": "user", "content": f"Grüße {number}"}])
        arena.battle(battle).answers.update(a="yes", b="no")
        arena.vote(battle, winner, "Ada")
    return (folder / BATTLES).read_bytes()


def test_a_changed_byte_of_a_vote_is_noticed_and_named(tmp_path: Path) -> None:
    good = _three_votes(tmp_path)
    expected, noticed = read_battles(tmp_path / BATTLES), 0
    for place in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        (tmp_path / BATTLES).write_bytes(damaged)
        line = good[:place].count(b"\n") + 1
        try:
            assert read_battles(tmp_path / BATTLES) == expected  # a checksum by another name, and that is told
        except StageError as error:
            noticed += 1
            assert f"battles.jsonl, line {line}" in str(error)
    assert noticed > 0.3 * len(good)


def test_the_arena_starts_with_whole_votes_only(tmp_path: Path) -> None:
    good = _three_votes(tmp_path)
    preferences = (tmp_path / PREFERENCES).read_bytes()
    for end in (good[:-1], good[:-1] + b"\x8a", good, good + good[:100]):  # a line break lost, changed, half a line
        (tmp_path / BATTLES).write_bytes(end)
        (tmp_path / PREFERENCES).write_bytes(preferences[:-3])
        assert Arena(["one", "two"], tmp_path).votes() == 3
        assert (tmp_path / BATTLES).read_bytes() == good and (tmp_path / PREFERENCES).read_bytes() == preferences
    (tmp_path / BATTLES).write_bytes(good.replace(b'"model_a", "answer_a"', b'"model_b", "answer_a"', 1))
    with pytest.raises(StageError, match=r"battles\.jsonl, line 1 is damaged: it does not match its checksum"):
        Arena(["one", "two"], tmp_path)


def test_votes_of_before_checksums_are_read_with_newer_ones(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in _three_votes(tmp_path).splitlines()]
    rows[0].pop("checksum")
    (tmp_path / BATTLES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Arena(["one", "two"], tmp_path).votes() == 3 and len(read_battles(tmp_path / BATTLES)[0]) == 3


# Corrections ----------------------------------------------------------------------------------------------------------


def test_a_corrected_answer_is_an_instruction(models: dict[str, ServedModel], tmp_path: Path) -> None:
    app = build_app(models, None, Sampling(), ["here"], corrections=Corrections(tmp_path))
    talk = [*ASK, {"role": "assistant", "content": "hm"}, {"role": "user", "content": "Well?"}]
    with TestClient(app, base_url="http://here") as http:
        body = {"messages": talk, "answer": "Good morning!", "original": "Go", "model": "two", "name": " Ida "}
        assert http.get("/api/state").json()["corrections"] == {"kept": 0}
        assert [http.post("/corrections", json=body).json() for _ in range(2)] == [{"kept": 1}] * 2  # the same once
        assert http.post("/corrections", json=body | {"answer": "Good evening!"}).json() == {"kept": 2}
        for wrong, message in (
            ({"answer": " "}, "Nothing was corrected"), ({"answer": "Go"}, "Nothing was corrected"),
            ({"messages": talk[:2]}, "a second turn of the assistant"), ({"messages": []}, "does not end with"),
            ({"model": "four"}, "no model 'four' here"), ({"answer": "x" * 100_001}, "more than 100,000 characters"),
        ):  # fmt: skip
            assert message in http.post("/corrections", json=body | wrong).json()["error"]["message"]
        origin = {"Origin": "http://elsewhere.example"}
        assert http.post("/corrections", json=body | {"answer": "No."}, headers=origin).status_code == 403
    first, second = ExampleFiles(tmp_path, "instructions").examples()
    assert [one["content"] for one in first.messages] == ["hello", "hm", "Well?", "Good morning!"]
    assert (
        first.messages[1].get("weight") == 0 and "weight" not in first.messages[3]
    )  # only what was written is learned
    assert second.messages[-1]["content"] == "Good evening!"
    row = json.loads((tmp_path / "instructions.jsonl").read_text().splitlines()[0])
    assert (row["source"], row["model"], row["meta"]) == ("Ida", "two", {"original": "Go"})


def test_corrections_survive_a_kill_and_notice_a_change(tmp_path: Path) -> None:
    ask: list[Message] = [{"role": "user", "content": "hello"}]
    corrections = Corrections(tmp_path)
    for answer in ("one", "two"):
        corrections.add(ask, answer, "no", model="m", name="a person")
    path = tmp_path / "instructions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])  # killed while it wrote
    again = Corrections(tmp_path)
    assert len(again) == 2 and again.add(ask, "three", "no", model="m", name="a person") == 3
    assert path.read_bytes().startswith(whole) and len(path.read_bytes().splitlines()) == 3
    path.write_bytes(path.read_bytes().replace(b"two", b"owt"))
    with pytest.raises(StageError, match="line 2 is damaged"):
        Corrections(tmp_path)
